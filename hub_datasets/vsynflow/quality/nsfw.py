"""Frames that are not safe for work, scored by any image classifier of transformers that the user names."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.encoders import folder_digest
from gve.hub_datasets.vsynflow.quality.frames import in_batches, spread_frames
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Stage, Context, Failed, Kept, Outcome, Rejected, SetupError


_SIDE = 384
"""Pixels of a frame's longer side."""


@dataclass(frozen=True)
class Nsfw(Stage):
    """The highest score of a video's frames; that of a frame is what the classifier gives to the unwanted labels.

    Attributes:
        model: Folder or Hub name of an image classifier.
        labels: Its labels that are not wanted; their probabilities are added.
        threshold: Score from which on a video is refused; 0.5 is the default of Data-Juicer's filter.
        frames: Frames of a video, evenly spread.
        revision: Of the model on the Hub; None takes its main branch.
        device: Where it runs.

    Raises:
        ValueError: If no model or no label is named, or a number is out of its range.
    """

    name = "nsfw"
    version = 2
    reads = ("video", "duration")
    columns = {"nsfw": pa.float64(), "nsfw_frames": pa.list_(pa.float64())}  # noqa: RUF012
    model: str = ""
    labels: tuple[str, ...] = ("nsfw",)
    threshold: float = 0.5
    frames: int = 8
    revision: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.model or not self.labels:
            raise ValueError(
                f"filters.nsfw: got model {self.model!r} and labels {list(self.labels)}; the name of an image "
                "classifier and one of its labels at least are accepted; such as {model: folder, labels: [nsfw]}"
            )
        if self.frames < 1 or not 0 <= self.threshold <= 1:
            raise ValueError(
                f"filters.nsfw must have frames of at least 1 and a threshold from 0 to 1, got {self.frames} and "
                f"{self.threshold}."
            )

    @property
    def params(self) -> Mapping[str, Any]:
        """Everything that a score depends on; of a folder its weights, wherever it lies."""
        folder = Path(self.model)
        model = {"model": folder_digest(folder) if folder.is_dir() else self.model, "revision": self.revision}
        return {**model, "labels": list(self.labels), "frames": self.frames, "side": _SIDE}

    @property
    def limits(self) -> Mapping[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Score every video of a shard.

        Raises:
            SetupError: If the model cannot be loaded, or does not have the labels.
        """
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
    """An image classification pipeline, once a process.

    Raises:
        SetupError: If it cannot be loaded, or lacks one of the labels.
    """
    transformers = importlib.import_module("transformers")
    try:
        pipeline = transformers.pipeline("image-classification", model=model, revision=revision, device=device)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise SetupError(
            f"filters.nsfw.model: got {model!r}, which cannot be loaded ({type(error).__name__}: {error}); a folder or "
            "Hub name of an image classifier is accepted"
        ) from error
    known = list(pipeline.model.config.id2label.values())
    missing = [label for label in labels if label not in known]
    if missing:
        raise SetupError(f"filters.nsfw.labels: got {missing[0]!r}; {', '.join(known)} are the labels of {model!r}")
    return pipeline
