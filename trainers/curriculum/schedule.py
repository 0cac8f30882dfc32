"""The Modality Pyramid: from what was measured to the probabilities of an epoch (paper, section 3.3).

Shapes: K tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gve.trainers.curriculum.adaptive import ADAPTIVE
from gve.trainers.curriculum.weights import (
    UNMEASURED,
    WEIGHTS,
    Moment,
    TaskScores,
    check_scores,
    softmax_probabilities,
    uniform,
)

__all__ = ["SCHEDULES", "CurriculumEpoch", "CurriculumHistory", "Schedule", "TaskScores", "softmax_probabilities"]

SCHEDULES = (*WEIGHTS, *ADAPTIVE)
"""Names of the schedules; see `gve.trainers.curriculum.weights` and `.adaptive`."""


@dataclass(frozen=True)
class CurriculumEpoch:
    """One epoch of the curriculum: what was measured, and the draw that follows from it."""

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
                f"reciprocal/{task}": measured.reciprocal,
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


@dataclass(frozen=True)
class Schedule:
    """From scores, sizes and history to the probabilities of an epoch (section 3.3)."""

    name: str = "pyramid"
    num_epochs: int = 3
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    cap: float = 1.0
    floor: float = 0.0
    priors: Mapping[str, float] = field(default_factory=dict)
    unlock_margin: float = 0.05  # by how much R' or accuracy must move to unlock a task; only for `unlock`
    transfer: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict
    )  # by task and task; only for `dependency`

    def __post_init__(self) -> None:
        if self.name == "unlock" and self.floor <= 0:
            raise ValueError(
                f"probability_floor: got {self.floor:g} with the schedule unlock; more than 0 is accepted there, since a "
                "task that is never drawn cannot begin to move; set it to 0.02 or so"
            )

        if self.name == "dependency" and not self.transfer:
            raise ValueError(
                "transfer: got none with the schedule dependency; the transfer.json that gve ablate --transfer writes is "
                "needed there; name it"
            )

    @property
    def needs_scores(self) -> bool:
        """Whether the probabilities depend on a prober."""
        return self.name not in UNMEASURED

    @property
    def needs_baseline(self) -> bool:
        """Whether the untrained model must be measured too, so that later epochs can see what has moved."""
        return self.name == "unlock" or self.adapts

    @property
    def adapts(self) -> bool:
        """Whether the schedule asks what the model in training gets wrong, so that no other model can answer for it."""
        return self.name in ADAPTIVE

    def epoch(
        self,
        epoch: int,
        sizes: Mapping[str, int],
        scores: Mapping[str, TaskScores],
        history: CurriculumHistory | None = None,
    ) -> CurriculumEpoch:
        """The draw of an epoch, counted from 0: without scores uniform but for the priors. It ignores later epochs."""
        sigma = sigma_at(epoch, self.num_epochs, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        past = {} if history is None else history.epochs
        before = [past[number] for number in sorted(past) if number < epoch and past[number].scores]
        weights = self._weights(
            Moment(sigma, sizes, scores, [record.scores for record in before], self.unlock_margin, self.transfer)
        )
        bounded = bound_probabilities(weights, cap=self.cap, floor=self.floor)
        return CurriculumEpoch(sigma, dict(zip(sizes, bounded.tolist(), strict=True)), dict(scores))

    def _weights(self, moment: Moment) -> np.ndarray:
        weigh = {**WEIGHTS, **ADAPTIVE}[self.name]
        if self.needs_scores and not moment.scores:
            weigh = uniform
        elif self.needs_scores:
            check_scores(moment)
        weighted = weigh(moment) * [self.priors.get(task, 1.0) for task in moment.sizes]
        if not weighted.sum() > 0:
            raise ValueError(
                f"task_priors: got 0 for every task ({', '.join(moment.sizes)}); give at least one more than 0"
            )
        return weighted / weighted.sum()


def sigma_at(epoch: int, num_epochs: int, *, sigma_min: float = 0.1, sigma_max: float = 1.0) -> float:
    """sigma(t), linear from epoch 0 to the last (section 3.3); with a single epoch it stays at its minimum."""
    progress = 0.0 if num_epochs <= 1 else min(epoch / (num_epochs - 1), 1.0)
    return sigma_min + (sigma_max - sigma_min) * progress


def bound_probabilities(probabilities: Sequence[float], *, cap: float = 1.0, floor: float = 0.0) -> np.ndarray:
    """(K,) probabilities nearest in proportion, with no task above `cap` or below `floor`, by water-filling.

    All tasks are scaled by one number and then clipped; that number is the one that makes the sum 1, so tasks that
    touch no bound keep their ratios.
    """
    weights = np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-300)
    count = len(weights)
    if floor * count > 1 + 1e-12 or cap * count < 1 - 1e-12:
        raise ValueError(
            f"probability_cap, probability_floor: got {cap:g} and {floor:g} for {count} tasks; {count} probabilities "
            f"between them must be able to sum to 1; use a cap of at least {1 / count:.3g} and a floor of at most that"
        )
    weights /= weights.sum()
    scales = np.sort(np.concatenate([floor / weights, cap / weights]))  # (2 K,) where a task meets a bound
    totals = np.clip(scales[:, None] * weights, floor, cap).sum(axis=1)  # rises in straight pieces between them
    clipped = np.clip(np.interp(1.0, totals, scales) * weights, floor, cap)
    return clipped / clipped.sum()
