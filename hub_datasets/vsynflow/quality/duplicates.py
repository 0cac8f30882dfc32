"""Duplicate videos: the same bytes, or the same pictures after re-encoding, mirroring or letterboxing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.quality.near_hashes import check_most_bits, nearest_earlier
from gve.hub_datasets.vsynflow.quality.pdq import BITS, packed_from_hex
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.sketches import Sketches, keys_of_texts
from gve.hub_datasets.vsynflow.stages import CorpusStage, Rejected

FRAMES = 8  # of a video that have hashes


@dataclass(frozen=True)
class Duplicates(CorpusStage):
    """Finds the nearest earlier video, frame by frame; see `nearest_earlier`."""

    name = "duplicates"
    version = 2
    param_names = ("needed",)
    limit_names = ("most_bits",)
    reads = ("digest", "hashes", "mirrored")
    columns = {"duplicate_of": pa.string(), "duplicate_bits": pa.int64()}  # noqa: RUF012
    most_bits: int = 31  # PDQ's own default
    needed: int = 6  # of 8 frames that must be the same

    def __post_init__(self) -> None:
        check_most_bits(self.most_bits)

    def sketch(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """64 bits of each file's digest, and the hashes of its frames and their mirror images, (n, 8, 32) each."""
        hashes = {
            name: packed_from_hex([one for record in records for one in record[name]]).reshape(-1, FRAMES, BITS // 8)
            for name in ("hashes", "mirrored")
        }
        return {"file": keys_of_texts(record["digest"] for record in records), **hashes}

    def measure(self, sketches: Sketches) -> dict[str, np.ndarray]:
        """The nearest earlier video of each, and how far it is: 256 where none is near."""
        _, first, place = np.unique(sketches.column("file"), return_index=True, return_inverse=True)
        first = first[place]
        nearest, bits = nearest_earlier(sketches.column("hashes"), sketches.column("mirrored"), self.needed)
        same = first != np.arange(len(first))
        return {"duplicate_of": np.where(same, first, nearest), "duplicate_bits": np.where(same, 0, bits)}

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject the later of two."""
        bits = record["duplicate_bits"]
        return Rejected("duplicate", bits) if bits <= self.most_bits else None
