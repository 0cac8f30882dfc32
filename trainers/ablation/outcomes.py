"""What a study has found: its runs by arm and seed, and paired differences between arms.

Shapes: S seeds.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import permutation_test
from scipy.stats import t as student

from gve.hub_datasets.files import read_json
from gve.trainers.ablation.arms import ARMS, BASELINE, BY_NAME

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Results by arm and seed."""
MEASURED = ("oracle", "transfer", "scaling")
"""What a study may have measured beside its runs, each a file in its folder."""
FLIPS = 1 << 14
"""Sign flips of the permutation test: all there are for up to 14 seeds, else so many drawn at random."""


class Outcome(NamedTuple):
    """What a study has found so far, on one world."""

    runs: Runs
    settings: Mapping[str, Any]
    start: Mapping[str, Any]  # scores of the pre-trained model, in the form of a run
    told_right: Mapping[str, float]  # its share of right answers by attribute
    measured: Mapping[str, Any]  # what there is of MEASURED

    @property
    def world(self) -> str:
        """The name of its world."""
        return str(self.settings.get("world", "default"))

    @property
    def compares(self) -> bool:
        """Whether it compares any arms."""
        return any(common_seeds(self.runs, arm.name) > 1 for arm in ARMS)


class Difference(NamedTuple):
    """Mean difference of an arm from its baseline over S common seeds, with its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int
    chance: float  # p of the two-sided permutation test, which flips the signs of the differences

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Student's interval of the mean of (S,) values minus a (S,) baseline, both in the same order of seeds."""
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(
            f"values must be of two or more seeds that the baseline has too, got {len(values)} against "
            f"{len(baseline)}. Run the missing seeds."
        )
    differences = np.subtract(values, baseline, dtype=np.float64)
    mean, count = float(differences.mean()), len(differences)
    half = float(student.ppf(0.975, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    flips = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=FLIPS, rng=0)
    return Difference(mean, mean - half, mean + half, count, float(flips.pvalue))


def value(run: Mapping[str, Any], name: str) -> float:
    """One number of a run: "AVG-D", "AVG-A", an ability, or a set's in-group accuracy as "CRB-S in group"."""
    if name.endswith(" in group"):
        return float(run["sets"][name.removesuffix(" in group")]["in_group"]["score"])
    return float(run["averages" if name.startswith("AVG") else "abilities"][name]["score"])


def difference(runs: Runs, arm: str, name: str) -> Difference:
    """A number of an arm minus the same number of the arm it is compared with, on their common seeds."""
    return paired_difference(*paired(runs, arm, name))


def paired(runs: Runs, arm: str, name: str) -> tuple[list[float], list[float]]:
    """(S,) numbers of an arm and (S,) of the arm it is compared with, by common seeds."""
    other = runs[BY_NAME[arm].against]
    seeds = sorted(set(runs[arm]) & set(other))
    return [value(runs[arm][seed], name) for seed in seeds], [value(other[seed], name) for seed in seeds]


def read_outcome(root: Path) -> Outcome:
    """What a study's folder holds, with the runs of earlier calls, by arm in the order of `ARMS` and by seed."""
    if not (root / "start.json").is_file():
        raise ValueError(f"{str(root)!r} holds no study with scores. Name the --out of an earlier `gve ablate`.")
    runs = sorted(map(read_json, (root / "runs").glob("*.json")), key=lambda run: run["seed"])
    by_arm = {arm.name: {run["seed"]: run for run in runs if run["arm"] == arm.name} for arm in ARMS}
    kept = {name: of_arm for name, of_arm in by_arm.items() if of_arm}
    measured = {name: read_json(path) for name in MEASURED if (path := root / f"{name}.json").is_file()}
    return Outcome(kept, *(read_json(root / f"{name}.json") for name in ("study", "start", "told_right")), measured)


def common_seeds(runs: Runs, arm: str) -> int:
    """How many seeds an arm can be compared on; 0 for the arm that others are compared with."""
    if arm == BASELINE or arm not in runs:
        return 0
    return len(set(runs[arm]) & set(runs.get(BY_NAME[arm].against, ())))
