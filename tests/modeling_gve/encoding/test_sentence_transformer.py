"""GVESentenceTransformer against the model and its processor, and against a plain SentenceTransformer."""

import copy
import inspect
import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from chats import far, vectors
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

import gve
from gve.encoding import sentence_transformer
from gve.encoding.items import as_input, named
from gve.encoding.prefetching import PipelineOptions
from gve.hub_datasets.uvrb import instructions

WIDTH = 128


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompted")
    gve.save_embedder(folder, *tiny, prompts=instructions())
    return folder


@pytest.fixture(scope="module")
def rows(rows):
    return [row for row in rows if row != ""]  # there is nothing in it to embed


@pytest.fixture(scope="module")
def ours(folder):
    return gve.GVESentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def plain(folder):
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def mixed(media, tmp_path):
    """Seven inputs; those at 1, 3 and 4 cannot be read."""
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 50)
    (tmp_path / "broken.png").write_bytes((media / "i.png").read_bytes()[:300])
    return [
        "a red circle",
        str(tmp_path / "nope.mp4"),
        {"video": str(media / "a.mp4")},
        {"video": str(tmp_path / "broken.mp4")},
        {"text": "in blue", "image": str(tmp_path / "broken.png")},
        str(media / "i.png"),
        {"text": "a blue box", "video": str(media / "short.mp4")},
    ]


GOOD, BAD = [0, 2, 5, 6], [1, 3, 4]
NAMES = (r"inputs\[1\].*nope\.mp4", r"inputs\[3\].*broken\.mp4", r"inputs\[4\].*broken\.png")


@pytest.fixture
def calls(ours, monkeypatch):
    """Rows given to `prepare`, batch by batch."""
    seen, prepare = [], ours.processor.prepare

    def watched(inputs, **options):
        seen.append(inputs)
        return prepare(inputs, **options)

    monkeypatch.setattr(ours.processor, "prepare", watched)
    return seen


def norms(found):
    return np.linalg.norm(found, axis=1)


def test_every_row_is_as_from_the_model(ours, model, processor, rows):
    expected = np.concatenate([vectors(model, processor, [row]) for row in rows])
    for size in (1, 3, 32):
        found = ours.encode(rows, batch_size=size)
        assert far(found, expected) <= 1e-6 and found.dtype == np.float32
    assert far(ours.encode(rows[0]), expected[0]) <= 1e-6  # one input, one vector


def test_every_bare_form_is_as_its_row(ours, plain, media):
    pictures = [PIL.Image.new("RGB", (48, 48), (value, 0, 200 - value)) for value in (0, 60, 120, 180)]
    frames = np.stack([np.asarray(picture) for picture in pictures])
    clip, image = (media / "a.mp4").read_bytes(), (media / "i.png").read_bytes()
    forms = [
        (media / "a.mp4", {"video": str(media / "a.mp4")}),
        (media / "i.png", {"image": str(media / "i.png")}),
        ({"bytes": clip, "path": "a.mp4"}, {"video": str(media / "a.mp4")}),
        ({"bytes": None, "path": str(media / "i.png")}, {"image": str(media / "i.png")}),
        ({"text": "t", "image": {"bytes": image, "path": None}, "video": None}, {"text": "t", "image": image}),
        ({"video": io.BytesIO(clip)}, {"video": str(media / "a.mp4")}),
        (pictures, {"video": frames}),
        (frames, {"video": frames}),
        (torch.from_numpy(frames), {"video": frames}),
        (gve.read_video(media / "a.mp4", 8), {"video": str(media / "a.mp4")}),
        ([{"role": "user", "content": [{"type": "text", "text": "t"}]}], {"text": "t"}),
    ]
    found = ours.encode([bare for bare, _ in forms])
    assert far(found, ours.encode([row for _, row in forms])) <= 1e-6
    shared = [row for _, row in forms if not isinstance(row.get("image"), bytes)]
    assert far(ours.encode(shared), plain.encode(shared)) <= 1e-6


def test_a_file_without_a_suffix_is_not_guessed():
    with pytest.raises(ValueError, match=r"path: got None; accepted are the files of images and videos"):
        as_input({"bytes": b"1234", "path": None})


def test_batches_hold_inputs_of_like_cost(ours, calls, media):
    words = "a blue box " * 30
    inputs = ["a box", "a red", {"video": str(media / "a.mp4")}, words, "a box", str(media / "i.png"), "a box"]
    costs = [(plan.tokens, plan.pixels) for plan in ours.processor.plan(inputs)]
    ours.encode(inputs, batch_size=2)
    batches = [inputs[place] for place in sorted(range(len(inputs)), key=lambda i: [-cost for cost in costs[i]])]
    seen = [
        row.text or (row.images[0].source if row.images else {"video": row.videos[0].file})
        for rows in calls
        for row in rows
    ]
    for start in range(0, len(inputs), 2):  # within a batch, texts come first
        assert all(row in batches[start : start + 2] for row in seen[start : start + 2])
    assert words in batches[:2]  # a path of 80 letters costs what its video costs, not 80 letters


