"""Cross-modal consistency [3.2]: does the caption say what the frames show, by any encoder that is passed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from gve.hub_datasets.vsynflow.quality.worker import VideoError, WorkerError, video_worker
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import BaseStage, Context, Failed, Kept, Outcome, Rejected, SetupError


@dataclass(frozen=True)
class Similarity(BaseStage):
    """The cosine of a caption and its video.

    Attributes:
        encoder: Name of the encoder, so that scores of different ones never meet.
        frames: Frames of a video, evenly spread.
        side: Pixels of their longer side.
    """

    name = "similarity"
    reads = ("video", "text", "duration")
    columns = {"similarity": pa.float64()}  # noqa: RUF012
    encoder: str = ""
    frames: int = 8
    side: int = 224

    @property
    def params(self) -> Mapping[str, Any]:
        """Everything that a score depends on."""
        return {"encoder": self.encoder, "frames": self.frames, "side": self.side}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Score each record.

        Raises:
            SetupError: If the run has no encoder.
        """
        if context.encoder is None:
            raise SetupError("encoder: got none; an encoder is accepted; pass one to the flow or drop this stage")
        outcomes: list[Outcome] = [Failed("frames", retryable=False)] * len(records)
        scored, videos = [], []
        for index, record in enumerate(records):
            try:
                videos.append({"video": self._frames(record, context.deadline)})
                scored.append(index)
            except (VideoError, WorkerError) as error:
                outcomes[index] = Failed(str(error).partition(":")[0], retryable=str(error) == "deadline")
        if scored:
            captions = [{"text": records[index]["text"]} for index in scored]
            texts = np.asarray(context.encoder.encode_query(captions), np.float64)
            seen = np.asarray(context.encoder.encode_document(videos), np.float64)
            for index, score in zip(scored, _cosine(texts, seen), strict=True):
                outcomes[index] = Kept({"similarity": round(float(score), 6)})
        return outcomes

    def _frames(self, record: Record, deadline: float) -> list[Image.Image]:
        times = [(index + 0.5) * record["duration"] / self.frames for index in range(self.frames)]
        arrays = video_worker().call("sample_frames", record["video"], times, self.side, deadline=deadline)
        return [Image.fromarray(array) for array in arrays]


@dataclass(frozen=True)
class Consistency(BaseStage):
    """Places a score among those of the corpus.

    Attributes:
        least_share: Share of the corpus below which a record is refused.
        floor: Score below which it is refused wherever it stands; depends on the encoder.
    """

    name = "consistency"
    scope = "corpus"
    reads = ("similarity",)
    columns = {"similarity_rank": pa.float64()}  # noqa: RUF012
    least_share: float = 0.2
    floor: float = -1.0

    @property
    def limits(self) -> Mapping[str, Any]:
        """Quantile and floor."""
        return {"least_share": self.least_share, "floor": self.floor}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """The share of records with a lower score."""
        scores = np.array([record["similarity"] for record in records])
        ranks = np.searchsorted(np.sort(scores), scores) / max(len(scores), 1)
        return [Kept({"similarity_rank": float(rank)}) for rank in ranks]

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Apply quantile and floor."""
        low = record["similarity_rank"] < self.least_share or record["similarity"] < self.floor
        return Rejected("inconsistent", record["similarity"]) if low else None


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of the rows, (N,), of (N, D) and (N, D)."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(norms, 1e-12)
