"""Duplicate videos: the same bytes, or the same pictures after re-encoding, mirroring or letterboxing.

Shapes: N videos, H hashes of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.quality.pdq import BITS, from_hex
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Kept, Outcome, Rejected, Stage

_BLOCK = 1024


@dataclass(frozen=True)
class Duplicates(Stage):
    """Finds the nearest earlier video, frame by frame; compares all pairs in blocks."""

    name = "duplicates"
    param_names = ("needed",)
    limit_names = ("most_bits",)
    scope = "corpus"
    reads = ("digest", "hashes", "mirrored")
    columns = {"duplicate_of": pa.string(), "duplicate_bits": pa.int64()}  # noqa: RUF012
    most_bits: int = 31  # PDQ's own default
    needed: int = 6  # of 8 frames that must be the same

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """The nearest earlier video of each, and how far it is."""
        if not records:
            return []
        hashes = [record["hashes"] for record in records]
        nearest, bits = nearest_earlier(hashes, hashes, self.needed)
        turned, turned_bits = nearest_earlier([record["mirrored"] for record in records], hashes, self.needed)
        nearest, bits = np.where(turned_bits < bits, turned, nearest), np.minimum(bits, turned_bits)
        first: dict[str, int] = {}
        outcomes: list[Outcome] = []
        for index, record in enumerate(records):
            same = first.setdefault(record["digest"], index)
            place, distance = (same, 0) if same != index else (int(nearest[index]), int(bits[index]))
            name = records[place]["id"] if place >= 0 else None
            outcomes.append(Kept({"duplicate_of": name, "duplicate_bits": distance}))
        return outcomes

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject the later of two."""
        bits = record["duplicate_bits"]
        return Rejected("duplicate", bits) if bits <= self.most_bits else None


def nearest_earlier(
    hashes: Sequence[Sequence[str]], known: Sequence[Sequence[str]], needed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find for each video the nearest one before it.

    Args:
        hashes: N lists of H hashes, in order of time.
        known: N lists to search: the same, or of the unmirrored pictures.
        needed: Rank, from 1, of the frame distance that counts as the videos' distance.

    Returns:
        (N,) places, -1 for the first, and (N,) distances in bits, 256 for the first.
    """
    bits, others = _signs(hashes), _signs(known)  # (N, H, 256)
    count, frames = bits.shape[:2]
    places, distances = np.full(count, -1), np.full(count, BITS)
    for start in range(0, count, _BLOCK):
        rows = bits[start : start + _BLOCK]
        stop = start + len(rows)
        for other in range(0, stop, _BLOCK):
            columns = others[other : min(other + _BLOCK, stop)]
            each = np.stack([rows[:, frame] @ columns[:, frame].T for frame in range(frames)])
            agreement = np.sort(each, axis=0)[frames - needed]  # of the frame on that rank
            found = np.rint((BITS - agreement) / 2).astype(np.int64)
            later = np.arange(other, other + len(columns))[None] >= np.arange(start, stop)[:, None]
            found[later] = BITS + 1
            best = found.argmin(axis=1)
            value = found[np.arange(len(rows)), best]
            better = value < distances[start:stop]
            places[start:stop][better] = best[better] + other
            distances[start:stop][better] = value[better]
    return places, distances


def _signs(hashes: Sequence[Sequence[str]]) -> np.ndarray:
    return np.stack([from_hex(list(row)) for row in hashes]).astype(np.float32) * 2 - 1