def test_equal_costs_stay_in_order(ours, calls):
    inputs = [f"a {word}" for word in ("box", "red", "box", "red")]
    assert len({plan.tokens for plan in ours.processor.plan(inputs)}) == 1
    ours.encode(inputs)
    assert [row.text for rows in calls for row in rows] == inputs


def test_an_error_names_the_place_and_the_file(ours, mixed):
    for place, name in zip(BAD, NAMES, strict=True):
        with pytest.raises(FileNotFoundError if place == 1 else ValueError, match=name):
            ours.encode(["a box"] * place + mixed[place:])
    with pytest.raises(FileNotFoundError, match=r"inputs\[0\].*nope\.mp4"):
        ours.encode(mixed[1])
    assert str(named(ValueError("max_length: got 5, but input 0 takes 9"), 7)).endswith("but inputs[7] takes 9")
    assert str(named(KeyError(), 2)) == "inputs[2]: KeyError"


@pytest.mark.parametrize("size", [1, 3, 32])
@pytest.mark.parametrize("pipeline", [{}, {"workers": 0}, {"workers": 4, "held_bytes": 1}], ids=str)
def test_what_cannot_be_read_is_left_out(ours, mixed, size, pipeline, caplog, monkeypatch):
    expected = ours.encode([mixed[index] for index in GOOD])
    monkeypatch.setattr(ours, "pipeline", PipelineOptions(**pipeline))
    skipped = []
    with caplog.at_level(logging.WARNING):
        found = ours.encode(mixed, on_error="skip", skipped=skipped, batch_size=size)
    assert far(found, expected) <= 1e-6
    assert [failure.index for failure in skipped] == BAD
    assert [type(failure.error) for failure in skipped] == [FileNotFoundError, ValueError, ValueError]
    assert all(re.match(name, str(failure.error)) for failure, name in zip(skipped, NAMES, strict=True))
    assert [r.getMessage().partition(";")[0] for r in caplog.records] == ["left out 3 of 7 inputs that cannot be read"]
    with pytest.raises(FileNotFoundError, match=NAMES[0]):
        ours.encode(mixed, batch_size=size)


def test_each_file_is_decoded_once(ours, mixed, monkeypatch):
    loaded, reader = [], type(ours.processor.video_processor)
    load = reader.load

    def watched(self, video, **kwargs):
        loaded.append(Path(video.file).name)
        return load(self, video, **kwargs)

    monkeypatch.setattr(reader, "load", watched)
    ours.encode(mixed, on_error="skip", batch_size=32)
    assert sorted(loaded) == ["a.mp4", "short.mp4"]


def test_nothing_is_left(ours, mixed):
    skipped = []
    found = ours.encode([mixed[index] for index in BAD], on_error="skip", skipped=skipped)
    assert found.shape == (0, WIDTH) and len(skipped) == 3


def test_policies_are_checked(ours, calls):
    with pytest.raises(ValueError, match="on_error: got 'ignore'; accepted are 'raise' and 'skip'"):
        ours.encode(["a"], on_error="ignore")
    with pytest.raises(ValueError, match="on_error: got 'skip' for one input"):
        ours.encode("a", on_error="skip")
    with pytest.raises(ValueError, match="skipped: got a list with on_error='raise'"):
        ours.encode(["a"], skipped=[])
    ours._distributed_inference = print
    try:
        with pytest.raises(ValueError, match="on_error: got 'skip' while the evaluation is shared"):
            ours.encode(["a"], on_error="skip")
    finally:
        del ours._distributed_inference
    assert not calls


def test_truncation_gives_unit_vectors(ours, plain, model, processor, rows):
    found = ours.encode(rows, truncate_dim=16)
    assert far(found, vectors(model, processor, rows, dim=16)) <= 1e-6
    assert np.abs(norms(found) - 1).max() <= 1e-6
    assert norms(plain.encode(rows[4:5], truncate_dim=16))[0] < 0.9  # what it is for
    with ours.truncate_embeddings(24):
        assert ours.encode(rows[4:6]).shape == (2, 24)
    assert ours.encode(rows[4:6], truncate_dim=WIDTH).shape == (2, WIDTH)


def test_impossible_widths_are_refused_before_any_work(ours, calls):
    for dim in (0, -1, WIDTH + 1):
        with pytest.raises(ValueError, match=rf"truncate_dim: got {dim}; accepted are 1 to {WIDTH}"):
            ours.encode(["a red circle"], truncate_dim=dim)
    assert not calls


