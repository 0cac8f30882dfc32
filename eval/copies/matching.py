"""Which files show the same pictures, and when: near hashes propose pairs, a common line through their times decides.

Shapes: F frames of the one file, G viewed frames of the other; a hash has 32 bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gve.eval.copies.tracks import VIEWS, Track, View
from gve.hub_datasets.vsynflow.quality.near_hashes import HashIndex
from gve.hub_datasets.vsynflow.quality.pdq import BITS, distances

NEAR, ALIKE = 31, 40
"""Bits: PDQ's own limit of a copy, and the limit for frames that agree in time as well."""
WHOLE = 0.9  # share of both files that makes them copies as a whole
_SMALL = 1000  # hashes up to which all pairs are compared; copies have many, so a missed one costs nothing
_SPEEDS = (1.0, *(share for up in (25 / 24, 1.1, 1.2, 1.25, 4 / 3, 1.5, 2.0) for share in (up, 1 / up)))
_LEAST_FRAMES, _LEAST_DENSITY, _MOST_LINES = 3, 0.5, 16
_GAP = 1.0  # seconds without a common frame that end a stretch
_PREFERENCE = 0.8  # what a vote for another speed counts
_ROW = 1 << 20  # more than a file has frames


class Span(NamedTuple):
    """The same stretch in two files, in seconds of each."""

    start: float
    end: float
    other_start: float
    other_end: float


@dataclass(frozen=True)
class Copy:
    """Two files that share pictures.

    Attributes:
        first: Number of the one track.
        second: Number of the other, which shows more of the picture where they differ.
        view: What `first` shows of it.
        speed: Of `first` against `second`; 1.25 takes four fifths of the time.
        spans: Where; empty for images.
        shares: How much of `first` and of `second` is shared, 0 to 1.
        bits: Median distance of the common frames.
    """

    first: int
    second: int
    view: View
    speed: float
    spans: tuple[Span, ...]
    shares: tuple[float, float]
    bits: int

    @property
    def whole(self) -> bool:
        """Whether one could stand for the other."""
        return min(self.shares) >= WHOLE


def find_pairs(tracks: Sequence[Track], *, least: float) -> dict[tuple[int, int], Copy]:
    """The best match of every two files that share at least `least` seconds, or most of the shorter one."""
    found: dict[tuple[int, int], Copy] = {}
    for first, second, view in sorted(_proposed(tracks)):
        hashes = tracks[second].views[view]
        keep_better(found, match(tracks, first, second, VIEWS[view], hashes, least=least))
    return found


def keep_better(found: dict[tuple[int, int], Copy], copy: Copy | None) -> None:
    """Keep the match that covers more of two files; of about equal ones, the nearer."""
    if copy is None:
        return
    key = (min(copy.first, copy.second), max(copy.first, copy.second))
    old = found.get(key)
    if old is None or _rank(copy) < _rank(old):
        found[key] = copy


def match(
    tracks: Sequence[Track], first: int, second: int, view: View, hashes: np.ndarray, *, least: float
) -> Copy | None:
    """How one file repeats what a view of another shows, with its `hashes` (G, 32); None if it does not."""
    one, other = tracks[first], tracks[second]
    if one.kind != other.kind or not len(one.hashes) or not len(hashes):
        return None
    bits = _distances(one.hashes, hashes)  # (F, G)
    if one.kind == "image":
        return Copy(first, second, view, 1.0, (), (1.0, 1.0), int(bits[0, 0])) if bits[0, 0] <= NEAR else None
    least = min(least, WHOLE * one.duration, WHOLE * other.duration)
    spans: list[Span] = []
    speeds: list[float] = []
    near: list[int] = []
    for line, rows, columns in _lines(one, other, bits <= ALIKE):
        for run in _runs(one, rows):
            span = _span(one, other, line, rows[run])
            if min(span.end - span.start, span.other_end - span.other_start) >= least:
                spans.append(span)
                speeds.append(line.speed)
                near += bits[rows[run], columns[run]].tolist()
    if not spans:
        return None
    covered = _covered(span[:2] for span in spans) / one.duration, _covered(s[2:] for s in spans) / other.duration
    shares = round(min(covered[0], 1.0), 3), round(min(covered[1], 1.0), 3)
    return Copy(first, second, view, speeds[0], tuple(sorted(spans)), shares, int(np.median(near)))


class _Line(NamedTuple):
    """Times of the other file by those of the one: speed * time + offset, give or take the slack."""

    votes: float
    speed: float
    offset: float
    slack: float


