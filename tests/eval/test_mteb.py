"""UVRB by MTEB gives the numbers that our own runner gives, and MTEB's loader reads the world's folder."""

import sys
import zlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import disable_progress_bars, enable_progress_bars
from sentence_transformers import SentenceTransformer
from uvrb_folder import NUM_CLIPS, WordEncoder, make_tables, numbered, read_number, write_uvrb

from gve import build_tiny, save_embedder
from gve.eval.benchmark import score_sets
from gve.hub_datasets.uvrb import SETS, load_set
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import DEFAULT_SIZES, Sizes

mteb = pytest.importorskip("mteb")
from gve.eval.mteb import mteb_model, uvrb_tasks  # noqa: E402 - after the line that may skip

PROMPTS = {task.instruction for task in SETS.values()}
SMALL = Sizes(base=4, groups=2, programs=4, themes=6, longs=3, composed=2)


class NoisyEncoder(WordEncoder):
    """Finds some: queries lie near their clip, as far off as their text and instruction say."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def encode_query(self, inputs, **options):
        vectors = super().encode_query(inputs, **options)
        seeds = [zlib.crc32(f"{options['prompt']}{read_number(item)}".encode()) for item in inputs]
        noise = np.stack([np.random.default_rng(seed).standard_normal(self.width) for seed in seeds])
        return (vectors + self.noise * noise).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture(scope="module")
def tasks(uvrb):
    """All sixteen, by name; what reads their data leaves them unloaded."""
    return dict(zip(SETS, uvrb_tasks(uvrb), strict=True))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_embedder(path, *build_tiny(["a red ball rolls to the left", "find the video"], frame_size=32, num_frames=2))
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    build_world(root, seed=1, pairs={}, raw=0, workers=1, progress=False, sizes=SMALL)
    return root / "uvrb"


def evaluate(model, tasks):
    """Each set's main score as MTEB writes it down."""
    options = {"batch_size": 16, "show_progress_bar": False}
    found = mteb.evaluate(model, tasks, cache=None, encode_kwargs=options, show_progress_bar=False)
    return {result.task_name: result.scores["unseen"][0]["main_score"] for result in found.task_results}


def compare(model, tasks):
    """Our own runner's scores by set, when MTEB's are the same."""
    ours = score_sets(model.model, [task.data for task in tasks], batch_size=16)["sets"]
    theirs = evaluate(model, tasks)
    assert list(theirs) == [f"UVRB-{name}" for name in SETS]
    assert all(entry["tied_queries"] == 0 for entry in ours.values())
    scores = {name: entry["score"] for name, entry in ours.items()}
    assert {name.removeprefix("UVRB-"): score for name, score in theirs.items()} == pytest.approx(scores, abs=1e-4)
    return scores


def test_the_same_sixteen_numbers_of_an_encoder_that_finds_some(tasks):
    scores = compare(mteb_model(NoisyEncoder(0.6)), list(tasks.values()))
    assert 0.2 < np.mean(list(scores.values())) < 0.9
    assert len(set(scores.values())) > 5


def test_the_same_sixteen_numbers_of_an_untrained_model_on_videos(world, tiny):
    assert len(compare(mteb_model(tiny), uvrb_tasks(world))) == 16


def test_pools_are_what_is_searched(tasks):
    """Each query looks most like a clip that is not among its ten candidates."""
    misled = WordEncoder(width=1024)
    misled.encode_query = lambda inputs, **options: np.stack(
        [misled._vector(n) + 2 * misled._vector((n - 1) % NUM_CLIPS) for n in map(read_number, inputs)]
    )
    asked = [tasks["MSRVTT"], tasks["MS-TI"]]
    ours = score_sets(misled, [task.data for task in asked])["sets"]
    assert [entry["score"] for entry in ours.values()] == [0.0, 1.0]
    assert evaluate(mteb_model(misled), asked) == {"UVRB-MSRVTT": 0.0, "UVRB-MS-TI": 1.0}


def test_ties_part_the_two(tasks):
    """Where candidates tie, ours is the expected score and MTEB's goes by their ids."""
    model = mteb_model(WordEncoder(see=lambda number: 0))
    ours = score_sets(model.model, [tasks["MS-TI"].data])["sets"]["MS-TI"]
    assert (ours["score"], ours["tied_queries"]) == (pytest.approx(0.1), 1.0)
    (theirs,) = evaluate(model, [tasks["MS-TI"]]).values()
    assert theirs * NUM_CLIPS == pytest.approx(round(theirs * NUM_CLIPS), abs=1e-3)  # each query right or wrong
    assert theirs != pytest.approx(0.1, abs=1e-3)


