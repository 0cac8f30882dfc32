"""Frames kept on disk: the vectors of decoding, never those of another content."""

import io
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import gve
from gve.encoding.frame_cache import FrameCache
from gve.encoding.prefetching import EncodeStatistics


@pytest.fixture(scope="module")
def ours(folder):
    return gve.GVESentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def cache(ours, tmp_path):
    ours.frame_cache = FrameCache(tmp_path / "cache")
    yield ours.frame_cache
    ours.frame_cache = None


@pytest.fixture
def copies(media, tmp_path):
    for name in ("a.mp4", "short.mp4", "b.webm"):
        shutil.copy(media / name, tmp_path / name)
    return tmp_path


def entries(cache):
    return sorted(path.name for path in cache.folder.rglob("*.safetensors"))


def forms(folder):
    return [
        str(folder / "a.mp4"),
        {"video": folder / "short.mp4", "text": "a blue box"},
        {"video": [str(folder / "a.mp4"), str(folder / "b.webm")], "image": np.zeros((40, 40, 3), np.uint8)},
        {"video": {"bytes": (folder / "a.mp4").read_bytes(), "path": None}},
        {"video": io.BytesIO((folder / "b.webm").read_bytes())},
        {"video": np.zeros((4, 48, 48, 3), np.uint8)},
        {"video": [str(folder / "a.mp4"), np.zeros((4, 48, 48, 3), np.uint8)]},
        {"image": np.zeros((40, 40, 3), np.uint8)},
        "a box",
        [{"role": "user", "content": [{"type": "video", "video": str(folder / "a.mp4")}]}],
    ]


def test_vectors_are_those_of_decoding(ours, cache, copies):
    """Three contents, in whatever form they came; the plan is a part of the key."""
    rows, small = forms(copies), {"shortest_edge": 1024, "longest_edge": 1024}
    for number, options in enumerate(({}, {"num_frames": 3}, {"video_size": small}), 1):
        ours.frame_cache = None
        expected = ours.encode(rows, **options)
        ours.frame_cache = cache
        for _ in range(2):
            statistics = EncodeStatistics()
            assert np.array_equal(ours.encode(rows, statistics=statistics, **options), expected)
        assert statistics.cached == 8 and "8 videos from the cache" in str(statistics)
        assert len(entries(cache)) == 3 * number


def test_a_changed_file_is_another_file(ours, cache, copies):
    path = copies / "a.mp4"
    before = ours.encode([str(path)])
    stat = path.stat()
    other = copies / "short.mp4"
    expected = ours.encode([str(other)])
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # even if its time of change says otherwise
    assert np.array_equal(ours.encode([str(path)]), expected) and not np.array_equal(before, expected)


def test_a_file_written_while_it_is_decoded_is_not_kept(ours, cache, copies, monkeypatch):
    path, reader = copies / "a.mp4", type(ours.processor.video_processor)
    load = reader.load

    def swapped(self, video, **kwargs):
        path.write_bytes((copies / "short.mp4").read_bytes())
        return load(self, video, **kwargs)

    monkeypatch.setattr(reader, "load", swapped)
    ours.encode([str(path)])
    assert not entries(cache)


def test_broken_entries_are_made_again(ours, cache, copies):
    expected = ours.encode([str(copies / "a.mp4")])
    (entry,) = cache.folder.rglob("*.safetensors")
    whole = entry.read_bytes()
    entry.write_bytes(whole[:100])
    assert np.array_equal(ours.encode([str(copies / "a.mp4")]), expected)
    assert entry.read_bytes() == whole and cache.misses == 2
    assert not list(cache.folder.rglob("*.partial"))


def test_errors_keep_their_place(ours, cache, copies):
    (copies / "broken.mp4").write_bytes(b"nothing" * 100)
    rows = ["a box", {"video": [str(copies / "a.mp4"), str(copies / "broken.mp4")]}]
    with pytest.raises(ValueError, match=r"inputs\[1\].*broken\.mp4"):
        ours.encode(rows)
    skipped = []
    assert len(ours.encode([*rows, "no.mp4"], on_error="skip", skipped=skipped)) == 1
    assert [failure.index for failure in skipped] == [1, 2]
    with pytest.raises(FileNotFoundError, match="gone"):
        cache.get(ours.processor.video_processor, "gone.mp4", count=8, size=ours.processor.video_processor.size)


def test_what_was_used_longest_ago_leaves(ours, cache, copies):
    reader = ours.processor.video_processor
    for name in ("a.mp4", "short.mp4"):
        cache.get(reader, str(copies / name), count=8, size=reader.size)
    first, second = sorted(cache.folder.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    cache.get(reader, str(copies / "a.mp4"), count=8, size=reader.size)  # now the other one is the oldest
    cache.limit = first.stat().st_size + second.stat().st_size
    cache.get(reader, str(copies / "b.webm"), count=8, size=reader.size)
    assert first.exists() and not second.exists()
    assert sum(path.stat().st_size for path in cache.folder.rglob("*.safetensors")) <= cache.limit
    assert FrameCache(cache.folder)._held == cache._held


def test_threads_share_a_cache(ours, cache, copies):
    reader, found = ours.processor.video_processor, []

    def work():
        found.append(cache.get(reader, str(copies / "a.mp4"), count=8, size=reader.size).frames)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(np.array_equal(found[0], frames) for frames in found)
    assert cache.hits + cache.misses == 6 and len(entries(cache)) == 1


def test_a_cache_travels_and_is_checked(tmp_path, folder):
    again = pickle.loads(pickle.dumps(FrameCache(tmp_path, limit=5)))
    assert again.limit == 5 and again.folder == tmp_path
    with pytest.raises(ValueError, match="limit: got 0"):
        FrameCache(tmp_path, limit=0)
    own = gve.GVESentenceTransformer(str(folder), device="cpu", frame_cache=str(tmp_path / "x"))
    assert own.frame_cache.folder == Path(tmp_path / "x")
