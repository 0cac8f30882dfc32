"""How sure a mean over queries is: bootstrap over the queries (Efron 1979), many replicates at a time.

Shapes: Q queries, R replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .ranking import as_array

_CELLS = 1 << 20  # resampled values held at once, 8 MB


@dataclass(frozen=True)
class Difference:
    """Two runs compared query by query.

    Attributes:
        value: Mean of the second run less mean of the first.
        low: Lower end of its confidence interval.
        high: Upper end.
        p_value: How often resampling a difference of zero gives one at least as large, either way.
    """

    value: float
    low: float
    high: float
    p_value: float


def replicates(
    scores: Sequence[float] | np.ndarray,
    *,
    samples: int = 2000,
    seed: int | Sequence[int] = 0,
    statistic: str = "mean",
) -> np.ndarray:
    """The statistic of many resamplings of the queries.

    Args:
        scores: (Q,) one value a query.
        samples: R, how many resamplings.
        seed: Of the random numbers; give scores of different sets different seeds, such as (0, 1) and (0, 2).
        statistic: "mean" or "median".

    Returns:
        (R,) float64.

    Raises:
        ValueError: Without scores, for nan, fewer than one sample or another statistic.
    """
    values = as_array(scores).astype(np.float64, copy=False)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError(f"scores: shape {values.shape}; (queries,) numbers are accepted, at least one, none nan")
    if samples < 1:
        raise ValueError(
            f"samples: {samples}; 1 or more is accepted; 2000 gives intervals to about a tenth of a width"
        )
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic: {statistic!r:.200}; 'mean' and 'median' are accepted; choose one")
    reduce = np.mean if statistic == "mean" else np.median
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // len(values))
    drawn = np.empty(samples)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn[start : start + rows] = reduce(values[generator.integers(len(values), size=(rows, len(values)))], axis=1)
    return drawn


def interval(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of replicates.

    Args:
        drawn: (R,) what `replicates` gave, or a weighted sum of such rows.
        level: Share of the replicates inside, between 0 and 1.

    Returns:
        Its lower and upper end.

    Raises:
        ValueError: For another level.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: {level}; a share between 0 and 1 is accepted; 0.95 is usual")
    # No interpolation: a replicate may be infinite, the rank of what was never ranked.
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


def bootstrap_interval(
    scores: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int | Sequence[int] = 0,
    statistic: str = "mean",
) -> tuple[float, float]:
    """Confidence interval of the mean or median over queries.

    Args:
        scores: (Q,) one value a query.
        level: As for `interval`.
        samples: As for `replicates`.
        seed: As for `replicates`.
        statistic: As for `replicates`.

    Returns:
        Its lower and upper end; the same for the same arguments.
    """
    return interval(replicates(scores, samples=samples, seed=seed, statistic=statistic), level)


def paired_bootstrap(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int | Sequence[int] = 0,
) -> Difference:
    """Compare two runs on the same queries.

    Args:
        first: (Q,) one value a query.
        second: (Q,) values of the same queries in the same order.
        level: As for `interval`.
        samples: As for `replicates`.
        seed: As for `replicates`.

    Returns:
        The difference of the means, its interval and the probability of such a difference by chance.

    Raises:
        ValueError: When the two have different lengths.
    """
    before, after = (as_array(scores).astype(np.float64, copy=False) for scores in (first, second))
    if before.shape != after.shape:
        raise ValueError(
            f"second: shape {after.shape}; the first run has {before.shape}; give both runs the same queries"
        )
    differences = after - before
    drawn = replicates(differences, samples=samples, seed=seed)
    value = float(differences.mean())
    slack = 1e-12 * float(np.abs(differences).max())  # sums in another order
    extreme = np.count_nonzero(np.abs(drawn - value) >= abs(value) - slack)
    return Difference(value, *interval(drawn, level), (extreme + 1) / (samples + 1))
