"""Schedules that look at what is learnt and what is still wrong, instead of at how alike two modalities are.

Each is pure arithmetic on a `Moment`, from the mean reciprocal rank of each task's probe (MRR, 0 to 1); none keeps a state
besides the history. Shapes: K tasks, T measured epochs before.
"""

import numpy as np

from gve.hub_datasets.uvrb.tasks import SETS
from gve.trainers.curriculum.weights import Moment, Weigh, softmax_probabilities

TWINS = "-twins"
"""Suffix of a source whose rows come as groups of near-identical targets."""
_RATE, _FORGET = 1.0, 0.7
"""Step of the exponentiated gradients, and the share of an epoch's evidence that the next one keeps."""
_UNMOVED, _MEANS, _SMALL = 0.5, 0.25, 0.02
"""Of `pyramid_plus`: weight of what has not moved, weight of what is no goal, and headroom of what is learnt."""
_KIND_ABILITY = {task.text_kind: task.abilities[-1] for task in SETS.values() if task.text_kind}
_TASK_ABILITY = {"ti2v": "CMP", "tv2v": "CMP", "i2v": "VIS", "v2v": "VIS"}


def ability_of(source: str) -> str:
    """The narrowest ability that a source trains, by its name: "S" for t2v-spatial-twins; else its own task."""
    task, _, kind = source.removesuffix(TWINS).partition("-")
    return _KIND_ABILITY.get(kind) or _TASK_ABILITY.get(task, task)


def is_goal(source: str) -> bool:
    """Whether a source finds videos, as every set of the benchmark does; texts and pictures are found on the way."""
    return _task(source).endswith("2v")


def learning_progress(moment: Moment) -> np.ndarray:
    """The absolute change of a task's MRR from epoch to epoch, an average that forgets; without two epochs all alike."""
    changes = np.abs(np.diff(_scores(moment), axis=0))  # (T, K)
    return _discounted(changes) + 1e-3


def bandit(moment: Moment) -> np.ndarray:
    """EXP3.S with the tasks as arms and a task's own gain of MRR as its reward.

    The reward is scaled to [-1, 1] by the 20th and 80th percentile of all gains (Graves et al., 2017) and forgotten over
    time. Each epoch draws every task, so no reward is missing and none needs the weight of importance.
    """
    gains = np.diff(_scores(moment), axis=0)  # (T, K)
    if not len(gains):
        return np.ones(len(moment.sizes))
    low, high = np.quantile(gains, [0.2, 0.8])
    rewards = np.clip(2 * (gains - low) / max(high - low, 1e-9) - 1, -1, 1)
    return softmax_probabilities(_discounted(rewards), 1 / _RATE)


def regret(moment: Moment) -> np.ndarray:
    """Group DRO over abilities: exponentiated gradient of each ability's 1 - MRR, its weight shared by its tasks."""
    names = [ability_of(task) for task in moment.sizes]
    groups = sorted(set(names))
    members = np.array([[name == group for name in names] for group in groups], dtype=np.float64)  # (G, K)
    members /= members.sum(1, keepdims=True)
    losses = (1 - _scores(moment)) @ members.T  # (T + 1, G)
    return softmax_probabilities(_discounted(losses) / (1 - _FORGET), 1 / _RATE) @ members


def difficulty(moment: Moment) -> np.ndarray:
    """All alike, but near-identical groups by the accuracy of the plain rows of their kind: easy first."""
    scores = moment.scores
    plain = [task.removesuffix(TWINS) for task in moment.sizes]
    return np.array(
        [
            scores[easy].accuracy ** 2 if easy != task and easy in scores else 1.0
            for task, easy in zip(moment.sizes, plain, strict=True)
        ]
    )


def dependency(moment: Moment) -> np.ndarray:
    """What steps of a source's task give: the share of headroom that they close, times what is left, over all goals.

    The shares are those of `Moment.transfer`, measured once (`gve ablate --transfer`). A source counts its own headroom for
    its own task. So texts and pictures are drawn as long as finding videos gains by them.
    """
    left = dict(zip(moment.sizes, 1 - _scores(moment)[-1], strict=True))
    goals: dict[str, list[float]] = {}
    for source in filter(is_goal, left):
        goals.setdefault(_task(source), []).append(left[source])
    weights = []
    for source in moment.sizes:
        gives = moment.transfer.get(_task(source), {})
        others = [max(gives.get(task, 0.0), 0.0) * np.mean(of) for task, of in goals.items() if task != _task(source)]
        own = max(gives.get(_task(source), 0.0), 0.0) * left[source] if is_goal(source) else 0.0
        weights.append(float(sum(others)) + own + 1e-3)
    return np.array(weights)


def pyramid_plus(moment: Moment) -> np.ndarray:
    """What is still wrong, of what moves, for what is asked: headroom x (.5 + movement) x goal.

    Movement is the range of a source's MRR so far, as a share of its headroom at the lowest: what is being learnt and what is
    being forgotten both move, and what cannot be learnt does not. Sources that find no videos count a quarter.
    """
    scores = _scores(moment)  # (T + 1, K)
    moved = (scores.max(0) - scores.min(0)) / (1 + _SMALL - scores.min(0))
    goals = [1.0 if is_goal(source) else _MEANS for source in moment.sizes]
    return (1 + _SMALL - scores[-1]) * (_UNMOVED + moved) * goals


def _task(source: str) -> str:
    return source.partition("-")[0]


def _scores(moment: Moment) -> np.ndarray:
    """(T + 1, K) MRR of each measured epoch, now last; a task that was not measured then has its first score."""
    epochs = [*moment.earlier, moment.scores]
    first = {task: next(e[task] for e in epochs if task in e) for task in moment.sizes}
    return np.array([[(e.get(task) or first[task]).reciprocal for task in moment.sizes] for e in epochs])


def _discounted(values: np.ndarray) -> np.ndarray:
    """(K,) sum of (T, K) values, each epoch's share falling by _FORGET with age, scaled so that a constant stays itself."""
    ages = _FORGET ** np.arange(len(values))[::-1]
    return (ages @ values) * (1 - _FORGET)


ADAPTIVE: dict[str, Weigh] = {
    "learning-progress": learning_progress,
    "bandit": bandit,
    "regret": regret,
    "difficulty": difficulty,
    "dependency": dependency,
    "pyramid-plus": pyramid_plus,
}
"""The schedules by name."""
