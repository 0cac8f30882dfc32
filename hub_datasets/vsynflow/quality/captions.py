"""Captions against each other: the WebVid rule [A.4], and captions that differ in a word or two."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Kept, Outcome, Rejected, Stage

_HASHES, _BANDS = 64, 16
_PRIME = (1 << 61) - 1


@dataclass(frozen=True)
class Multiplicity(Stage):
    """Counts the videos of each caption, small differences in writing aside; a shared one describes none."""

    name = "multiplicity"
    limit_names = ("most",)
    scope = "corpus"
    reads = ("text",)
    columns = {"same_caption": pa.int64()}  # noqa: RUF012
    most: int = 1

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Count each record's caption."""
        keys = [hashlib.blake2b(normal(record["text"]).encode(), digest_size=8).digest() for record in records]
        counts = Counter(keys)
        return [Kept({"same_caption": counts[key]}) for key in keys]

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject every video of a shared caption."""
        count = record["same_caption"]
        return Rejected("shared caption", count) if count > self.most else None


@dataclass(frozen=True)
class NearCaptions(Stage):
    """Finds an earlier caption of nearly the same words, by MinHash over runs of three words."""

    name = "near_captions"
    limit_names = ("most",)
    scope = "corpus"
    reads = ("text",)
    columns = {"near_caption": pa.string(), "caption_overlap": pa.float64()}  # noqa: RUF012
    most: float = 0.8  # share of common runs (Jaccard)

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Find the nearest earlier caption of each record, among those that share a band of hashes with it."""
        shingles = [runs_of_words(record["text"]) for record in records]
        buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        outcomes: list[Outcome] = []
        for index, runs in enumerate(shingles):
            bands = np.split(_minhash(runs), _BANDS)
            keys = [(number, band.tobytes()) for number, band in enumerate(bands)]
            found = {earlier for key in keys for earlier in buckets[key]}
            scored = [(_jaccard(runs, shingles[earlier]), -earlier) for earlier in found]
            overlap, place = max(scored, default=(0.0, 0))
            near = records[-place]["id"] if overlap > 0 else None
            outcomes.append(Kept({"near_caption": near, "caption_overlap": overlap}))
            for key in keys:
                buckets[key].append(index)
        return outcomes

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject the later of two."""
        overlap = record["caption_overlap"]
        return Rejected("near caption", overlap) if overlap > self.most else None


def normal(text: str) -> str:
    """A caption's words in lower case, and nothing else."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())


def runs_of_words(text: str, length: int = 3) -> set[str]:
    """All runs of some words in a text; the whole text if it is shorter."""
    words = normal(text).split()
    return {" ".join(words[start : start + length]) for start in range(max(len(words) - length + 1, 1))}


def _minhash(runs: set[str]) -> np.ndarray:
    """(64,) smallest values, one for each hash function."""
    names = [int.from_bytes(hashlib.blake2b(run.encode(), digest_size=4).digest()) for run in sorted(runs)]
    rng = np.random.default_rng(0)
    factors, terms = rng.integers(1, 1 << 29, _HASHES), rng.integers(0, 1 << 29, _HASHES)
    values = (np.asarray(names, np.uint64)[:, None] * factors.astype(np.uint64) + terms.astype(np.uint64)) % _PRIME
    return values.min(axis=0)


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)