def test_instructions_go_with_queries_alone_and_shared_corpora_are_encoded_once(tasks):
    encoder = WordEncoder()
    scores = evaluate(mteb_model(encoder), list(tasks.values()))
    assert scores == dict.fromkeys(scores, 1.0)
    assert {options["prompt"] for role, _, options in encoder.calls if role == "query"} == PROMPTS
    assert all("prompt" not in options for role, _, options in encoder.calls if role == "document")
    assert sum(len(inputs) for role, inputs, _ in encoder.calls if role == "document") == NUM_CLIPS


def test_metadata_come_from_the_table(tasks):
    for name, task in SETS.items():
        made, told = tasks[name], tasks[name].metadata
        assert told.main_score == task.metric.replace("@", "_at_")
        assert told.prompt == {"query": task.instruction}
        assert sorted(told.get_modalities(mteb.types.PromptType.query)) == sorted(task.query_modalities)
        assert told.get_modalities(mteb.types.PromptType.document) == ["video"]
        assert set(told.modalities) == {*task.query_modalities, "video"}
        assert (made.hf_subsets, made.k_values) == ([task.slug], (1, 5, 10))


@pytest.mark.parametrize("name", ["CMRB", "MSRVTT-I2V", "MS-TV"])
def test_mtebs_own_loader_reads_the_worlds_folder(world, name):
    task, data = SETS[name], load_set(world, name)
    (made,) = uvrb_tasks(world, sets=[name])
    plain = type("Plain", (mteb.abstasks.retrieval.AbsTaskRetrieval,), {"metadata": made.metadata})()
    plain.load_data()
    made.load_data()
    read, ours = (one.dataset[task.slug]["unseen"] for one in (plain, made))
    assert read["queries"].column_names == ["id", *task.query_modalities]
    assert read["relevant_docs"] == ours["relevant_docs"]
    assert read["top_ranked"] == ours["top_ranked"]
    assert (read["top_ranked"] is None) == (task.pool_size is None)
    assert list(read["corpus"]["id"]) == data.corpus_ids
    assert read["corpus"][0]["video"]["bytes"] == data.corpus[0]["video"]["bytes"]
    assert read["queries"].features == ours["queries"].features


def test_mtebs_own_loader_leads_to_the_same_score(world, tiny):
    (made,) = uvrb_tasks(world, sets=["cmrb"])
    members = {"metadata": made.metadata, "k_values": (1, 10)}
    plain = type("Plain", (mteb.abstasks.retrieval.AbsTaskRetrieval,), members)()
    model = mteb_model(tiny)
    assert evaluate(model, [plain]) == evaluate(model, [made])


def test_data_are_handed_over_as_asked_and_again_after_unloading(uvrb, tasks):
    (task,) = uvrb_tasks(uvrb, sets=["lovr-c2v"], decode_videos=True)
    task.load_data()
    split = task.dataset["lovr-c2v"]["unseen"]
    assert split["corpus"].features["video"].decode and split["queries"].features["video"].decode
    task = tasks["MS-TV"]
    for _ in range(2):
        task.load_data()
        assert task.dataset["ms-tv"]["unseen"]["queries"].column_names == ["id", "text", "video"]
        task.unload_data()
        assert task.dataset is None


def test_broken_data_stop_before_anything_runs(tmp_path):
    tables = make_tables("MS-TI")
    del tables["top_ranked"][0]
    with pytest.raises(ValueError, match="ms-ti-top_ranked: query 'q0' has no pool"):
        uvrb_tasks(write_uvrb(tmp_path, {"MS-TI": tables}), sets=["ms-ti"])
    with pytest.raises(ValueError, match="unknown set 'msr-vtt'"):
        uvrb_tasks(tmp_path, sets=["msr-vtt"])


def metadata():
    return type("Metadata", (), {"name": "Task", "prompt": {"query": "Find it."}, "type": "Any2AnyRetrieval"})


def encode(model, batch, prompt_type=mteb.types.PromptType.query):
    return model.encode([batch], task_metadata=metadata(), hf_split="x", hf_subset="y", prompt_type=prompt_type)


