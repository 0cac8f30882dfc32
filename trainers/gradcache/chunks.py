"""Which rows run together: pieces of a batch that a budget of tokens holds, with little padding.

Shapes: N rows or media, whatever column of the batch they come from.
"""

from collections.abc import Sequence

import numpy as np

MOST_PADDING = 0.1
"""Share of padding that no piece goes above."""


def chunk_rows(lengths: Sequence[int], *, limit: int, extra: int) -> list[np.ndarray]:
    """The cheapest partition into pieces of at most `limit` tokens, padding included.

    A piece costs its rows times its longest row, plus `extra`. Sorted by length the best pieces are runs, so that the
    exact optimum takes N steps. A row longer than the limit is a piece of its own.

    Args:
        lengths: (N,), tokens of each row, all above 0.
        limit: Tokens of a piece at most.
        extra: What one more piece costs beside its tokens, in tokens.

    Returns:
        The rows of each piece, shortest rows first.
    """
    order = np.argsort(lengths, kind="stable")
    longest = np.asarray(lengths, np.int64)[order]
    tokens = np.concatenate([[0], longest.cumsum()])
    cost = np.zeros(len(order) + 1, np.int64)  # of the first j rows
    start = np.zeros(len(order) + 1, np.int64)  # of the last piece among them
    for j in range(1, len(order) + 1):
        padded = (j - np.arange(j)) * longest[j - 1]  # of a last piece that starts at each i < j
        fits = (padded <= limit) & (padded * (1 - MOST_PADDING) <= tokens[j] - tokens[:j])
        fits[j - 1] = True
        costs = np.where(fits, cost[:j] + padded + extra, np.iinfo(np.int64).max)
        start[j] = costs.argmin()
        cost[j] = costs[start[j]]
    pieces, end = [], len(order)
    while end:
        pieces.append(order[start[end] : end])
        end = int(start[end])
    return pieces[::-1]


def chunk_media(costs: Sequence[float], *, limit: float) -> list[list[int]]:
    """Runs of media whose costs stay within a limit; nothing is padded in the vision tower.

    Args:
        costs: (N,), of each medium.
        limit: Of a run; a medium above it is a run of its own.

    Returns:
        The media of each run, in order.
    """
    runs: list[list[int]] = []
    total = 0.0
    for number, cost in enumerate(costs):
        if not runs or total + cost > limit:
            runs.append([])
            total = 0.0
        runs[-1].append(number)
        total += cost
    return runs
