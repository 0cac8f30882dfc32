"""Which inputs run when: soon and small on a device, sorted by cost on a CPU, each exactly once."""

import threading
import time
from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest
from chats import far
from hypothesis import given, settings
from hypothesis import strategies as st

import gve
from gve.encoding.items import Item
from gve.encoding.prefetching import EncodeStatistics, PipelineOptions, Prefetcher, Workers
from gve.encoding.schedule import BLOCK_ROWS, Limits, Schedule, Steps

FOUR = Workers(4, 4, caller_works=False)


@contextmanager
def schedule(items, *, rows, tokens=1 << 20, ahead=True, workers=FOUR, prepare=len, held_bytes=1 << 30, fails=()):
    """A schedule without a model: items say themselves what they are, and those that fail are left out."""

    def planned(chunk, plans):
        return [((item.tokens, 0), item) for item in plans if item.index not in fails]

    with Prefetcher(lambda work: work(), workers=workers, held_bytes=held_bytes) as prefetcher:
        steps = Steps(list, planned, prepare, prefetcher.take)
        yield Schedule(prefetcher, items, steps, Limits(rows, tokens, ahead)), prefetcher


def run(groups, prefetcher):
    """The places of each batch, as if a model ran them."""
    seen = []
    for group in groups:
        prefetcher.take(group.places)
        prefetcher.release(group.places)
        seen.append([item.index for item in group.items])
    return seen


ITEMS = st.lists(st.tuples(st.booleans(), st.integers(1, 50)), max_size=700)


@settings(max_examples=40, deadline=None)
@given(
    ITEMS,
    st.sampled_from([1, 3, 16, 100]),
    st.booleans(),
    st.sampled_from([FOUR, Workers(0, 0, caller_works=True)]),
    st.integers(0, 5),
)
def test_every_input_runs_once_in_a_batch_that_fits(kinds, rows, ahead, workers, failing):
    items = [Item(place, None, media, tokens, tokens) for place, (media, tokens) in enumerate(kinds)]
    options = {"rows": rows, "tokens": 200, "workers": workers, "fails": range(failing), "held_bytes": 120}
    with schedule(items, ahead=ahead, **options) as (groups, prefetcher):
        batches = run(groups, prefetcher)
    assert sorted(chain(*batches)) == list(range(failing, len(items)))
    assert all(len(batch) <= rows for batch in batches)
    assert all(len(batch) * max(items[place].tokens for place in batch) <= 200 or len(batch) == 1 for batch in batches)
    assert prefetcher.state.held == 0
    if ahead:
        assert all(len({items[place].media for place in batch}) == 1 for batch in batches)
    else:
        costs = [items[place].tokens for batch in batches for place in batch]
        assert costs == sorted(costs, reverse=True)


def test_the_first_batches_grow_from_the_cheapest():
    items = [Item(place, None, media=True, tokens=place + 1) for place in range(100)]
    with schedule(items, rows=16) as (groups, prefetcher):
        batches = run(groups, prefetcher)
    assert [len(batch) for batch in batches] == [2, 4, 8, 16, 16, 16, 16, 16, 6]
    assert sorted(chain(*batches[:3])) == list(range(14)) and batches[3] == list(range(99, 83, -1))
    with schedule(items, rows=16, ahead=False) as (groups, prefetcher):
        assert [len(batch) for batch in run(groups, prefetcher)] == [16] * 6 + [4]


def test_texts_run_while_media_are_decoded():
    gate = threading.Event()
    items = [Item(place, None, media=place % 2 == 0, tokens=5) for place in range(40)]

    def prepare(part):
        return part[0].media and gate.wait(10)

    with schedule(items, rows=4, prepare=prepare) as (groups, prefetcher):
        seen = []
        for group in groups:
            seen.append(group.items[0].media)
            if seen == [False] * 5:
                gate.set()
            prefetcher.take(group.places)
    assert gate.is_set() and seen == [False] * 5 + [True] * 6  # 2, then 4 at most


