"""Correlations over models: Pearson, and Spearman as Pearson of ranks with ties at their mean.

Shapes: M models.
"""

from collections.abc import Mapping, Sequence

import numpy as np

STATISTICS = ("spearman", "pearson")
_FEWEST = 3


def correlation(first: Sequence[float], second: Sequence[float], statistic: str = "spearman") -> float | None:
    """How two columns of scores go together.

    Args:
        first: (M,) numbers.
        second: (M,) numbers of the same models.
        statistic: "spearman" or "pearson".

    Returns:
        A number in -1..1; None with fewer than three models, or when a column is constant.

    Raises:
        ValueError: For columns of different lengths or another statistic.
    """
    if len(first) != len(second):
        raise ValueError(f"second: {len(second)} values; the first has {len(first)}; give one a model to both")
    if statistic not in STATISTICS:
        raise ValueError(f"statistic: {statistic!r}; {' and '.join(STATISTICS)} are accepted; choose one")
    if len(first) < _FEWEST:
        return None
    columns = [np.asarray(column, dtype=np.float64) for column in (first, second)]
    if statistic == "spearman":
        columns = [mean_ranks(column) for column in columns]
    centred = [column - column.mean() for column in columns]
    lengths = [float(np.sqrt(column @ column)) for column in centred]
    if min(lengths) <= 1e-12 * max(1.0, *(float(np.abs(column).max()) for column in columns)):
        return None
    return float(np.clip(centred[0] @ centred[1] / (lengths[0] * lengths[1]), -1, 1))


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ascending; equal values share the mean of their places.

    Args:
        values: (M,) numbers.

    Returns:
        (M,) float64.
    """
    _, which, number = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(number) - (number - 1) / 2)[which]


def correlate(
    scores: Mapping[str, Mapping[str, float | None]], first: str, second: str, statistic: str = "spearman"
) -> float | None:
    """How two abilities or sets go together over the models that have both.

    Args:
        scores: Value by name, by model.
        first: A name.
        second: A name.
        statistic: "spearman" or "pearson".

    Returns:
        As for `correlation`.
    """
    pairs = [(row.get(first), row.get(second)) for row in scores.values()]
    complete = [(one, other) for one, other in pairs if one is not None and other is not None]
    return correlation([one for one, _ in complete], [other for _, other in complete], statistic)


def correlation_matrix(
    scores: Mapping[str, Mapping[str, float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    statistic: str = "spearman",
) -> dict[str, dict[str, float | None]]:
    """Every row's name against every column's.

    Args:
        scores: Value by name, by model.
        rows: Names.
        columns: Names.
        statistic: "spearman" or "pearson".

    Returns:
        Correlation by column, by row; None as for `correlation`.
    """
    return {row: {column: correlate(scores, row, column, statistic) for column in columns} for row in rows}
