"""Near hashes among millions: those that agree on a few sampled bits are candidates, and exact distances decide.

Shapes: N videos, H hashes of each; n queries, m known hashes; a hash has 32 bytes, or 4 words.

Locality-sensitive hashing by bit sampling (Indyk and Motwani, 1998), and with one bit of a sample flipped, multi-index
hashing (Norouzi et al., 2012). faiss has both, without a cap: one title card in every fiftieth of a million videos makes
its search twenty times as long.
"""

import mmap
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from gve.hub_datasets.vsynflow.quality.pdq import BITS

REACH = 63
"""Bits: what is farther counts as not alike, and reads 256."""
SMALL = 20_000
"""Known hashes up to which every pair is compared."""
_SAMPLE = 16  # bits; 16 disjoint samples cover a hash, and of 31 differing bits one of them has at most one
_TABLES = BITS // _SAMPLE
_SHARED = 64  # times the mean size of a bucket: so many of its hashes, the first, a query is compared with
_ROWS, _PAIRS = 1 << 18, 1 << 17  # at once
_BLOCK = (64, 4096)  # queries and known hashes
_HIGH, _LOW = np.uint64(0xFFFFFFFF00000000), np.uint64(0xFFFFFFFF)


class Pairs(NamedTuple):
    """Places of queries and of known hashes, (k,) each, and their distances."""

    left: np.ndarray
    right: np.ndarray
    bits: np.ndarray


