"""Cross-modal consistency [3.2]: does the caption say what the frames show, by any encoder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.quality.worker import in_batches, spread_frames
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.sketches import Sketches
from gve.hub_datasets.vsynflow.stages import (
    Context,
    CorpusStage,
    Encoder,
    Failed,
    Kept,
    Outcome,
    Rejected,
    SetupError,
    Stage,
)


@dataclass(frozen=True)
class Similarity(Stage):
    """The cosine of a caption and its video; `encoder` is its name, so that scores of different ones never meet."""

    name = "similarity"
    version = 2
    reads = ("video", "text", "duration")
    columns = {"similarity": pa.float64()}  # noqa: RUF012
    param_names = ("encoder", "frames", "side")
    side = 224  # pixels of a frame's longer side
    encoder: str = ""
    frames: int = 8

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Score each record."""
        if context.encoder is None:
            raise SetupError("encoder: got none. Pass one to the flow, or drop this stage.")
        outcomes: list[Outcome] = []
        for batch in in_batches(records):
            shown = spread_frames(batch, self.frames, self.side, context.deadline)
            pairs = [(record, found) for record, found in zip(batch, shown, strict=True) if isinstance(found, list)]
            scores = iter(_scores(context.encoder, pairs))
            outcomes += [found if isinstance(found, Failed) else _scored(next(scores)) for found in shown]
        return outcomes


def _scores(encoder: Encoder, pairs: Sequence[tuple[Record, Any]]) -> list[float]:
    if not pairs:
        return []
    texts = np.asarray(encoder.encode_query([{"text": record["text"]} for record, _ in pairs]), np.float64)
    seen = np.asarray(encoder.encode_document([{"video": frames} for _, frames in pairs]), np.float64)
    return _cosine(texts, seen).tolist()


def _scored(score: float) -> Outcome:
    """Fail on NaN, which could stand anywhere in the order."""
    return Kept({"similarity": round(score, 6)}) if math.isfinite(score) else Failed("no number", retryable=False)


@dataclass(frozen=True)
class Consistency(CorpusStage):
    """Places a score among the corpus's scores."""

    name = "consistency"
    limit_names = ("least_share", "floor")
    version = 2
    reads = ("similarity",)
    columns = {"similarity_rank": pa.float64()}  # noqa: RUF012
    least_share: float = 0.2  # lowest scores to reject; ties go together or not at all
    floor: float = -1.0  # depends on the encoder

    def sketch(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """Each record's score."""
        return {"score": np.array([record["similarity"] for record in records], np.float64)}

    def measure(self, sketches: Sketches) -> dict[str, np.ndarray]:
        """The share of records whose score is no higher, the record's own included."""
        scores = sketches.column("score")
        return {"similarity_rank": np.searchsorted(np.sort(scores), scores, side="right") / len(scores)}

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Apply quantile and floor."""
        low = record["similarity_rank"] <= self.least_share or record["similarity"] < self.floor
        return Rejected("inconsistent", record["similarity"]) if low else None


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of the rows, (N,), of (N, D) and (N, D)."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(norms, 1e-12)