def test_the_next_block_is_planned_before_this_one_is_decoded():
    """Nothing drains between blocks, and no more than two blocks are in hand."""
    items = [Item(place, None, media=True, tokens=5) for place in range(4 * BLOCK_ROWS)]
    with schedule(items, rows=64) as (groups, prefetcher):
        done, ahead = 0, []
        for group in groups:
            prefetcher.take(group.places)
            done += len(group.items)
            ahead.append(sum(len(later.items) for later in groups.media))
    assert done == len(items)
    assert min(ahead[:-6]) > 0 and max(ahead) <= 2 * BLOCK_ROWS + 64


# -- with a model, whose device is a CPU that pretends ----------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(folder):
    return gve.GVESentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr("gve.encoding.batch_reader.computes_apart", lambda device: True)
    monkeypatch.setattr("gve.encoding.batch_reader.workers_for", lambda device, workers: FOUR)


@pytest.fixture
def decoder(ours, monkeypatch):
    """Replaces what loads a video by something that is called before it."""
    reader = type(ours.processor.video_processor)
    load = reader.load

    def replace(before):
        def wrapped(self, video, **kwargs):
            before(str(video.file))
            return load(self, video, **kwargs)

        monkeypatch.setattr(reader, "load", wrapped)

    return replace


@pytest.fixture
def clips(media):
    return [{"video": str(media / name)} for name in ("a.mp4", "short.mp4", "b.webm")] * 4


def test_the_model_starts_after_the_first_decodes(ours, device, decoder, clips, monkeypatch):
    """All but two decodes wait for the model's first call; with batches of 12 that would never come."""
    expected = ours.encode(clips)
    started, ran, forward = [], threading.Event(), ours.forward

    def first_two(file):
        started.append(file)
        assert len(started) <= 2 or ran.wait(10)

    def watched(features, **kwargs):
        sizes.append(len(features["input_ids"]))
        ran.set()
        return forward(features, **kwargs)

    sizes = []
    decoder(first_two)
    monkeypatch.setattr(ours, "forward", watched)
    # the first two in order start first, and make the first batch
    assert far(ours.encode(clips, batch_size=12), expected) <= 1e-6
    assert sizes == [2, 4, 6] and len(started) == len(clips)


def test_rows_keep_their_places(ours, device, rows):
    expected = ours.encode(rows)
    for size in (1, 3, 32):
        statistics = EncodeStatistics()
        assert far(ours.encode(rows, batch_size=size, statistics=statistics), expected) <= 1e-6
        assert statistics.rows == len(rows) and statistics.waiting + statistics.model <= statistics.seconds


def test_what_fails_is_named_and_leaves_nothing(ours, device, decoder, clips, tmp_path, monkeypatch):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 50)
    rows = ["a box", *clips, str(tmp_path / "broken.mp4")]

    def damaged(file):
        if file.endswith("short.mp4"):
            raise OSError("broken inside")

    decoder(damaged)
    skipped = []
    found = ours.encode(rows, on_error="skip", skipped=skipped, batch_size=5)
    assert len(found) == 9 and [failure.index for failure in skipped] == [2, 5, 8, 11, 13]
    with pytest.raises(ValueError, match=r"inputs\[(2|5|8|11|13)\].*broken"):
        ours.encode(rows)
    monkeypatch.setattr(ours, "forward", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ours.encode(clips[:1] * 8, batch_size=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gve-prepare")]


def test_held_bytes_bound_what_waits(ours, device, clips, monkeypatch):
    plan = ours.processor.plan(clips[:1])[0]
    size = plan.pixels * 3 + plan.tokens * 24
    monkeypatch.setattr(ours, "pipeline", PipelineOptions(held_bytes=6 * size))
    forward = ours.forward

    def slow(features, **kwargs):
        time.sleep(0.01)
        return forward(features, **kwargs)

    monkeypatch.setattr(ours, "forward", slow)
    statistics = EncodeStatistics()
    found = ours.encode(clips[:1] * 24, batch_size=4, statistics=statistics)
    assert np.abs(found - found[0]).max() <= 1e-6
    assert size <= statistics.most_held <= 6 * size
