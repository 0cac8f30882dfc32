"""Near hashes against brute force, at a size at which every pair is compared and beyond it."""

import numpy as np
import pytest

from gve.hub_datasets.vsynflow.decontamination import Decontamination
from gve.hub_datasets.vsynflow.quality import near_hashes
from gve.hub_datasets.vsynflow.quality.duplicates import Duplicates
from gve.hub_datasets.vsynflow.quality.near_hashes import REACH, HashIndex, nearest_earlier

COUNT, FRAMES = 1500, 8


def changed(hashes, bits, rng):
    """Copies of (n, 32) hashes with so many bits flipped."""
    flips = np.zeros((len(hashes), 256), np.uint8)
    flips[:, :bits] = 1
    return hashes ^ np.packbits(rng.permuted(flips, axis=1), axis=1)


def brute(hashes, mirrored, needed):
    """Nearest earlier videos, one by one."""
    places, distances = np.full(len(hashes), -1), np.full(len(hashes), 256)
    for index in range(1, len(hashes)):
        ways = [np.bitwise_count(each[index] ^ hashes[:index]).sum(axis=-1) for each in (hashes, mirrored)]  # (i, H)
        bits = np.minimum(*(np.sort(way, axis=1)[:, needed - 1] for way in ways))
        if bits.min() <= REACH:
            places[index], distances[index] = bits.argmin(), bits.min()
    return places, distances


@pytest.fixture
def videos():
    """Hashes and those of mirror images: every tenth video of the second half copies one of the first, or mirrors it."""
    rng = np.random.default_rng(0)
    hashes, mirrored = rng.integers(0, 256, (2, COUNT, FRAMES, 32), np.uint8)
    for number, late in enumerate(range(COUNT // 2, COUNT, 10)):
        bits, copies = (0, 10, 20, 31)[number % 4], (hashes, mirrored)[number // 4 % 2]
        copies[late, :6] = changed(hashes[late - COUNT // 2, :6], bits, rng)
    return hashes, mirrored


@pytest.mark.parametrize("small", [20_000, 100])
def test_the_nearest_earlier_videos_are_those_of_brute_force(small, videos, monkeypatch, tmp_path):
    """With so few other hashes in a bucket sampling misses none of them either."""
    monkeypatch.setattr(near_hashes, "SMALL", small)
    places, bits = brute(*videos, 6)
    assert sorted(set(bits.tolist())) == [0, 10, 20, 31, 256]
    mapped = [np.memmap(tmp_path / str(number), np.uint8, "w+", shape=one.shape) for number, one in enumerate(videos)]
    for file, one in zip(mapped, videos, strict=True):
        file[:] = one
    for given in (videos, mapped):
        found = nearest_earlier(*given, 6)
        assert np.array_equal(found[0], places) and np.array_equal(found[1], bits)
    assert (nearest_earlier(*videos, 7)[1] == 256).all()


def test_thorough_search_misses_nothing_up_to_31_bits(monkeypatch):
    rng = np.random.default_rng(1)
    known = rng.integers(0, 256, (3000, 32), np.uint8)
    queries = changed(known[:600], 31, rng)
    exact = HashIndex(known).nearest(queries)
    monkeypatch.setattr(near_hashes, "SMALL", 100)
    assert (exact == 31).all() and (HashIndex(known, thorough=True).nearest(queries) == 31).all()
    sampled = (HashIndex(known).nearest(queries) == 31).mean()
    assert 0.8 < sampled < 0.97  # 1 - (1 - (1 - 31 / 256) ** 16) ** 16 is 0.89


def test_a_title_card_costs_little_and_hides_no_copy(monkeypatch):
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 256, (COUNT, FRAMES, 32), np.uint8)
    hashes[:, 0] = hashes[0, 0]
    hashes[-300:] = hashes[4]
    monkeypatch.setattr(near_hashes, "SMALL", 100)
    monkeypatch.setattr(near_hashes, "_SHARED", 5)
    index = HashIndex(hashes[:, 0], tables=2)
    assert sum(len(found.left) for found in index.pairs(hashes[:, 0])) == 2 * 5 * COUNT
    places, bits = nearest_earlier(hashes, rng.integers(0, 256, hashes.shape, np.uint8), 6)
    assert (bits[:-300] == 256).all() and (places[-300:] == 4).all() and (bits[-300:] == 0).all()


def test_nothing_to_compare():
    none, one = np.zeros((0, 32), np.uint8), np.zeros((1, 32), np.uint8)
    assert HashIndex(none).nearest(one).tolist() == [256] and len(HashIndex(one).nearest(none)) == 0
    assert HashIndex(one).nearest(~one).tolist() == [256]


def test_limits_beyond_what_is_compared_are_refused():
    for stage in (Duplicates, Decontamination):
        with pytest.raises(ValueError, match="most_bits must be between 0 and 63, got 64"):
            stage(most_bits=64)
