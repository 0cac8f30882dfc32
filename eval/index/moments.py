"""Hits of search, merged to moments."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from gve.eval.index.rows import Hit

_NEAR = 0.9  # of the core's score
_TOUCH = 1e-3  # seconds between two hits that touch; ids count milliseconds


def merge_hits(hits: Sequence[Hit], count: int) -> list[Hit]:
    """The `count` best moments, best first, ties in the order of `hits`.

    The best hit of a place is the core of a moment. Hits of the same file and level that overlap or touch the core
    lengthen the moment if they score at least 0.9 of what it scores, so no chain of windows grows over a whole video.
    Hits that score less and overlap the moment vanish in it, and so does the whole file if it scores less.

    Raises:
        ValueError: For a count below 1.
    """
    if count < 1:
        raise ValueError(f"count: must be at least 1, got {count}. Raise it.")
    cores: list[Hit] = []
    moments: list[Hit] = []
    places: dict[str, list[int]] = defaultdict(list)
    for hit in sorted(hits, key=lambda hit: -hit.score):
        if len(cores) == count and hit.score < _NEAR * cores[-1].score:
            break
        whole = hit.start is None or hit.level == "file"
        if whole and places[hit.path]:
            continue
        place = len(cores) if whole else _place(hit, cores, moments, places[hit.path])
        if place is not None and place < len(cores):
            moments[place] = _joined(moments[place], hit)
        elif place is not None and place < count:
            cores.append(hit)
            moments.append(hit)
            if not whole:
                places[hit.path].append(place)
    return moments


def _place(hit: Hit, cores: Sequence[Hit], moments: Sequence[Hit], places: Sequence[int]) -> int | None:
    """The number of the moment that a hit lengthens, that of a new one, or None if it vanishes in one."""
    for place in places:
        core = cores[place]
        if core.level == hit.level and hit.score >= _NEAR * core.score and _shared(core, hit) >= -_TOUCH:
            return place
        if _shared(moments[place], hit) > _TOUCH:
            return None
    return len(cores)


def _shared(one: Hit, other: Hit) -> float:
    """Seconds that two hits share, or the negative gap between them."""
    assert one.start is not None and one.end is not None and other.start is not None and other.end is not None
    return min(one.end, other.end) - max(one.start, other.start)


def _joined(moment: Hit, hit: Hit) -> Hit:
    assert moment.start is not None and moment.end is not None and hit.start is not None and hit.end is not None
    return replace(moment, start=min(moment.start, hit.start), end=max(moment.end, hit.end))
