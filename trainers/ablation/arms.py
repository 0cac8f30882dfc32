"""What is compared: data, schedule, amount of data and pre-training, one arm each (paper, Table 3, Figure 6)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gve.hub_datasets.schema import COUNTERFACTUALS, task_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

COLLECTED = "t2v-collected"
"""The source of videos with the weak, partly wrong titles of their uploaders."""
BASELINE, SCRATCH, ORACLE = "uniform", "scratch", "oracle"
CAP, FLOOR = 4.0, 0.25
"""Bounds on P in units of 1 / K, for the schedules that have them."""
FAVOURED = {
    "t2i-twins": 2.0,
    "t2t-twins": 2.0,
    "t2v-spatial-twins": 2.0,
    "t2v-temporal-twins": 2.0,
    "t2v-event-twins": 2.0,
    "t2v-camera-twins": 2.0,
    "t2v-theme": 0.5,
    "ti2v": 2.0,
    "tv2v": 2.0,
}
"""w_k of the sources in the arm `favoured`."""


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str  # short, also a file's name
    description: str
    schedule: str = "uniform"  # one of `gve.trainers.curriculum.schedule.SCHEDULES`
    collected_only: bool = False  # whether to leave the synthesized pairs out
    share: float = 1.0  # share of the training rows
    steps: float = 1.0  # steps as a multiple of the study's
    pretrained: bool = True  # whether to begin with the pre-trained model
    bounded: bool = True  # whether P has a cap and a floor; the paper's has none
    priors: Mapping[str, float] = field(default_factory=dict)  # w_k by source, 1 for those not named
    only: str | None = None  # the one task whose sources are drawn; the others are only probed
    counterfactual: bool = False  # whether to add the sources of counterfactual pairs
    needs: str | None = None  # the flag of `gve ablate` that makes a file of this name, without which it cannot run
    against: str = BASELINE  # the arm to compare with, the same but for one thing


ARMS = (
    Arm("collected", "GVE-i: collected videos with weak titles only", collected_only=True),
    Arm(BASELINE, "GVE-s: all pairs, every source as often"),
    Arm("proportional", "all pairs, every source by its rows", schedule="proportional"),
    Arm("pyramid", "GVE: the paper's schedule on raw R", schedule="pyramid", bounded=False),
    Arm("pyramid-centred", "the schedule on R', with bounds", schedule="pyramid-centred"),
    Arm("pyramid-accuracy", "the schedule on in-batch accuracy, with bounds", schedule="pyramid-accuracy"),
    Arm("unlock", "a source is drawn more once its R' or accuracy has moved", schedule="unlock"),
    Arm("learning-progress", "by the change of each source's reciprocal rank", schedule="learning-progress"),
    Arm("bandit", "EXP3.S on each source's gain of reciprocal rank", schedule="bandit"),
    Arm("regret", "group DRO over abilities", schedule="regret"),
    Arm("difficulty", "near-identical groups as their plain rows are learnt", schedule="difficulty"),
    Arm("dependency", "by what a step of a task gives all tasks (transfer matrix)", "dependency", needs="transfer"),
    Arm("counterfactual", "uniform, with counterfactual pairs added", counterfactual=True),
    Arm("pyramid-plus", "the best combination, chosen on the default world", schedule="pyramid-plus"),
    Arm(ORACLE, "the best fixed priors found on the test itself", needs="oracle"),
    Arm("data-30", "uniform on 30 % of the rows", share=0.3),
    Arm("data-10", "uniform on 10 % of the rows", share=0.1),
    Arm("favoured", "uniform, but near-identical groups and composed queries twice as often", priors=FAVOURED),
    Arm(SCRATCH, "uniform without pre-training, twice the steps", pretrained=False, steps=2),
    Arm(
        "scratch-pyramid",
        "the paper's schedule without pre-training",
        schedule="pyramid",
        bounded=False,
        pretrained=False,
        steps=2,
        against=SCRATCH,
    ),
    Arm(
        "scratch-centred",
        "the schedule on R', with bounds, without pre-training",
        schedule="pyramid-centred",
        pretrained=False,
        steps=2,
        against=SCRATCH,
    ),
)
BY_NAME = {arm.name: arm for arm in ARMS}


def chosen(names: list[str] | None) -> tuple[Arm, ...]:
    """The arms to run (for None all that need nothing first), and the arms to compare them with."""
    if names is None:
        return tuple(arm for arm in ARMS if arm.needs is None)
    if unknown := [name for name in names if name not in BY_NAME]:
        raise ValueError(f"--arms: got {', '.join(unknown)}; they must be of {', '.join(BY_NAME)}. Correct the name.")
    wanted = {*names, BASELINE, *(BY_NAME[name].against for name in names)}
    return tuple(arm for arm in ARMS if arm.name in wanted)


def priors_of(arm: Arm, sources: Iterable[str]) -> dict[str, float]:
    """w_k of the sources that an arm has; 0 for those that it does not draw."""
    if arm.only is None:
        return {name: arm.priors[name] for name in sources if name in arm.priors}
    return {name: float(task_of(name) == arm.only and name != COLLECTED) for name in sources}


def sources_of(arm: Arm, sources: Mapping[str, "Dataset"], *, seed: int) -> "DatasetDict":
    """The training rows of an arm, from all rows by source; a smaller share keeps whole groups, drawn by the seed."""
    from datasets import DatasetDict  # a second to import, and `gve ablate --help` names the arms

    left_out = set() if arm.counterfactual else set(COUNTERFACTUALS)
    kept = {name: rows for name, rows in sources.items() if name not in left_out}
    kept = {COLLECTED: kept[COLLECTED]} if arm.collected_only else kept
    if arm.share == 1:
        return DatasetDict(kept)
    return DatasetDict({name: _fewer(rows, arm.share, seed) for name, rows in kept.items()})


def _fewer(rows: "Dataset", share: float, seed: int) -> "Dataset":
    units: dict[str, list[int]] = {}
    for place, (row, group) in enumerate(zip(rows["id"], rows["group"], strict=True)):
        units.setdefault(group or row, []).append(place)
    pieces = list(units.values())
    order = np.random.default_rng([seed, 11]).permutation(len(pieces))
    count, picked = max(8, int(len(rows) * share)), []
    for index in order:
        if len(picked) >= count:
            break
        picked += pieces[index]
    return rows.select(sorted(picked))