def _lines(one: Track, other: Track, close: np.ndarray) -> Iterator[tuple[_Line, np.ndarray, np.ndarray]]:
    """Lines on which close frames lie, the longest first, with their rows and columns in `close` (F, G)."""
    others = other.times[other.viewed]
    step = float(np.median(np.diff(others))) if len(others) > 1 else other.step
    rows, columns = np.nonzero(close)
    for _ in range(_MOST_LINES):
        line = _line(one.times[rows], others[columns], rows, one.step, step)
        if line.votes < _LEAST_FRAMES * _PREFERENCE:
            return
        away = np.abs(others[columns] - line.speed * one.times[rows] - line.offset)
        order = np.lexsort((away, rows))
        order = order[away[order] <= line.slack]
        kept = order[np.unique(rows[order], return_index=True)[1]]  # the nearest column of each row
        yield line, rows[kept], columns[kept]
        left = ~np.isin(rows, rows[kept])
        rows, columns = rows[left], columns[left]


def _line(times: np.ndarray, others: np.ndarray, rows: np.ndarray, step: float, other_step: float) -> _Line:
    """The line with most rows, by votes for offsets at each speed."""
    best = _Line(0.0, 1.0, 0.0, 0.0)
    for speed in _SPEEDS if len(rows) else ():
        slack = max(step * speed, other_step, 1e-3)
        offsets = others - speed * times
        bins = np.floor(offsets / slack).astype(np.int64)
        # a window is two bins wide, so that no edge cuts it; each row has one vote in it
        voters = np.concatenate([bins, bins - 1]) * _ROW + np.concatenate([rows, rows])
        places, counts = np.unique(np.unique(voters) // _ROW, return_counts=True)
        top = np.lexsort((np.abs(places + 1), -counts))[0]
        score = counts[top] * (1.0 if speed == 1 else _PREFERENCE)
        if score > best.votes:
            inside = (bins == places[top]) | (bins == places[top] + 1)
            best = _Line(score, speed, float(np.median(offsets[inside])), slack)
    return best


def _runs(one: Track, rows: np.ndarray) -> Iterator[slice]:
    """Parts of ascending rows without long gaps, and with most of the frames between their ends."""
    breaks = np.flatnonzero(np.diff(one.times[rows]) > max(_GAP, 3 * one.step)) + 1
    for start, stop in pairwise([0, *breaks.tolist(), len(rows)]):
        count = stop - start
        if count >= _LEAST_FRAMES and count >= _LEAST_DENSITY * (rows[stop - 1] - rows[start] + 1):
            yield slice(start, stop)


def _span(one: Track, other: Track, line: _Line, rows: np.ndarray) -> Span:
    """What lies on a line between its first and last frames, and within both files."""
    start, end = float(one.times[rows[0]]), min(float(one.times[rows[-1]]) + one.step, one.duration)
    start, end = max(start, -line.offset / line.speed), min(end, (other.duration - line.offset) / line.speed)
    low, high = (line.speed * time + line.offset for time in (start, end))
    return Span(*(round(time, 3) for time in (start, end, low, high)))


def _covered(spans: Iterable[Sequence[float]]) -> float:
    """Seconds in at least one of some (start, end)."""
    total, reached = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _rank(copy: Copy) -> tuple[float, int, bool]:
    return -round(sum(copy.shares), 1), copy.bits, copy.view.mirrored


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return distances(np.unpackbits(first, axis=1), np.unpackbits(second, axis=1))


def _proposed(tracks: Sequence[Track]) -> set[tuple[int, int, int]]:
    """(first, second, view) of files of which two hashes are near."""
    owners = np.repeat(np.arange(len(tracks)), [len(track.hashes) for track in tracks])
    other_owners = np.repeat(np.arange(len(tracks)), [track.views.shape[1] for track in tracks])
    hashes = _joined([track.hashes for track in tracks])  # (n, 32)
    found: set[tuple[int, int, int]] = set()
    for view in range(len(VIEWS)):
        index = HashIndex(_joined([track.views[view] for track in tracks]), small=_SMALL)
        for near in index.pairs(hashes, reach=NEAR):
            pairs = np.unique(np.stack([owners[near.left], other_owners[near.right]]), axis=1)
            found |= {(first, second, view) for first, second in pairs.T.tolist() if first != second}
    return found


def _joined(hashes: Sequence[np.ndarray]) -> np.ndarray:
    """Hashes of all files as (n, 32) bytes."""
    return np.concatenate([np.zeros((0, BITS // 8), np.uint8), *hashes])
