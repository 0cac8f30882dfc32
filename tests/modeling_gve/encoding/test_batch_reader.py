"""Overlapped encoding through the model: the vectors of the serial path, whatever fails and whoever works."""

import gc
import io
import threading
import time
import tracemalloc
import weakref

import numpy as np
import PIL.Image
import pytest
import torch
from chats import far

import gve
from gve.encoding.batch_reader import BatchReader
from gve.encoding.prefetching import EncodeStatistics, PipelineOptions


@pytest.fixture(scope="module")
def ours(folder):
    return gve.GVESentenceTransformer(str(folder), device="cpu")


def prepare_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gve-prepare")]


@pytest.fixture(autouse=True)
def as_it_was(ours):
    yield
    ours.pipeline = PipelineOptions()
    assert not prepare_threads()


@pytest.fixture
def clips(media):
    return [{"video": str(media / name)} for name in ("a.mp4", "short.mp4", "b.webm")] * 4


def test_threads_give_the_vectors_of_the_serial_path(ours, rows):
    ours.pipeline = PipelineOptions(workers=0)
    expected = {size: ours.encode(rows, batch_size=size) for size in (2, 32)}
    for options in ({"workers": 1}, {"workers": 4}, {"workers": 4, "held_bytes": 1}):
        ours.pipeline = PipelineOptions(**options)
        for size, vectors in expected.items():
            found = ours.encode(rows, batch_size=size)
            assert np.array_equal(found, vectors), (options, size)  # same batches, so the same bits


def test_decoding_that_fails_names_its_input(ours, clips, monkeypatch):
    """What only decoding can find: headers are fine."""
    reader = type(ours.processor.video_processor)
    load = reader.load

    def damaged(self, video, **kwargs):
        if str(video.file).endswith("short.mp4"):
            raise OSError("broken inside")
        return load(self, video, **kwargs)

    monkeypatch.setattr(reader, "load", damaged)
    skipped = []
    assert len(ours.encode(clips, on_error="skip", skipped=skipped, batch_size=5)) == 8
    assert [failure.index for failure in skipped] == [1, 4, 7, 10]
    assert all(str(failure.error).startswith(f"inputs[{failure.index}]") for failure in skipped)
    with pytest.raises(ValueError, match=r"inputs\[1\].*broken inside"):
        ours.encode(clips)


def test_files_and_pictures_shared_by_inputs(ours, media):
    """Threads that read one open file, or load one picture, would disturb each other."""
    clip, picture = io.BytesIO((media / "a.mp4").read_bytes()), PIL.Image.open(media / "i.png")
    rows = [{"video": clip}, {"image": picture}, {"video": clip, "text": "x"}, [picture, picture]] * 3
    ours.pipeline = PipelineOptions(workers=4)
    found = ours.encode(rows)
    assert far(found[:4], found[8:]) <= 1e-6
    assert far(found[0:1], ours.encode([{"video": str(media / "a.mp4")}])) <= 1e-6


@pytest.mark.filterwarnings("always")
def test_each_thread_names_its_own_places(ours, media):
    words = "a red circle " * 40
    rows = ["a box", words, *({"image": str(media / "i.png"), "text": words} for _ in range(12))]
    ours.pipeline = PipelineOptions(workers=4)
    with pytest.warns(UserWarning) as told:
        ours.encode(rows, max_length=64)
    places = [str(warning.message).partition("tokens: ")[2].split()[0] for warning in told]
    assert sorted(places) == sorted(f"inputs[{place}]" for place in range(1, 14))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt("stop")], ids=["error", "stop"])
