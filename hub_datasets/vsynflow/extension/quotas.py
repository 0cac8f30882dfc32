"""How many rows of each task UVRD holds (paper, Table 7), and how many to take from a corpus."""

from collections.abc import Mapping

from gve.hub_datasets.schema import TASKS

QUOTAS = {
    "t2t": 100_000,
    "t2i": 210_000,
    "t2v": 879_000,
    "ti2v": 89_000,
    "tv2v": 35_000,
    "i2v": 200_000,
    "v2v": 36_000,
}
"""Rows by task; only their proportions matter to a smaller set."""
NEGATIVES = {"t2t": 0, "t2i": 0, "t2v": 1, "ti2v": 1, "tv2v": 1, "i2v": 0, "v2v": 0}
"""Explicit hard negatives of a row by task."""


def allot(
    available: Mapping[str, int], *, quotas: Mapping[str, int] | None = None, total: int | None = None
) -> dict[str, int]:
    """Rows to take of each task: the largest set in proportion that the task with the largest quota can fill.

    Args:
        available: Possible rows by task; a task with fewer than its share gives what it has.
        quotas: Proportions by task; None for the paper's. A missing task gets no row.
        total: Rows in all, before tasks that fall short; None for as many as possible.
    """
    wanted = QUOTAS if quotas is None else quotas
    unknown = sorted({*wanted, *available} - set(TASKS))
    if unknown:
        raise ValueError(f"quotas: tasks must be among {', '.join(TASKS)}, got task {unknown[0]!r}.")
    if min(wanted.values(), default=0) < 0 or not any(wanted.values()):
        raise ValueError(f"quotas must be numbers from 0 with one above it, got {dict(wanted)}.")
    leading = max(wanted, key=lambda task: (wanted[task] if available.get(task, 0) else 0, wanted[task]))
    scale = available.get(leading, 0) / wanted[leading]
    if total is not None:
        scale = min(scale, total / sum(wanted.values())) if total >= 0 else 0.0
    return {task: min(available.get(task, 0), round(wanted.get(task, 0) * scale)) for task in TASKS}
