"""The Modality Pyramid's arithmetic: alignment scores to sampling probabilities (paper, section 3.3).

Shapes: K tasks, N probe pairs of a task.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

SCHEDULES = ("pyramid", "pyramid-centred", "uniform", "proportional")
"""How tasks are drawn; the two pyramids read alignment scores, `proportional` the tasks' sizes."""


def sigma_at(epoch: int, num_epochs: int, *, sigma_min: float = 0.1, sigma_max: float = 1.0) -> float:
    """sigma(t), linear from the first epoch to the last (section 3.3).

    Args:
        epoch: Counted from 0.
        num_epochs: Epochs of the run; with one there is nothing to anneal and sigma stays at its minimum.
        sigma_min: Of the first epoch.
        sigma_max: Of the last epoch.

    Returns:
        The temperature of the task draw.
    """
    progress = 0.0 if num_epochs <= 1 else min(epoch / (num_epochs - 1), 1.0)
    return sigma_min + (sigma_max - sigma_min) * progress


def softmax_probabilities(scores: Sequence[float], sigma: float) -> np.ndarray:
    """P_t(k), proportional to exp(R_k / sigma) (section 3.3).

    Args:
        scores: K alignment scores.
        sigma: Temperature.

    Returns:
        (K,) probabilities, fp64.
    """
    scaled = np.asarray(scores, dtype=np.float64) / sigma
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def bound_probabilities(probabilities: Sequence[float], *, cap: float = 1.0, floor: float = 0.0) -> np.ndarray:
    """The nearest distribution in proportion with no task above `cap` or below `floor`, by water-filling.

    All tasks are scaled by one number and then clipped; that number is the one that makes the sum 1, so tasks that
    touch no bound keep their ratios.

    Args:
        probabilities: K weights, at least one above 0.
        cap: Highest probability of a task.
        floor: Lowest probability of a task.

    Returns:
        (K,) probabilities, fp64.

    Raises:
        ValueError: Where K tasks cannot all stay within the bounds.
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


@dataclass(frozen=True)
class Schedule:
    """From scores and sizes to the probabilities of an epoch (section 3.3).

    Args:
        name: One of `SCHEDULES`.
        num_epochs: Epochs of the run.
        sigma_min: sigma of the first epoch.
        sigma_max: sigma of the last epoch.
        cap: Highest probability of a task.
        floor: Lowest probability of a task.
        priors: w_k by task, for P_t(k) proportional to w_k exp(R_k / sigma); 1 where a task is not named.
        starts: By task the share of the epochs that passes before it is drawn; from the first one where not named.
    """

    name: str = "pyramid"
    num_epochs: int = 3
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    cap: float = 1.0
    floor: float = 0.0
    priors: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)

    @property
    def needs_scores(self) -> bool:
        """Whether the probabilities depend on a prober."""
        return self.name.startswith("pyramid")

    def epoch(self, epoch: int, sizes: Mapping[str, int], scores: Mapping[str, TaskScores]) -> CurriculumEpoch:
        """The draw of one epoch.

        Args:
            epoch: Counted from 0.
            sizes: Rows by task; its order is the order of the tasks.
            scores: By task; empty where there is no prober yet, which makes the epoch uniform.

        Returns:
            The record of the epoch.

        Raises:
            ValueError: Where a task lacks a score.
        """
        sigma = sigma_at(epoch, self.num_epochs, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        begun = [task for task in sizes if self.starts.get(task, 0.0) * self.num_epochs <= epoch]
        if not begun:
            raise ValueError(f"starts: no task has begun in epoch {epoch + 1}; let at least one start at 0")
        weights = self._weights({task: sizes[task] for task in begun}, scores, sigma)
        bounded = bound_probabilities(weights, cap=self.cap, floor=self.floor)
        drawn = dict.fromkeys(sizes, 0.0) | dict(zip(begun, bounded.tolist(), strict=True))
        return CurriculumEpoch(sigma, drawn, dict(scores))

    def _weights(self, sizes: Mapping[str, int], scores: Mapping[str, TaskScores], sigma: float) -> np.ndarray:
        if self.name == "proportional":
            return np.array([float(size) for size in sizes.values()])
        if not self.needs_scores or not scores:
            return np.full(len(sizes), 1 / len(sizes))
        if missing := sorted(set(sizes) - set(scores)):
            raise ValueError(
                f"scores: got none for {', '.join(missing)}; every task needs one; probe all tasks of the training set"
            )
        centred = self.name == "pyramid-centred"
        chosen = [scores[task].centred if centred else scores[task].score for task in sizes]
        if bad := [task for task, value in zip(sizes, chosen, strict=True) if not math.isfinite(value)]:
            raise ValueError(
                f"scores: got a score that is no number for {', '.join(bad)}; finite cosines are accepted; look for "
                "NaN in the prober's vectors"
            )
        weighted = softmax_probabilities(chosen, sigma) * [self.priors.get(task, 1.0) for task in sizes]
        return weighted / weighted.sum()