@pytest.mark.parametrize("where", ["model", "reader"])  # both in the calling thread
def test_what_fails_leaves_no_thread(ours, clips, monkeypatch, where, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(*((ours, "forward") if where == "model" else (BatchReader, "_join")), fail)
    with pytest.raises(type(error), match=str(error)) as caught:
        ours.encode(clips, batch_size=2, on_error="skip")
    # while the error is still held, with all frames of the call
    assert caught.value and not prepare_threads()


def test_prepared_batches_are_bounded(ours, clips, monkeypatch):
    """However many inputs, no more tensors live than fit; a slow model stops the threads."""
    prepare, alive, most = ours.processor.prepare, weakref.WeakSet(), []

    def watched(rows, **options):
        batch = prepare(rows, **options)
        alive.add(batch["pixel_values_videos"])
        most.append(len(alive))
        return batch

    monkeypatch.setattr(ours.processor, "prepare", watched)
    forward = ours.forward

    def slow(features, **kwargs):
        time.sleep(0.01)
        return forward(features, **kwargs)

    monkeypatch.setattr(ours, "forward", slow)
    plan = ours.processor.plan(clips[:1])[0]
    size = plan.pixels * 3 + plan.tokens * 24  # as bytes, with its ids
    ours.pipeline = PipelineOptions(workers=4, held_bytes=6 * size)
    for count in (12, 32):
        statistics = EncodeStatistics()
        ours.encode(clips[:1] * count, batch_size=2, statistics=statistics)
        assert len(most) == count and max(most) <= 6 and statistics.most_held <= 6 * size
        most.clear()


def test_tokens_bound_a_batch(ours, clips, monkeypatch):
    batches, run = [], ours._run_batch

    def watched(batch, *rest):
        batches.append(batch["input_ids"])
        return run(batch, *rest)

    monkeypatch.setattr(ours, "_run_batch", watched)
    expected = ours.encode(clips)
    assert len(batches) == 1
    dearest = max(plan.tokens for plan in ours.processor.plan(clips))
    batches.clear()
    ours.pipeline = PipelineOptions(batch_tokens=3 * dearest)
    assert far(ours.encode(clips), expected) <= 1e-6
    assert len(batches) >= 4 and all(ids.numel() <= 3 * dearest for ids in batches)
    batches.clear()
    ours.pipeline = PipelineOptions(batch_tokens=1)  # each by itself
    assert far(ours.encode(clips), expected) <= 1e-6 and len(batches) == len(clips)


def test_where_the_time_went(ours, clips, monkeypatch):
    reader = type(ours.processor.video_processor)
    load, forward = reader.load, ours.forward
    wait = {"load": 0.03, "model": 0.0}

    def slow_load(self, video, **kwargs):
        time.sleep(wait["load"])
        return load(self, video, **kwargs)

    def slow_forward(features, **kwargs):
        time.sleep(wait["model"])
        return forward(features, **kwargs)

    monkeypatch.setattr(reader, "load", slow_load)
    monkeypatch.setattr(ours, "forward", slow_forward)
    ours.pipeline = PipelineOptions(workers=2)
    decoding = EncodeStatistics()
    ours.encode([*clips, "a box"], batch_size=4, statistics=decoding)
    assert (decoding.rows, decoding.media, decoding.batches) == (13, 12, 4)
    assert decoding.waiting >= 12 * 0.03 / 3 * 0.8  # two threads, and the caller helps
    assert decoding.waiting + decoding.model <= decoding.seconds * 1.01
    wait.update(load=0.0, model=0.05)
    model = EncodeStatistics()
    ours.encode(clips, batch_size=2, statistics=model)
    assert model.model >= 6 * 0.05 and model.idle < decoding.idle
    with pytest.raises(ValueError, match="statistics: got some for several processes"):
        ours._multi_process([], statistics=model)


def test_texts_start_no_threads(ours, monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread"))
    assert ours.encode(["a box", {"text": "a circle"}, {"text": "x", "video": None}]).shape[0] == 3


def test_memory_does_not_grow_with_the_number_of_files(ours, clips):
    """Peak of what Python and numpy hold; the tensors are counted above."""
    peaks = []
    ours.pipeline = PipelineOptions(workers=1, held_bytes=1)
    for count in (6, 6, 36):  # the first call fills caches
        gc.collect()
        tracemalloc.start()
        ours.encode((clips * 3)[:count], batch_size=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] * 1.5 + 200_000


def test_bytes_of_images_become_the_image_processors_values(ours):
    levels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    images = [PIL.Image.fromarray(levels), PIL.Image.fromarray(levels[:30])]
    plain, as_bytes = (ours.processor.image_tensors(images, as_bytes=choice) for choice in (False, True))
    assert as_bytes["pixel_values"].dtype == torch.uint8
    assert torch.equal(ours.processor.normalise_images(as_bytes["pixel_values"]), plain["pixel_values"])
