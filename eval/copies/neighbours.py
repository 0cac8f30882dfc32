"""Copies that hashes miss, such as pictures cut off centre: vectors of an index propose them, pixels give the view."""

from collections.abc import Iterator, Sequence
from itertools import islice

from tqdm import tqdm

from gve.eval.copies.matching import Copy, keep_better, match
from gve.eval.copies.pictures import Stretch, find_part, read_greys
from gve.eval.copies.tracks import Track, hash_views
from gve.eval.index.storage import real_path, vectors_of
from gve.eval.index.table import Index
from gve.hub_datasets.vsynflow.quality.worker import VideoError, WorkerError

_NEIGHBOURS, _FILES, _BATCH = 16, 3, 256
_WHOLE: Stretch = (None, None)
_LEAST_LIKENESS = 0.7  # mean correlation of the frames; the hashes decide afterwards


def add_neighbours(index: Index, tracks: Sequence[Track], found: dict[tuple[int, int], Copy], *, least: float) -> None:
    """Add the copies among files of which windows, or the whole, have near vectors."""
    numbers = {track.path: number for number, track in enumerate(tracks)}
    pairs = {
        tuple(sorted((numbers[one], numbers[other]))): stretches if numbers[one] < numbers[other] else stretches[::-1]
        for one, other, stretches in _candidates(index)
        if one in numbers and other in numbers
    }
    pairs = {pair: stretches for pair, stretches in pairs.items() if pair not in found}
    for (first, second), stretches in tqdm(pairs.items(), desc="compare", unit="pair", delay=2):
        for when in ((_WHOLE, _WHOLE), stretches):  # near windows need not be the same moments
            if (first, second) not in found:
                _compare(tracks, first, second, when, found, least=least)


def _compare(
    tracks: Sequence[Track],
    first: int,
    second: int,
    stretches: tuple[Stretch, Stretch],
    found: dict[tuple[int, int], Copy],
    *,
    least: float,
) -> None:
    try:
        one, other = (read_greys(tracks[at], when) for at, when in zip((first, second), stretches, strict=True))
        for part, whole, small, large in ((first, second, one, other), (second, first, other, one)):
            likeness, view = find_part(small, large)
            if likeness >= _LEAST_LIKENESS:
                hashes = hash_views(tracks[whole], [view])["views"][0]
                keep_better(found, match(tracks, part, whole, view, hashes, least=least))
    except (ValueError, OSError, VideoError, WorkerError):
        return  # it was decoded before, so it has just changed


def _candidates(index: Index) -> Iterator[tuple[str, str, tuple[Stretch, Stretch]]]:
    """Files with near rows of the same level, and those rows' times; a few for each file."""
    best: dict[str, dict[str, tuple[float, tuple[Stretch, Stretch]]]] = {}
    for batch in index.scan(["path", "level", "start", "end", "vector"], batch_rows=_BATCH):
        rows = batch.select(["path", "level", "start", "end"]).to_pylist()
        for row, hits in zip(rows, index.search(vectors_of(batch), _NEIGHBOURS), strict=True):
            path = real_path(row["path"])
            others = best.setdefault(path, {})
            for hit in hits:
                if hit.path != path and hit.level == row["level"]:
                    nearest = hit.score, ((row["start"], row["end"]), (hit.start, hit.end))
                    others[hit.path] = max(others.get(hit.path, nearest), nearest, key=lambda pair: pair[0])
    for path, others in best.items():
        ranked = sorted(others.items(), key=lambda pair: -pair[1][0])
        yield from ((path, other, stretches) for other, (_, stretches) in islice(ranked, _FILES))
