"""Uncertainty of a mean over queries: bootstrap over the queries (Efron 1979), many replicates at a time.

Shapes: Q queries, R replicates.
"""

from collections.abc import Sequence

import numpy as np

from .ranking import as_array

_CELLS = 1 << 20  # resampled values held at once, 8 MB


def replicates(
    scores: Sequence[float] | np.ndarray,
    *,
    samples: int = 2000,
    seed: int | Sequence[int] = 0,
    statistic: str = "mean",
) -> np.ndarray:
    """The statistic of R resamplings of the queries, as (R,) float64.

    Args:
        scores: (Q,) one value a query.
        samples: R.
        seed: Give scores of different sets different seeds, such as (0, 1) and (0, 2).
        statistic: "mean" or "median".

    Raises:
        ValueError: Without scores, for nan, fewer than one sample or another statistic.
    """
    values = as_array(scores).astype(np.float64, copy=False)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError(f"scores: shape {values.shape}; must be (queries,) numbers, at least one, none nan")
    if samples < 1:
        raise ValueError(
            f"samples: {samples}; must be at least 1. 2000 gives intervals to about a tenth of their width."
        )
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic: {statistic!r:.200}; must be 'mean' or 'median'")
    reduce = np.mean if statistic == "mean" else np.median
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // len(values))
    drawn = np.empty(samples)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn[start : start + rows] = reduce(values[generator.integers(len(values), size=(rows, len(values)))], axis=1)
    return drawn


def interval(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of the percentile interval of replicates (R,); `level` is the share of them inside."""
    if not 0 < level < 1:
        raise ValueError(f"level: {level}; must be a share between 0 and 1, usually 0.95")
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
    """Lower and upper end of the confidence interval of the mean or median over (Q,) queries; see `replicates`."""
    return interval(replicates(scores, samples=samples, seed=seed, statistic=statistic), level)
