"""Videos that are there twice: the same bytes, or the same pictures after a re-encoding, a mirror or black bars.

Shapes: N videos, H hashes of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.quality.pdq import BITS, from_hex
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Stage, Context, Kept, Outcome, Rejected

_BLOCK = 1024


@dataclass(frozen=True)
class Duplicates(Stage):
    """Finds for each video the nearest earlier one, frame by frame; compares all pairs in blocks.

    Attributes:
        most_bits: Largest distance that still counts as the same; PDQ's own default is 31.
        needed: The distance is that of the frame on this rank, so that 6 of 8 frames must be the same.
    """

    name = "duplicates"
    scope = "corpus"
    reads = ("digest", "hashes", "mirrored")
    columns = {"duplicate_of": pa.string(), "duplicate_bits": pa.int64()}  # noqa: RUF012
    most_bits: int = 31
    needed: int = 6

    @property
    def params(self) -> Mapping[str, Any]:
        """The rank of the frame that decides."""
        return {"needed": self.needed}

    @property
    def limits(self) -> Mapping[str, Any]:
        """The largest distance."""
        return {"most_bits": self.most_bits}

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
        """Refuse the later one of two."""
        bits = record["duplicate_bits"]
        return Rejected("duplicate", bits) if bits <= self.most_bits else None


def nearest_earlier(
    hashes: Sequence[Sequence[str]], known: Sequence[Sequence[str]], needed: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each video the nearest one before it.

    Args:
        hashes: N lists of H hashes, in the order of time, that are looked for.
        known: As many lists, among which they are looked for: themselves, or those of the unmirrored pictures.
        needed: Rank, from 1, of the frame distance that counts as the distance of two videos.

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
