"""What was measured and drawn in each epoch of the curriculum (paper, section 3.3).

Shapes: N probe pairs of a task.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskScores:
    """What a prober says of one task.

    Args:
        score: R, the mean cosine of N positive pairs (section 3.3).
        centred: R', R minus the mean cosine of pairs that do not belong together: free of what two modalities share
            whatever they show.
        accuracy: Share of the N queries whose target is nearer than the other N - 1.
    """

    score: float
    centred: float
    accuracy: float


@dataclass(frozen=True)
class CurriculumEpoch:
    """One epoch of the curriculum: what was measured, and the draw that follows from it.

    Args:
        sigma: sigma(t).
        probabilities: By task.
        scores: By task; empty where no prober was asked.
    """

    sigma: float
    probabilities: dict[str, float]
    scores: dict[str, TaskScores] = field(default_factory=dict)

    def logs(self) -> dict[str, float]:
        """Flat names and numbers for a trainer's log: `P/t2v`, `R/t2v`, `R_centred/t2v`, `accuracy/t2v`, `sigma`."""
        flat = {"sigma": self.sigma} | {f"P/{task}": value for task, value in self.probabilities.items()}
        for task, measured in self.scores.items():
            flat |= {
                f"R/{task}": measured.score,
                f"R_centred/{task}": measured.centred,
                f"accuracy/{task}": measured.accuracy,
            }
        return flat


@dataclass
class CurriculumHistory:
    """Every epoch that has begun, by its number from 0; it travels in the checkpoint."""

    epochs: dict[int, CurriculumEpoch] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dict of strings and numbers that `from_json` reads back to the same bits."""
        return {str(epoch): asdict(record) for epoch, record in self.epochs.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CurriculumHistory":
        """Read what `to_json` wrote."""
        epochs = {}
        for epoch, record in data.items():
            scores = {task: TaskScores(**values) for task, values in record["scores"].items()}
            epochs[int(epoch)] = CurriculumEpoch(record["sigma"], dict(record["probabilities"]), scores)
        return cls(epochs)
