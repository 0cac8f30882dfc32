"""Captions against each other: the WebVid rule [A.4], and captions that differ in a word or two."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.sketches import Sketches, keys_of_texts, ragged
from gve.hub_datasets.vsynflow.stages import CorpusStage, Rejected

_APART = re.compile(r"[\W_]+")
_HASHES, _BANDS = 64, 16
_NEIGHBOURS = 8
"""Captions of the same band are sorted by the next band, and compared with so many before and after them."""
_PAIRS = 1 << 16  # at once


@dataclass(frozen=True)
class Multiplicity(CorpusStage):
    """Counts the videos of each caption, small differences in writing aside; a shared one describes none."""

    name = "multiplicity"
    limit_names = ("most",)
    reads = ("text",)
    columns = {"same_caption": pa.int64()}  # noqa: RUF012
    most: int = 1

    def sketch(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """64 bits of each caption."""
        return {"caption": keys_of_texts(normal(record["text"]) for record in records)}

    def measure(self, sketches: Sketches) -> dict[str, np.ndarray]:
        """Count each record's caption."""
        _, place, counts = np.unique(sketches.column("caption"), return_inverse=True, return_counts=True)
        return {"same_caption": counts[place]}

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject every video of a shared caption."""
        count = record["same_caption"]
        return Rejected("shared caption", count) if count > self.most else None


@dataclass(frozen=True)
class NearCaptions(CorpusStage):
    """Finds an earlier caption of nearly the same words, by MinHash over runs of three words."""

    name = "near_captions"
    version = 2
    limit_names = ("most",)
    reads = ("text",)
    columns = {"near_caption": pa.string(), "caption_overlap": pa.float64()}  # noqa: RUF012
    most: float = 0.8  # share of common runs (Jaccard)

    def sketch(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """Hashes of all runs of each caption, and of its bands, (n, 16)."""
        runs = [_hashed(runs_of_words(record["text"])) for record in records]
        return {"bands": _bands(runs), **ragged("runs", runs, np.uint32)}

    def measure(self, sketches: Sketches) -> dict[str, np.ndarray]:
        """Find the nearest earlier caption of each record, among neighbours that share a band of hashes with it."""
        bands, (runs, starts) = sketches.column("bands"), sketches.ragged("runs")
        nearest, overlap = np.full(len(bands), -1), np.zeros(len(bands))
        for band in range(_BANDS):
            # equal captions stay in the order of the corpus
            keys = bands[:, band].astype(np.uint64) << 32 | bands[:, (band + 1) % _BANDS]
            order = np.argsort(keys, kind="stable")
            keys = keys[order] >> 32
            for step in range(1, _NEIGHBOURS + 1):
                same = np.flatnonzero(keys[step:] == keys[:-step])
                for start in range(0, len(same), _PAIRS):
                    ones = order[same[start : start + _PAIRS]], order[same[start : start + _PAIRS] + step]
                    _update(nearest, overlap, np.maximum(*ones), np.minimum(*ones), runs, starts)
        return {"near_caption": nearest, "caption_overlap": overlap}

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject the later of two."""
        overlap = record["caption_overlap"]
        return Rejected("near caption", overlap) if overlap > self.most else None


def normal(text: str) -> str:
    """A caption's words in lower case, and nothing else."""
    return " ".join(_APART.sub(" ", text.casefold()).split())


def runs_of_words(text: str, length: int = 3) -> set[str]:
    """All runs of some words in a text; the whole text if it is shorter."""
    words = normal(text).split()
    return {" ".join(words[start : start + length]) for start in range(max(len(words) - length + 1, 1))}


def _hashed(runs: set[str]) -> np.ndarray:
    """Runs as sorted numbers of 32 bits."""
    names = [int.from_bytes(blake2b(run.encode(), digest_size=4).digest()) for run in runs]
    return np.unique(np.array(names, np.uint32))


def _bands(captions: Sequence[np.ndarray]) -> np.ndarray:
    """(n, 16) uint32; each names four of a caption's 64 smallest values, one for each hash function."""
    if not captions:
        return np.empty((0, _BANDS), np.uint32)
    rng = np.random.default_rng(0)
    factors, mixed, terms = (
        rng.integers(0, 1 << 63, _HASHES).astype(np.uint64) * np.uint64(2) + np.uint64(1) for _ in range(3)
    )
    # multiply and shift (Dietzfelbinger et al., 1997): the lower half alone would keep the order of the runs
    values = (np.concatenate(captions).astype(np.uint64)[:, None] * factors + terms) >> np.uint64(32)  # (V, 64)
    least = np.minimum.reduceat(values, np.cumsum([0, *map(len, captions[:-1])]))  # (n, 64)
    named = (least * mixed).reshape(len(captions), _BANDS, -1).sum(axis=-1, dtype=np.uint64)  # (n, 16)
    return (named >> np.uint64(32)).astype(np.uint32)


def _update(
    nearest: np.ndarray,
    overlap: np.ndarray,
    later: np.ndarray,
    earlier: np.ndarray,
    runs: np.ndarray,
    starts: np.ndarray,
) -> None:
    """Note where pairs of captions, (k,) each, overlap more than what was found, or as much with an earlier one."""
    shared = _overlaps(later, earlier, runs, starts)
    order = np.lexsort((-earlier, shared, later))  # of each record the best pair comes last
    last = order[np.flatnonzero(np.diff(later[order], append=-1))]
    last = last[shared[last] > 0]
    one, other, share = later[last], earlier[last], shared[last]
    better = (share > overlap[one]) | ((share == overlap[one]) & (other < nearest[one]))
    nearest[one[better]], overlap[one[better]] = other[better], share[better]


def _overlaps(first: np.ndarray, second: np.ndarray, runs: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Shares of common runs (Jaccard) of pairs of captions, (k,)."""
    both = np.concatenate([first, second])
    sizes = starts[both + 1] - starts[both]
    ends = np.cumsum(sizes)
    places = np.arange(ends[-1]) + np.repeat(starts[both] - ends + sizes, sizes)
    pairs = np.repeat(np.tile(np.arange(len(first), dtype=np.uint64), 2), sizes)
    keys = np.sort(pairs << np.uint64(32) | runs[places])
    common = np.bincount((keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)).astype(np.int64), minlength=len(first))
    return common / (sizes[: len(first)] + sizes[len(first) :] - common)
