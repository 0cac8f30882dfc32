"""The Modality Pyramid: from what was measured to the draw of an epoch (paper, section 3.3).

The arithmetic stands in `probabilities`, the schedules in `weights`, the records in `history`. Shapes: K tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gve.trainers.curriculum.history import CurriculumEpoch, CurriculumHistory, TaskScores
from gve.trainers.curriculum.probabilities import bound_probabilities, sigma_at, softmax_probabilities
from gve.trainers.curriculum.weights import UNMEASURED, WEIGHTS, Moment, check_scores, uniform

__all__ = [
    "SCHEDULES",
    "CurriculumEpoch",
    "CurriculumHistory",
    "Schedule",
    "TaskScores",
    "bound_probabilities",
    "sigma_at",
    "softmax_probabilities",
]

SCHEDULES = tuple(WEIGHTS)
"""How tasks are drawn; see `gve.trainers.curriculum.weights`."""


@dataclass(frozen=True)
class Schedule:
    """From scores, sizes and history to the probabilities of an epoch (section 3.3).

    Args:
        name: One of `SCHEDULES`.
        num_epochs: Epochs of the run.
        sigma_min: sigma of the first epoch.
        sigma_max: sigma of the last epoch.
        cap: Highest probability of a task.
        floor: Lowest probability of a task.
        priors: w_k by task, for P_t(k) proportional to w_k times the schedule's weight; 1 where a task is not named.
        starts: By task the share of the epochs that passes before it is drawn; from the first one where not named.
        unlock_margin: By how much R' or accuracy must move to unlock a task; only for `unlock`.

    Raises:
        ValueError: Where `unlock` has no floor.
    """

    name: str = "pyramid"
    num_epochs: int = 3
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    cap: float = 1.0
    floor: float = 0.0
    priors: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    unlock_margin: float = 0.05

    def __post_init__(self) -> None:
        if self.name == "unlock" and self.floor <= 0:
            raise ValueError(
                f"probability_floor: got {self.floor:g} with the schedule unlock; more than 0 is accepted there, since a "
                "task that is never drawn cannot begin to move; set it to 0.02 or so"
            )

    @property
    def needs_scores(self) -> bool:
        """Whether the probabilities depend on a prober."""
        return self.name not in UNMEASURED

    @property
    def needs_baseline(self) -> bool:
        """Whether the untrained model must be measured too, for later epochs to tell what has moved."""
        return self.name == "unlock"

    def epoch(
        self,
        epoch: int,
        sizes: Mapping[str, int],
        scores: Mapping[str, TaskScores],
        history: CurriculumHistory | None = None,
    ) -> CurriculumEpoch:
        """The draw of one epoch.

        Args:
            epoch: Counted from 0.
            sizes: Rows by task; its order is the order of the tasks.
            scores: By task; empty where there is no prober yet, which makes the epoch uniform but for the priors.
            history: Of the epochs so far; later ones in it are not looked at. None where there are none.

        Returns:
            The record of the epoch.

        Raises:
            ValueError: Where a task lacks a score.
        """
        sigma = sigma_at(epoch, self.num_epochs, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        begun = {task: size for task, size in sizes.items() if self.starts.get(task, 0.0) * self.num_epochs <= epoch}
        if not begun:
            raise ValueError(f"starts: no task has begun in epoch {epoch + 1}; let at least one start at 0")
        past = {} if history is None else history.epochs
        earlier = [past[number].scores for number in sorted(past) if number < epoch and past[number].scores]
        weights = self._weights(Moment(sigma, begun, scores, earlier, self.unlock_margin))
        bounded = bound_probabilities(weights, cap=self.cap, floor=self.floor)
        drawn = dict.fromkeys(sizes, 0.0) | dict(zip(begun, bounded.tolist(), strict=True))
        return CurriculumEpoch(sigma, drawn, dict(scores))

    def _weights(self, moment: Moment) -> np.ndarray:
        weigh = WEIGHTS[self.name]
        if self.needs_scores and not moment.scores:
            weigh = uniform
        elif self.needs_scores:
            check_scores(moment)
        weighted = weigh(moment) * [self.priors.get(task, 1.0) for task in moment.sizes]
        if not weighted.sum() > 0:
            raise ValueError(
                f"task_priors: got 0 for {', '.join(moment.sizes)}, all tasks that have begun; give one of them more than 0"
            )
        return weighted / weighted.sum()