class HashIndex:
    """Known hashes, (m, 32) uint8, to find the near ones of queries.

    Up to `small` known hashes all pairs are found. Above it, a pair is found with a chance that falls with its distance, or
    for certain up to 31 bits with `thorough`. Of very many known hashes with the same sample, such as those of a title card,
    a query is compared with the first only.

    Args:
        known: (m, 32) uint8.
        tables: How many samples to draw; more find more.
        thorough: Look for samples with one flipped bit, too: 17 times the work.
        small: Known hashes up to which every pair is compared; SMALL by default.
    """

    def __init__(
        self, known: np.ndarray, *, tables: int = _TABLES, thorough: bool = False, small: int | None = None
    ) -> None:
        self.known = _words(known)  # (m, 4)
        self.thorough = thorough
        size = _SAMPLE if thorough else max(_SAMPLE, len(known).bit_length() - 1)
        self._most = _SHARED * max(1, len(known) >> size)
        self._samples = [] if len(known) <= (SMALL if small is None else small) else _samples(tables, size)
        places = np.arange(len(known), dtype=np.uint64)
        # a table sorts its hashes by key, and those of one key by place: 32 bits each
        self._tables = [np.sort(_keys(self.known, bits) | places) for bits in self._samples]  # (m,) each

    def pairs(self, queries: np.ndarray, *, reach: int = REACH, earlier: bool = False) -> Iterator[Pairs]:
        """Pairs of at most `reach` differing bits, some of them repeatedly.

        Args:
            queries: (n, 32) uint8.
            reach: At most REACH.
            earlier: Only pairs whose known hash has a smaller place than the query.
        """
        assert reach <= REACH, reach
        words = _words(queries)
        proposed = self._sampled(words, earlier) if self._samples else self._all(words, earlier)
        for left, right in proposed:
            bits = _distances(np.take(words, left, axis=0), np.take(self.known, right, axis=0))
            near = bits <= reach
            if near.any():
                yield Pairs(left[near], right[near], bits[near])

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        """Distance of each query's nearest known hash, (n,); 256 beyond REACH."""
        found = np.full(len(queries), BITS, np.uint16)
        for left, _, bits in self.pairs(queries):
            np.minimum.at(found, left, bits)
        return found

    def _all(self, words: np.ndarray, earlier: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All near pairs, and those of 256 bits, which 8 bits count as 0; in blocks that fit a processor's cache."""
        queries, known = (np.ascontiguousarray(each.T) for each in (words, self.known))  # (4, n), (4, m)
        for start in range(0, len(words), _BLOCK[0]):
            first = queries[:, start : start + _BLOCK[0], None]
            for other in range(0, min(len(self.known), start + _BLOCK[0] if earlier else len(self.known)), _BLOCK[1]):
                second = known[:, None, other : other + _BLOCK[1]]
                bits = np.bitwise_count(first[0] ^ second[0])
                for word in range(1, 4):
                    bits += np.bitwise_count(first[word] ^ second[word])
                left, right = np.divmod(np.flatnonzero(bits <= REACH), bits.shape[1])
                kept = right + other < left + start if earlier else slice(None)
                yield left[kept] + start, right[kept] + other

    def _sampled(self, words: np.ndarray, earlier: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs that share the key of a table."""
        for bits, table in zip(self._samples, self._tables, strict=True):
            for flipped in (None, *bits) if self.thorough else (None,):
                for start in range(0, len(words), _ROWS):
                    part = words[start : start + _ROWS]
                    if flipped is not None:
                        part = part ^ _mask([flipped])
                    # sorted, as the search for sorted keys is faster
                    keyed = np.sort(_keys(part, bits) | np.arange(len(part), dtype=np.uint64))
                    left = (keyed & _LOW).astype(np.int64) + start
                    last = left.astype(np.uint64) if earlier else _LOW
                    low = np.searchsorted(table, keyed & _HIGH)
                    counts = np.searchsorted(table, (keyed & _HIGH) | last, side="left" if earlier else "right") - low
                    yield from _spread(left, low, table, np.minimum(counts, self._most))


def check_most_bits(most_bits: int) -> None:
    """Reject a limit of distances beyond REACH (ValueError)."""
    if not 0 <= most_bits <= REACH:
        raise ValueError(f"most_bits must be between 0 and {REACH}, got {most_bits}. Copies differ in some 0-31 bits.")


def nearest_earlier(hashes: np.ndarray, mirrored: np.ndarray, needed: int) -> tuple[np.ndarray, np.ndarray]:
    """Find for each video the nearest one before it, mirrored or not: exactly up to SMALL videos.

    Args:
        hashes: (N, H, 32) uint8, in order of time; may be a memory map.
        mirrored: The same of the mirror images.
        needed: Rank, from 1, of the frame distance that counts as the videos' distance.

    Returns:
        (N,) places, -1 for none within REACH, and (N,) distances in bits, 256 for none; of equally near ones the first.
    """
    count, frames = hashes.shape[:2]
    best = np.full(count, BITS << 32, np.int64)  # distance and place in one
    # `needed` frames are near, so of all but needed - 1 at least one is
    for slot in range(frames if count > SMALL else frames - needed + 1):
        index = HashIndex(_column(hashes, slot), tables=8)
        for videos in (hashes, mirrored):
            for left, right, _ in index.pairs(_column(videos, slot), earlier=True):
                ones, others = np.take(videos, left, axis=0), np.take(hashes, right, axis=0)
                each = _distances(_words(ones), _words(others))  # (k, H)
                bits = np.partition(each, needed - 1, axis=1)[:, needed - 1].astype(np.int64)
                np.minimum.at(best, left, bits << 32 | right)
                _release(hashes)
                _release(videos)
    places, bits = best & 0xFFFFFFFF, best >> 32
    none = bits > REACH
    return np.where(none, -1, places), np.where(none, BITS, bits)


def _spread(
    left: np.ndarray, low: np.ndarray, table: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each query with the `counts` entries of the table from `low`, in chunks."""
    some = np.flatnonzero(counts)
    left, low, counts = left[some], low[some], counts[some]
    ends = np.cumsum(counts)
    for chunk in range(0, int(ends[-1]) if len(ends) else 0, _PAIRS):
        numbers = np.arange(chunk, min(chunk + _PAIRS, ends[-1]))
        owners = np.searchsorted(ends, numbers, side="right")
        places = np.take(low - ends + counts, owners) + numbers
        yield np.take(left, owners), (np.take(table, places) & _LOW).astype(np.int64)


@cache
def _samples(tables: int, size: int) -> list[list[int]]:
    """Numbers of sampled bits; samples are disjoint until the bits run out, and the same on every machine."""
    each = BITS // size
    shuffled = [
        sorted(range(BITS), key=lambda bit: blake2b(bytes([turn, bit])).digest()) for turn in range(-(-tables // each))
    ]
    return [shuffled[table // each][table % each * size :][:size] for table in range(tables)]


def _mask(bits: list[int]) -> np.ndarray:
    """Words, (4,), with these bits set."""
    mask = np.zeros(BITS, np.uint8)
    mask[bits] = 1
    return np.packbits(mask).view(np.uint64)


def _keys(words: np.ndarray, bits: list[int]) -> np.ndarray:
    """Hashes of the sampled bits, (n,), in the upper halves of 64 bits: equal for equal bits, else almost never."""
    total = np.zeros(len(words), np.uint64)
    for place, mask in enumerate(_mask(bits)):
        if mask:
            odd = np.frombuffer(blake2b(bytes([place]), digest_size=8).digest(), "<u8")[0] | np.uint64(1)
            total += (words[:, place] & mask) * odd
    return total & _HIGH


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differing bits, (...), of words (..., 4)."""
    return np.einsum("...i->...", np.bitwise_count(first ^ second), dtype=np.uint16)  # many times as fast as a sum


def _words(hashes: np.ndarray) -> np.ndarray:
    """(..., 4) words of (..., 32) bytes."""
    return np.ascontiguousarray(hashes).view(np.uint64)


def _column(videos: np.ndarray, slot: int) -> np.ndarray:
    """The hashes of one frame of all videos, (N, 32), without the pages of a memory map that hold the others."""
    column = np.empty((len(videos), BITS // 8), np.uint8)
    for start in range(0, len(videos), _ROWS):
        column[start : start + _ROWS] = videos[start : start + _ROWS, slot]
        _release(videos)
    return column


def _release(array: np.ndarray) -> None:
    """Give back the pages of a memory map that were read."""
    if isinstance(array, np.memmap) and array.mode != "c" and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)
