"""Paired differences over seeds, with Student's intervals.

Shapes: S seeds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom (any table of the distribution).
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Difference(NamedTuple):
    """An arm minus the baseline on the same seeds.

    Attributes:
        mean: Of the S differences.
        low: Lower end of the 95 % interval of the mean.
        high: Its upper end.
        seeds: S.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def student_point(degrees: int) -> float:
    """The two-sided 95 % point of Student's t.

    Args:
        degrees: Of freedom, 1 or more; above 30 the normal one is taken, which is 4 % too small at most.
    """
    if degrees < 1:
        raise ValueError(f"degrees: got {degrees}; 1 or more is accepted; an interval takes at least two seeds")
    return _T95[degrees - 1] if degrees <= len(_T95) else 1.96


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """The mean difference over seeds.

    Args:
        values: (S,) of an arm.
        baseline: (S,) of the baseline, in the same order of seeds.

    Raises:
        ValueError: Where the seeds differ in number, or there are fewer than two.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(
            f"values: got {len(values)} against {len(baseline)}; two or more of the same seeds are accepted; run the "
            "missing seeds"
        )
    differences = np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    mean = float(differences.mean())
    half = student_point(len(differences) - 1) * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return Difference(mean, mean - half, mean + half, len(differences))