def test_takes_frames_of_mteb(tiny):
    frames = torch.randint(0, 256, (2, 3, 48, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = {"text": ["a ball", "a box"], "video": [frames, frames.flip(0)], "id": ["a", "b"]}
    vectors = encode(mteb_model(tiny), batch)
    assert vectors.shape == (2, 128)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert abs(vectors[0] @ vectors[1]) < 0.9999
    direct = mteb_model(tiny).model.encode_query(
        [{"text": "a ball", "video": frames}, {"text": "a box", "video": frames.flip(0)}], prompt="Find it."
    )
    assert vectors == pytest.approx(direct, abs=1e-5)


def test_empty_texts_are_the_bare_template(tiny):
    """Public sets have such rows, and MTEB hands them to sentence-transformers' own wrapper as strings."""
    model = mteb_model(tiny)
    assert encode(model, {"text": ["", "a ball", None]}) == pytest.approx(encode(model, {"text": ["", "a ball", ""]}))
    plain = SentenceTransformer(tiny)
    template = plain[0].processor.prepare([{"text": ""}], instruction="Find it.")["input_ids"][0]
    assert "Find it.<|im_end|>\n<|im_start|>user\n<|im_end|>" in plain.tokenizer.decode(template)
    for text in ("", " ", "\n"):
        vector = encode(model, {"text": [text]})
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert vector == pytest.approx(plain.encode([text], prompt="Find it."), abs=1e-5)
        assert vector == pytest.approx(model.model.encode_query([{"text": text}], prompt="Find it."), abs=1e-5)


def test_whole_numbers_as_ids_reach_mteb_as_texts(tmp_path):
    folder = write_uvrb(tmp_path, {name: make_tables(name) for name in ("MSRVTT", "MS-TI")})
    numbered(folder, pa.int64())
    tasks = uvrb_tasks(folder, sets=["msrvtt", "ms-ti"])
    assert evaluate(mteb_model(WordEncoder()), tasks) == {"UVRB-MSRVTT": 1.0, "UVRB-MS-TI": 1.0}


def test_takes_decoders_of_torchcodec():
    class Decoder:
        metadata = type("Metadata", (), {"num_frames": 21})

        def get_frames_at(self, indices):
            return type("Frames", (), {"data": torch.tensor(indices, dtype=torch.uint8).view(-1, 1, 1, 1)})

    Decoder.__module__ = "torchcodec.decoders._video_decoder"

    class Recorder:
        def encode_document(self, inputs, **options):
            self.seen = [item["video"].flatten().tolist() for item in inputs]
            return np.ones((len(inputs), 2))

    model = mteb_model(Recorder(), num_frames=5)
    encode(model, {"video": [Decoder()]}, mteb.types.PromptType.document)
    assert model.model.seen == [[0, 5, 10, 15, 20]]


def test_what_mteb_records(tiny):
    model = mteb_model(tiny)
    assert model.mteb_model_meta.name == "local/tiny"
    assert model.mteb_model_meta.modalities == ["text", "image", "video"]
    assert len(model.mteb_model_meta.revision) == 32
    assert mteb_model(tiny, name="org/gve").mteb_model_meta.name == "org/gve"
    assert mteb_model(WordEncoder()).mteb_model_meta.name == "local/WordEncoder"
    with pytest.raises(ValueError, match="name: must be 'organization/model', got 'gve'"):
        mteb_model(tiny, name="gve")
    with pytest.raises(ValueError, match=r"num_frames: .*got 0"):
        mteb_model(tiny, num_frames=0)
    with pytest.raises(ValueError, match=r"inputs: a batch of \['audio'\]"):
        encode(mteb_model(WordEncoder()), {"audio": [1]})


def test_without_mteb_the_extra_is_named(uvrb, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("gve.eval.mteb_", "mteb"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mteb", None)
    for call in (lambda: mteb_model(WordEncoder()), lambda: uvrb_tasks(uvrb)):
        with pytest.raises(ImportError, match=r"pip install 'gve\[mteb\]'"):
            call()


@pytest.mark.slow
def test_the_same_sixteen_numbers_on_the_whole_world(tmp_path, tiny):
    build_world(tmp_path, seed=0, pairs={}, raw=0, workers=2, progress=False, sizes=DEFAULT_SIZES)
    assert len(compare(mteb_model(tiny), uvrb_tasks(tmp_path / "uvrb"))) == 16
