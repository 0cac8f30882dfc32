"""The gate between training data and a benchmark: five nets, by fingerprints alone, and a report with counts.

Shapes: D width of the encoder.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.files import read_json
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints, id_keys, text_runs, text_vectors, video_vectors
from gve.hub_datasets.vsynflow.quality.near_hashes import HashIndex, check_most_bits
from gve.hub_datasets.vsynflow.quality.pdq import BITS, packed_from_hex
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.shards import read_plan
from gve.hub_datasets.vsynflow.stages import Context, Failed, Kept, Outcome, Rejected, SetupError, Stage
from gve.hub_datasets.vsynflow.status import read_table, verify_run
from gve.hub_datasets.vsynflow.stills import frames_of

NAME, WRITTEN = "decontamination", "decontamination_written"
NETS = ("id", "frames", "text", "video", "paraphrase")
EMBEDDED = ("video", "paraphrase")  # nets that need an encoder
_RANK, _BATCH = 2, 32
_OF_MEDIA = {"leak_id": pa.string(), "leak_bits": pa.int64(), "leak_video": pa.float64()}
_OF_TEXTS = {"leak_runs": pa.int64(), "leak_similarity": pa.float64()}


@dataclass(frozen=True)
class Decontamination(Stage):
    """Compares every record with the fingerprints of a benchmark; unfit encoders raise SetupError.

    Under the name WRITTEN it is the second part: the nets of texts alone, over what a captioner wrote as well.
    """

    version = 4
    path: str = ""
    texts: Sequence[str] = ("text", "raw_text")  # columns of texts, or of lists of them
    encoder: str = ""  # the fingerprints' own; "" leaves out the nets of EMBEDDED
    most_bits: int = 31  # PDQ distance of the second nearest frame; 31 is PDQ's default
    most_runs: int = 0  # common runs of 13 words, or whole texts
    most_similarity: float = 0.95  # cosine of two texts; calibrate it for your encoder
    most_video_similarity: float = 0.95  # likewise, of two videos
    name: str = NAME

    def __post_init__(self) -> None:
        check_most_bits(self.most_bits)

    @property
    def reads(self) -> Sequence[str]:
        """The texts; the first part also sees the video."""
        return self.texts if self.name == WRITTEN else ("video", "hashes", *self.texts)

    @property
    def limit_names(self) -> Sequence[str]:
        """Of the nets of this part."""
        of_texts = ("most_runs", "most_similarity")
        return of_texts if self.name == WRITTEN else ("most_bits", *of_texts, "most_video_similarity")

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """What each net measured."""
        return _OF_TEXTS if self.name == WRITTEN else _OF_MEDIA | _OF_TEXTS

    @property
    def params(self) -> Mapping[str, Any]:
        """The fingerprints by their content, and what is compared with them."""
        return {"fingerprints": _loaded(self.path).digest(), "texts": list(self.texts), "encoder": self.encoder}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Score every record in all nets of this part."""
        known = _loaded(self.path)
        if known.encoder != self.encoder or (self.encoder and context.encoder is None):
            raise SetupError(
                f"encoder must be the fingerprints' own, {known.encoder or 'none'!r}; got {self.encoder or 'none'!r} and "
                f"the run {'has one' if context.encoder else 'has none'}. Name it in the configuration, or fingerprint again."
            )
        seen = [{}] * len(records) if self.name == WRITTEN else self._seen(records, known, context)
        return [
            found if isinstance(found, Failed) else Kept({**found, **self._read(record, known, context)})
            for record, found in zip(records, seen, strict=True)
        ]

    def _seen(
        self, records: Sequence[Record], known: Fingerprints, context: Context
    ) -> list[Mapping[str, Any] | Failed]:
        """The columns of names and pictures."""
        similar = self._videos(records, known, context)
        near = _second_nearest([record["hashes"] for record in records], _index(self.path))
        found: list[Mapping[str, Any] | Failed] = []
        for record, video, bits in zip(records, similar, near, strict=True):
            names = id_keys(record["origin"]) | id_keys(record["video"]["path"])
            columns = {"leak_id": min(names & known.ids, default=None), "leak_bits": bits, "leak_video": video}
            found.append(video if isinstance(video, Failed) else columns)
        return found

    def _read(self, record: Record, known: Fingerprints, context: Context) -> Mapping[str, Any]:
        """The columns of texts."""
        texts = self._texts(record)
        runs = {run for text in texts for run in text_runs(text)}
        shared = int(np.isin(np.array(sorted(runs), np.uint64), known.runs).sum())
        return {"leak_runs": shared, "leak_similarity": self._similarity(texts, known, context)}

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject by the first net that catches the record."""
        similarity, video = record["leak_similarity"], record["leak_video"]
        checks = (
            ("id", 1.0, record["leak_id"] is not None),
            ("frames", record["leak_bits"], record["leak_bits"] <= self.most_bits),
            ("text", record["leak_runs"], record["leak_runs"] > self.most_runs),
            ("video", video, video is not None and video > self.most_video_similarity),
            ("paraphrase", similarity, similarity is not None and similarity > self.most_similarity),
        )
        return next((Rejected(code, float(score)) for code, score, caught in checks if caught), None)

    def _texts(self, record: Record) -> list[str]:
        values = [record[name] for name in self.texts]
        lists = [value if isinstance(value, list) else [value] for value in values if value is not None]
        return sorted({text for value in lists for text in value if text})

    def _similarity(self, texts: list[str], known: Fingerprints, context: Context) -> float | None:
        if not self.encoder or context.encoder is None or not texts or not len(known.texts):
            return None
        vectors = text_vectors(context.encoder, texts)
        return round(float((vectors @ known.texts.T).max()), 6)

    def _videos(self, records: Sequence[Record], known: Fingerprints, context: Context) -> list[float | Failed | None]:
        """Cosine with the nearest test video, or why it is unknown; all None without that net."""
        found: list[float | Failed | None] = [None] * len(records)
        if context.encoder is None or not self.encoder or not len(known.videos):
            return found
        for start in range(0, len(records), _BATCH):
            shown: dict[int, list[Any]] = {}
            for number, record in enumerate(records[start : start + _BATCH], start):
                try:
                    shown[number] = frames_of(record["video"], known.num_frames)
                except (ValueError, FileNotFoundError):
                    found[number] = Failed("undecodable", retryable=False)
            if shown:
                vectors = video_vectors(context.encoder, shown.values())  # (_BATCH, D)
                for number, nearest in zip(shown, (vectors @ known.videos.T).max(axis=1), strict=True):
                    found[number] = round(float(nearest), 6)
        return found


def gate_report(folder: Path) -> dict[str, Any]:
    """Report whether a finished run passed the gate, as JSON; `write_uvrd` and publication need it."""
    read_plan(folder)
    path = folder / "run.json"
    stages = read_json(path)["stages"] if path.exists() else {}
    if NAME not in stages:
        return {"passed": False, "reason": "the flow has no decontamination stage"}
    errors = verify_run(folder).errors
    if errors:
        return {"passed": False, "reason": f"the run is not sound: {errors[0]}"}
    caught = Counter(row["code"] for row in read_table(folder, "rejected") if row["stage"] in (NAME, WRITTEN))
    kept = sum(1 for _ in read_table(folder, "kept"))
    params, limits = stages[NAME]["params"], stages[NAME]["limits"]
    counts = {net: caught[net] for net in NETS}
    return {
        "passed": True,
        "fingerprints": params["fingerprints"],
        "encoder": params["encoder"],
        "limits": limits,
        "checked": kept + sum(counts.values()),
        "nets": [net for net in NETS if params["encoder"] or net not in EMBEDDED],
        "caught": counts,
    }


@lru_cache(maxsize=4)
def _loaded(path: str) -> Fingerprints:
    return Fingerprints.load(Path(path))


@lru_cache(maxsize=4)
def _index(path: str) -> HashIndex:
    return HashIndex(np.packbits(_loaded(path).hashes, axis=1), thorough=True)


def _second_nearest(hashes: Sequence[list[str]], known: HashIndex) -> list[int]:
    """Distance of each record's second nearest frame: one common frame, such as a title card, is no leak."""
    nearest = known.nearest(packed_from_hex([each for row in hashes for each in row]))
    ends = np.cumsum([0, *map(len, hashes)])
    rows = [np.sort(nearest[start:end]) for start, end in pairwise(ends)]
    return [int(row[min(_RANK, len(row)) - 1]) if len(row) else BITS for row in rows]
