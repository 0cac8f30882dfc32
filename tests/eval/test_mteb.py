"""UVRB by MTEB gives the numbers that our own runner gives, and MTEB's loader reads the world's folder."""

import sys
import zlib

import numpy as np
import pytest
import torch
from datasets import disable_progress_bars, enable_progress_bars
from sentence_transformers import SentenceTransformer
from uvrb_folder import NUM_CLIPS, WordEncoder, make_tables, read_number, write_uvrb

from gve.eval.benchmark import score_sets
from gve.hub_datasets.uvrb import SETS, load_set
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import Sizes

mteb = pytest.importorskip("mteb")
from gve.eval.mteb import mteb_model, uvrb_tasks  # noqa: E402 - after the line that may skip

SMALL = Sizes(base=3, groups=1, programs=2, themes=2, longs=2, composed=2)


class NoisyEncoder(WordEncoder):
    """Finds some: queries lie near their clip, as far off as their text and instruction say."""

    def encode_query(self, inputs, **options):
        seeds = [zlib.crc32(f"{options['prompt']}{read_number(item)}".encode()) for item in inputs]
        noise = np.stack([np.random.default_rng(seed).standard_normal(self.width) for seed in seeds])
        return (super().encode_query(inputs, **options) + 0.6 * noise).astype(np.float32)


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
def tiny(tiny_folder):
    return mteb_model(str(tiny_folder))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    build_world(root, seed=1, pairs={}, raw=0, workers=1, progress=False, sizes=SMALL)
    return root / "uvrb"


def evaluate(model, tasks):
    """Each set's main score as MTEB writes it down."""
    found = mteb.evaluate(model, tasks, cache=None, encode_kwargs={"batch_size": 16}, show_progress_bar=False)
    return {result.task_name: result.scores["unseen"][0]["main_score"] for result in found.task_results}


def both(model, tasks):
    """Our own runner's scores and MTEB's, by MTEB's names."""
    ours = score_sets(model.model, [task.data for task in tasks], batch_size=16)["sets"]
    assert all(entry["tied_queries"] == 0 for entry in ours.values())
    return {f"UVRB-{name}": entry["score"] for name, entry in ours.items()}, evaluate(model, tasks)


def test_the_same_sixteen_numbers_of_an_encoder_that_finds_some(tasks):
    ours, theirs = both(mteb_model(NoisyEncoder()), list(tasks.values()))
    assert list(theirs) == [f"UVRB-{name}" for name in SETS]
    assert theirs == pytest.approx(ours, abs=1e-4)
    assert 0.2 < np.mean(list(ours.values())) < 0.9
    assert len(set(ours.values())) > 5


def test_the_same_sixteen_numbers_of_an_untrained_model_on_videos(world, tiny):
    ours, theirs = both(tiny, uvrb_tasks(world))
    assert theirs == pytest.approx(ours, abs=1e-4) and len(ours) == 16


def test_pools_are_what_is_searched(tasks):
    """Each query looks most like a clip that is not among its ten candidates."""
    misled = WordEncoder(width=1024)
    misled.encode_query = lambda inputs, **options: np.stack(
        [misled._vector(n) + 2 * misled._vector((n - 1) % NUM_CLIPS) for n in map(read_number, inputs)]
    )
    ours, theirs = both(mteb_model(misled), [tasks["MSRVTT"], tasks["MS-TI"]])
    assert ours == theirs == {"UVRB-MSRVTT": 0.0, "UVRB-MS-TI": 1.0}


def test_instructions_go_with_queries_alone_and_shared_corpora_are_encoded_once(tasks):
    encoder = WordEncoder()
    scores = evaluate(mteb_model(encoder), list(tasks.values()))
    assert scores == dict.fromkeys(scores, 1.0)
    prompts = {options["prompt"] for role, _, options in encoder.calls if role == "query"}
    assert prompts == {task.instruction for task in SETS.values()}
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


def test_data_are_handed_over_as_asked_and_again_after_unloading(uvrb, tasks, tmp_path):
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
    tables = make_tables("MS-TI")
    del tables["top_ranked"][0]
    with pytest.raises(ValueError, match="ms-ti-top_ranked: query 'q0' has no pool"):
        uvrb_tasks(write_uvrb(tmp_path, {"MS-TI": tables}), sets=["ms-ti"])


def encode(model, batch, prompt_type=mteb.types.PromptType.query):
    metadata = type("Metadata", (), {"name": "Task", "prompt": {"query": "Find it."}, "type": "Any2AnyRetrieval"})
    return model.encode([batch], task_metadata=metadata, hf_split="x", hf_subset="y", prompt_type=prompt_type)


def test_takes_frames_of_mteb(tiny):
    frames = torch.randint(0, 256, (2, 3, 48, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = {"text": ["a ball", "a box"], "video": [frames, frames.flip(0)]}
    vectors = encode(tiny, batch | {"id": ["a", "b"]})
    assert vectors.shape == (2, 128)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert abs(vectors[0] @ vectors[1]) < 0.9999
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    assert vectors == pytest.approx(tiny.model.encode_query(rows, prompt="Find it."), abs=1e-5)


def test_empty_texts_are_the_bare_template(tiny, tiny_folder):
    """Public sets have such rows, and MTEB hands them to sentence-transformers' own wrapper as strings."""
    assert encode(tiny, {"text": ["", "a ball", None]}) == pytest.approx(encode(tiny, {"text": ["", "a ball", ""]}))
    plain = SentenceTransformer(str(tiny_folder))
    template = plain[0].processor.prepare([{"text": ""}], instruction="Find it.")["input_ids"][0]
    assert "Find it.<|im_end|>\n<|im_start|>user\n<|im_end|>" in plain.tokenizer.decode(template)
    for text in ("", " ", "\n"):
        vector = encode(tiny, {"text": [text]})
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert vector == pytest.approx(plain.encode([text], prompt="Find it."), abs=1e-5)
        assert vector == pytest.approx(tiny.model.encode_query([{"text": text}], prompt="Find it."), abs=1e-5)


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
    told = tiny.mteb_model_meta
    assert (told.name, told.modalities, len(told.revision)) == ("local/tiny", ["text", "image", "video"], 32)
    encoder = WordEncoder()
    assert mteb_model(encoder, name="org/gve").mteb_model_meta.name == "org/gve"
    assert mteb_model(encoder).mteb_model_meta.name == "local/WordEncoder"
    with pytest.raises(ValueError, match="name: must be 'organization/model', got 'gve'"):
        mteb_model(encoder, name="gve")
    with pytest.raises(ValueError, match=r"num_frames: .*got 0"):
        mteb_model(encoder, num_frames=0)
    with pytest.raises(ValueError, match=r"inputs: a batch of \['audio'\]"):
        encode(mteb_model(encoder), {"audio": [1]})


def test_without_mteb_the_extra_is_named(uvrb, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("gve.eval.mteb_", "mteb"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mteb", None)
    for call in (lambda: mteb_model(WordEncoder()), lambda: uvrb_tasks(uvrb)):
        with pytest.raises(ImportError, match=r"pip install 'gve\[mteb\]'"):
            call()