def test_an_empty_list(ours):
    for options, width in (({}, WIDTH), ({"precision": "ubinary"}, WIDTH // 8), ({"truncate_dim": 16}, 16)):
        assert ours.encode([], **options).shape == (0, width), options
    found = ours.encode([], convert_to_tensor=True)
    assert isinstance(found, torch.Tensor) and found.shape == (0, WIDTH)
    assert ours.encode_query([]).shape == (0, WIDTH)
    assert ours.encode([], convert_to_numpy=False) == []


SMALL = {"shortest_edge": 1024, "longest_edge": 1024}


@pytest.mark.parametrize(
    ("options", "nested"),
    [
        ({"num_frames": 4}, {"video": {"num_frames": 4}}),
        ({"max_length": 64}, {"text": {"max_length": 64}}),
        ({"video_size": SMALL}, {"video": {"size": SMALL}}),
        ({"image_size": SMALL}, {"image": {"size": SMALL}}),
    ],
    ids=["num_frames", "max_length", "video_size", "image_size"],
)
def test_options_reach_the_processor(ours, plain, model, processor, media, options, nested):
    row = {"text": "a red circle " * 40, "video": str(media / "a.mp4")}
    if "image_size" in options:
        row = {"text": "a red circle", "image": str(media / "i.png")}
    expected = vectors(model, processor, [row], **options)
    assert far(ours.encode([row], **options), expected) <= 1e-6
    assert far(ours.encode([row], processing_kwargs=nested), expected) <= 1e-6
    assert far(plain.encode([row], processing_kwargs=nested), expected) <= 1e-6
    assert far(ours.encode([row]), expected) > 1e-5


def test_unknown_settings_are_refused(ours):
    with pytest.raises(ValueError, match=r"processing_kwargs: got video\.fps = 2; accepted are video\.num_frames"):
        ours.encode(["a"], processing_kwargs={"video": {"fps": 2}})
    with pytest.raises(ValueError, match=r"got text\.truncation = False"):
        ours.encode(["a"], processing_kwargs={"text": {"truncation": False}})
    with pytest.raises(ValueError, match=r"this model does not use: \['nmu_frames'\]"):
        ours.encode(["a"], nmu_frames=4)


def test_several_processes(ours, mixed):
    good = [mixed[index] for index in GOOD]
    expected = ours.encode(good)
    pool = ours.start_multi_process_pool(["cpu"])
    try:
        skipped = []
        found = ours.encode(mixed, pool=pool, chunk_size=2, on_error="skip", skipped=skipped)
        assert far(found, expected) <= 1e-6 and [failure.index for failure in skipped] == BAD
        with pytest.raises(FileNotFoundError, match=r"inputs\[4\].*nope\.mp4"):
            ours.encode([*good, mixed[1]], pool=pool, chunk_size=2)
        assert ours.encode([mixed[1]], pool=pool, on_error="skip", truncate_dim=16).shape == (0, 16)
    finally:
        ours.stop_multi_process_pool(pool)


def test_other_models_are_refused(tmp_path, tiny):
    other = SentenceTransformer(modules=[StaticEmbedding(tiny[1].tokenizer.backend_tokenizer, embedding_dim=8)])
    other.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"model: .* has no config\.json; .*open it by SentenceTransformer"):
        gve.GVESentenceTransformer(str(tmp_path))


def test_the_private_methods_are_as_we_override_them():
    """sentence-transformers may change them without notice; then this class must follow."""
    given = ["prompt", "batch_size", "output_value", "save_to_cpu", "normalize_embeddings", "truncate_dim", "kwargs"]
    for method, names in (
        (SentenceTransformer._inference, ["show_progress_bar", "device", *given]),
        (SentenceTransformer._multi_process, ["show_progress_bar", "device", "pool", "chunk_size", "kwargs"]),
        (SentenceTransformer._resolve_inference_device, ["device"]),
    ):
        assert {"self", "inputs", *names} == {"inputs", *inspect.signature(method).parameters}
    assert SentenceTransformer._distributed_inference is None


@pytest.fixture(scope="module")
def half(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    gve.save_embedder(folder, copy.deepcopy(tiny[0]).bfloat16(), tiny[1], prompts=instructions())
    return folder


@pytest.mark.parametrize(
    ("speed", "free", "options", "dtype"),
    [
        (0.1, 1 << 40, {}, torch.float32),
        (2.0, 1 << 40, {}, torch.bfloat16),
        (0.1, 1 << 20, {}, torch.bfloat16),
        (0.1, 1 << 40, {"model_kwargs": {"dtype": "auto"}}, torch.bfloat16),
    ],
    ids=["slow", "fast", "little memory", "asked for"],
)
def test_a_cpu_that_is_slow_in_half_precision_computes_in_float32(half, monkeypatch, speed, free, options, dtype):
    monkeypatch.setattr(sentence_transformer, "half_speed", lambda kind: speed)
    monkeypatch.setattr(sentence_transformer.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    found = gve.GVESentenceTransformer(str(half), device="cpu", **options)
    assert found.transformers_model.dtype == dtype
    same = gve.GVESentenceTransformer(str(half), device="cpu", model_kwargs={"dtype": dtype})
    assert np.array_equal(found.encode(["a red circle"]), same.encode(["a red circle"]))
