"""How each schedule weighs the tasks of an epoch, from what the probes have measured so far (paper, section 3.3).

Every schedule is pure arithmetic on a `Moment`. Shapes: K tasks, N probe pairs of a task.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gve.hub_datasets.schema import task_of


@dataclass(frozen=True)
class TaskScores:
    """What a prober measures on one task."""

    score: float  # R, the mean cosine of N positive pairs (section 3.3)
    centred: float
    accuracy: float  # share of the N queries whose target is nearer than the other N - 1
    reciprocal: float = 0.0  # mean of 1 / rank of a query's target among all probed targets of its kind


@dataclass(frozen=True)
class Moment:
    """All that a schedule may use when an epoch begins; `earlier` has the measured epochs before, the oldest first."""

    sigma: float
    sizes: Mapping[str, int]  # rows by task, of the K tasks that have begun; their order is the order of the weights
    scores: Mapping[str, TaskScores]  # what the prober says now, by task; empty without a probe
    earlier: Sequence[Mapping[str, TaskScores]] = ()
    margin: float = 0.05  # by how much a score must have changed to count as moved
    transfer: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict
    )  # share that steps of a task close of another


Weigh = Callable[[Moment], np.ndarray]
"""A moment to (K,) weights of its tasks."""


def softmax_probabilities(scores: Sequence[float], sigma: float) -> np.ndarray:
    """(K,) P_t(k), proportional to exp(R_k / sigma) (section 3.3), fp64."""
    scaled = np.asarray(scores, dtype=np.float64) / sigma
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def uniform(moment: Moment) -> np.ndarray:
    """The same weight for all."""
    return np.full(len(moment.sizes), 1 / len(moment.sizes))


def proportional(moment: Moment) -> np.ndarray:
    """The number of rows of a task."""
    return np.array([float(size) for size in moment.sizes.values()])


def pyramid(moment: Moment) -> np.ndarray:
    """exp(R / sigma), the paper's."""
    return softmax_probabilities([moment.scores[task].score for task in moment.sizes], moment.sigma)


def pyramid_centred(moment: Moment) -> np.ndarray:
    """exp(R' / sigma): R without what two modalities share anyway."""
    return softmax_probabilities([moment.scores[task].centred for task in moment.sizes], moment.sigma)


def pyramid_accuracy(moment: Moment) -> np.ndarray:
    """exp(accuracy / sigma): the share of probe queries that find their target."""
    return softmax_probabilities([moment.scores[task].accuracy for task in moment.sizes], moment.sigma)


def unlock(moment: Moment) -> np.ndarray:
    """Progress plus headroom, |R'_t - R'_(t-1)| + 1 - accuracy, of the tasks that can be learned by now.

    A task is locked, with a weight of 0, until its own R' or accuracy, or that of a prerequisite, has moved by the
    margin since the first measurement. A task that is fully learned loses its weight again. If all weights are 0, all
    tasks are alike.
    """
    weights = [
        _progress(task, moment) + 1 - moment.scores[task].accuracy if _is_open(task, moment) else 0.0
        for task in moment.sizes
    ]
    return np.array(weights) if sum(weights) > 0 else uniform(moment)


WEIGHTS: dict[str, Weigh] = {
    "pyramid": pyramid,
    "pyramid-centred": pyramid_centred,
    "pyramid-accuracy": pyramid_accuracy,
    "unlock": unlock,
    "uniform": uniform,
    "proportional": proportional,
}
"""The schedules by name."""

UNMEASURED = ("uniform", "proportional")
"""Those that read no scores."""


def prerequisites(task: str, tasks: Sequence[str]) -> list[str]:
    """The tasks whose skill another one builds on.

    A source builds on those its name begins with (t2v-spatial on t2v), a composed query on the queries it is
    composed of, towards the same kind of target (ti2v on t2v and i2v).
    """
    query, target = sides(task)
    found = []
    for other in tasks:
        parts, kind = sides(other)
        if task.startswith(f"{other}-") or (other == task_of(other) and kind == target and parts < query):
            found.append(other)
    return found


def check_scores(moment: Moment) -> None:
    """Refuse tasks without finite scores."""
    if missing := sorted(set(moment.sizes) - set(moment.scores)):
        raise ValueError(
            f"scores: got none for {', '.join(missing)}; every task needs one; probe all tasks of the training set"
        )
    measured = {task: moment.scores[task] for task in moment.sizes}
    bad = [t for t, s in measured.items() if not all(map(math.isfinite, (s.score, s.centred, s.accuracy)))]
    if bad:
        raise ValueError(
            f"scores: got a score that is not finite for {', '.join(bad)}; finite cosines are accepted; look for "
            "NaN in the prober's vectors"
        )


def sides(task: str) -> tuple[frozenset[str], str]:
    """The modalities of the query, one letter each, and of the target."""
    query, _, target = task.partition("-")[0].partition("2")
    return frozenset(query), target


def _progress(task: str, moment: Moment) -> float:
    last = [scores[task] for scores in moment.earlier if task in scores][-1:]
    return abs(moment.scores[task].centred - last[0].centred) if last else 0.0


def _is_open(task: str, moment: Moment) -> bool:
    return any(_has_moved(name, moment) for name in (task, *prerequisites(task, list(moment.sizes))))


def _has_moved(task: str, moment: Moment) -> bool:
    first, *later = [scores[task] for scores in (*moment.earlier, moment.scores) if task in scores]
    return any(
        max(abs(now.centred - first.centred), abs(now.accuracy - first.accuracy)) >= moment.margin for now in later
    )
