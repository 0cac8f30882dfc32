"""Frames that are not safe for work, by any image classifier of transformers that you name."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.encoders import folder_digest
from gve.hub_datasets.vsynflow.quality.worker import in_batches, spread_frames
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Failed, Kept, Outcome, Rejected, SetupError, Stage

_SIDE = 384  # pixels of a frame's longer side


@dataclass(frozen=True)
class Nsfw(Stage):
    """The highest score of a video's frames."""

    name = "nsfw"
    limit_names = ("threshold",)
    version = 2
    reads = ("video", "duration")
    columns = {"nsfw": pa.float64(), "nsfw_frames": pa.list_(pa.float64())}  # noqa: RUF012
    model: str = ""  # folder or Hub name of an image classifier
    labels: tuple[str, ...] = ("nsfw",)  # unwanted; their probabilities are added
    threshold: float = 0.5  # rejected from here on; Data-Juicer's default
    frames: int = 8
    revision: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.model or not self.labels:
            raise ValueError(
                "filters.nsfw needs a model and its unwanted labels, such as {model: FOLDER, labels: [nsfw]}; "
                f"got model {self.model!r} and labels {list(self.labels)}."
            )
        if self.frames < 1 or not 0 <= self.threshold <= 1:
            raise ValueError(
                f"filters.nsfw must have frames of at least 1 and a threshold from 0 to 1, got {self.frames} and "
                f"{self.threshold}."
            )

    @property
    def params(self) -> Mapping[str, Any]:
        """Everything that a score depends on; of a folder the weights, wherever it lies."""
        folder = Path(self.model)
        model = {"model": folder_digest(folder) if folder.is_dir() else self.model, "revision": self.revision}
        return {**model, "labels": list(self.labels), "frames": self.frames, "side": _SIDE}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Score every video of a shard."""
        classify = load_classifier(self.model, self.revision, self.device, self.labels) if records else None
        outcomes: list[Outcome] = []
        for batch in in_batches(records):
            for found in spread_frames(batch, self.frames, _SIDE, context.deadline):
                outcomes.append(found if isinstance(found, Failed) else self._scored(classify, found))
        return outcomes

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Apply the threshold."""
        score = record["nsfw"]
        return Rejected("nsfw", score) if score >= self.threshold else None

    def _scored(self, classify: Any, frames: Sequence[Any]) -> Kept:
        # the sum of labels that do not exclude one another may exceed 1
        scores = [
            round(min(sum(label["score"] for label in labels if label["label"] in self.labels), 1.0), 6)
            for labels in classify(list(frames), top_k=None)
        ]
        return Kept({"nsfw": max(scores), "nsfw_frames": scores})


@lru_cache(maxsize=1)
def load_classifier(model: str, revision: str | None, device: str, labels: tuple[str, ...]) -> Any:
    """Load an image classifier, once a process; SetupError if it cannot be loaded or lacks a label."""
    transformers = importlib.import_module("transformers")
    try:
        pipeline = transformers.pipeline("image-classification", model=model, revision=revision, device=device)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise SetupError(
            f"filters.nsfw.model: {model!r} cannot be loaded as an image classifier ({type(error).__name__}: {error})."
        ) from error
    known = list(pipeline.model.config.id2label.values())
    missing = [label for label in labels if label not in known]
    if missing:
        raise SetupError(f"filters.nsfw.labels must be labels of {model!r} ({', '.join(known)}), got {missing[0]!r}.")
    return pipeline
