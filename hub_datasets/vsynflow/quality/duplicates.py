"""Duplicate videos: the same bytes, or the same pictures after re-encoding, mirroring or letterboxing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.quality.near_hashes import check_most_bits, nearest_earlier
from gve.hub_datasets.vsynflow.quality.pdq import packed_from_hex
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Kept, Outcome, Rejected, Stage


@dataclass(frozen=True)
class Duplicates(Stage):
    """Finds the nearest earlier video, frame by frame; see `nearest_earlier`."""

    name = "duplicates"
    version = 2
    param_names = ("needed",)
    limit_names = ("most_bits",)
    scope = "corpus"
    reads = ("digest", "hashes", "mirrored")
    columns = {"duplicate_of": pa.string(), "duplicate_bits": pa.int64()}  # noqa: RUF012
    most_bits: int = 31  # PDQ's own default
    needed: int = 6  # of 8 frames that must be the same

    def __post_init__(self) -> None:
        check_most_bits(self.most_bits)

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """The nearest earlier video of each, and how far it is: None and 256 where none is near."""
        if not records:
            return []
        hashes, mirrored = (
            np.stack([packed_from_hex(record[name]) for record in records]) for name in ("hashes", "mirrored")
        )
        nearest, bits = nearest_earlier(hashes, mirrored, self.needed)
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
