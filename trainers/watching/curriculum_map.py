"""Heat maps of a curriculum: R', accuracy and P by task and epoch (paper, section 3.3).

Shapes: K tasks, E epochs.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gve.eval.charts import new_figure
from gve.eval.heatmaps import draw_cells
from gve.hub_datasets.schema import TASKS, task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Epochs = Sequence[Mapping[str, Any]]
"""An entry for each epoch with numbers such as `P/t2v`, as in `CurriculumEpoch.logs`."""
PANELS = {"R_centred": "R'", "accuracy": "accuracy", "P": "P, %"}
MOST_NUMBERS = 12
"""More epochs than this have cells too narrow for numbers."""
DOUBLINGS = 2.0
"""P has its strongest colours at an equal share times or divided by 2 to this."""
COLUMNS = 3
"""Curricula side by side; more go below."""
LEGEND = (
    "R' (R minus its mean over negatives) and accuracy of the probe: 0 white, 1 dark blue\n"
    "P, share of steps: an equal share white, more red (darkest from 4 times on), less blue"
)


def draw_curricula(curricula: Mapping[str, Epochs]) -> "Figure":
    """Draw three panels of K rows for each curriculum by name; panels of what was never probed are left out."""
    longest = max(map(len, curricula.values()))
    names = {name for epochs in curricula.values() for entry in epochs for name in entry}
    tasks = sorted((name[2:] for name in names if name.startswith("P/")), key=_place)
    numbers = len(curricula) == 1 and longest <= MOST_NUMBERS
    columns = min(COLUMNS, len(curricula))
    lines = -(-len(curricula) // columns)
    width = 1.6 + len(PANELS) * (0.3 + longest * 0.42 if numbers else min(4.0, 0.5 + longest * 0.18))
    figure = new_figure(max(7.5, width * columns), (1 + 0.23 * len(tasks)) * lines + 0.3)
    parts = figure.subfigures(lines, columns, squeeze=False).flat
    for part, (name, epochs) in zip(parts, curricula.items(), strict=False):
        part.suptitle(name)
        _draw_one(part, epochs, tasks, numbers=numbers)
    figure.supxlabel(LEGEND, fontsize=9)
    return figure


def _draw_one(part: Any, epochs: Epochs, tasks: Sequence[str], *, numbers: bool) -> None:
    grids = {name: [[epoch.get(f"{name}/{task}") for epoch in epochs] for task in tasks] for name in PANELS}
    known = {name: grid for name, grid in grids.items() if any(cell is not None for row in grid for cell in row)}
    labels = [str(number) if numbers or number % 5 == 0 or number == 1 else "" for number in range(1, len(epochs) + 1)]
    for axes, (name, grid) in zip(
        part.subplots(1, len(known), squeeze=False, sharey=True)[0], known.items(), strict=True
    ):
        values = np.array(grid, dtype=float)  # (K, E), NaN where nothing was probed
        style: dict[str, Any] = {"shades": np.clip(values, 0, 1), "low": 0, "digits": 2 if numbers else None}
        if name == "P":
            grid = [[None if cell is None else 100 * cell for cell in row] for row in grid]
            shades = np.log2(np.maximum(values, 1e-9) * len(tasks)) / DOUBLINGS
            style = {"shades": np.clip(shades, -1, 1), "digits": 1 if numbers else None}
        draw_cells(axes, grid, tasks, labels, **style)
        axes.set_title(PANELS[name], fontsize=10)
        axes.set_xlabel("epoch")
        for row, (one, other) in enumerate(pairwise(tasks)):
            if task_of(one) != task_of(other):
                axes.axhline(row + 0.5, color="black", linewidth=1)


def _place(source: str) -> tuple[int, str]:
    """Sources of a task by name, tasks in the order of `TASKS`, what belongs to none last."""
    task = task_of(source)
    return TASKS.index(task) if task in TASKS else len(TASKS), source
