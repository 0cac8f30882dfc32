"""Heat maps of correlations and scores, as PNG files."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.analysis import STATISTICS, ModelScores
from gve.eval.averages import AVERAGE_NAMES, round_half_up
from gve.eval.charts import new_figure, write_figure
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

_MISSING = "0.92"  # a light grey
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def draw_triangles(correlations: Mapping[str, Mapping[str, Any]], statistic: str, title: str, target: Path) -> None:
    """Correlations of the abilities, one triangle a population, as in the paper's Figure 7."""
    rows, columns = list(ABILITY_NAMES[1:]), list(ABILITY_NAMES[:-1])
    figure = new_figure(5.2 * len(correlations), 5.4)
    panels = figure.subplots(1, len(correlations), squeeze=False).ravel()
    hidden = np.triu(np.ones((len(rows), len(columns)), bool), 1)
    for axes, (population, entry) in zip(panels, correlations.items(), strict=True):
        matrix = entry[statistic]["abilities"]
        draw_cells(axes, [[matrix[row][column] for column in columns] for row in rows], rows, columns, hidden=hidden)
        axes.set_title(f"{_short(population)} ({len(entry['models'])} models)", fontsize=12)
        axes.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=14)
    write_figure(figure, target)


def draw_against_average(
    correlations: Mapping[str, Mapping[str, Any]], average: str, title: str, target: Path
) -> None:
    """Correlation of every set and ability with "AVG-D" or "AVG-A", by population and statistic."""
    rows = [*SETS, *ABILITY_NAMES]
    columns = [f"{_short(name, 12)}\n{statistic.title()}" for name in correlations for statistic in STATISTICS]
    cells = [
        [entry[statistic]["averages"][row][average] for entry in correlations.values() for statistic in STATISTICS]
        for row in rows
    ]
    figure = new_figure(2.6 + 0.95 * len(columns), 10)
    axes = figure.subplots()
    draw_cells(axes, cells, rows, columns)
    axes.axhline(len(SETS) - 0.5, color="black", linewidth=1.5)
    axes.set_title(title, fontsize=13, pad=10)
    write_figure(figure, target)


def draw_models(models: Sequence[ModelScores], rule: str, title: str, target: Path) -> None:
    """Scores of all models, yours last; comparable scores set each column's colour range."""
    columns = [*SETS, *ABILITY_NAMES, *AVERAGE_NAMES]
    values = [model.values(rule) for model in models]
    cells = [[row[name] for name in columns] for row in values]
    numbers = _numbers(cells)
    comparable = numbers[[model.official for model in models]]
    low, high = np.nanmin(comparable, axis=0), np.nanmax(comparable, axis=0)
    shares = np.clip((numbers - low) / np.where(high > low, high - low, 1), 0, 1)
    labels = [model.name + ("" if model.official else " *") for model in models]
    figure = new_figure(3 + 0.56 * len(columns), 1.8 + 0.36 * len(models))
    axes = figure.subplots()
    draw_cells(axes, cells, labels, columns, shades=shares, low=0, digits=3)
    for place in (len(SETS), len(SETS) + len(ABILITY_NAMES)):
        axes.axvline(place - 0.5, color="black", linewidth=1.5)
    own = [place for place, model in enumerate(models) if model.own]
    for place in own:
        axes.get_yticklabels()[place].set_fontweight("bold")
    if own:
        axes.axhline(own[0] - 0.5, color="black", linewidth=1.5)
    note = "Colours run from the lowest to the highest score of each column."
    if not all(model.official for model in models):
        note += " * on other data than the paper's: not comparable, and left out of the paper's correlations"
    axes.set_xlabel(note, fontsize=10)
    axes.set_title(title, fontsize=13, pad=10)
    write_figure(figure, target)


def draw_cells(
    axes: Any,
    cells: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    shades: np.ndarray | None = None,
    low: float = -1,
    hidden: np.ndarray | None = None,
    digits: int | None = 2,
) -> None:
    """A grid of numbers.

    Args:
        shades: what colours show, from `low` to 1: blues from 0, blue through white to red from -1; the numbers if None
        hidden: cells that stay white
        digits: decimals of the numbers; None leaves them out
    """
    from matplotlib import colormaps

    shown = _numbers(cells) if shades is None else shades
    shown = shown if hidden is None else np.where(hidden, np.nan, shown)
    palette = colormaps["RdBu_r" if low < 0 else "Blues"]
    palette = palette.with_extremes(bad="white" if hidden is not None else _MISSING)
    image = axes.imshow(np.ma.masked_invalid(shown), cmap=palette, vmin=low, vmax=1, aspect="auto")
    for row, column in np.ndindex(*shown.shape):
        if digits is None or (hidden is not None and hidden[row, column]):
            continue
        cell = cells[row][column]
        text = "-" if cell is None else round_half_up(cell, digits)
        bright = cell is None or image.to_rgba(shown[row, column])[:3] @ np.array(_LUMINANCE) > 0.5
        written = axes.text(column, row, text, ha="center", va="center", fontsize=9)
        written.set_color("black" if bright else "white")
        written.set_in_layout(False)  # hundreds of them: measuring each takes most of the time
    axes.set_xticks(range(len(columns)), columns, fontsize=10)
    axes.set_yticks(range(len(rows)), rows, fontsize=10)
    if max(len(line) for name in columns for line in name.splitlines()) > 4 and len(columns) > 12:
        axes.tick_params(axis="x", labelrotation=60)
    axes.tick_params(length=0)


def _numbers(cells: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if cell is None else cell for cell in row] for row in cells], dtype=float)


def _short(population: str, width: int = 28) -> str:
    """A population's name, wrapped to fit; a long one keeps its end."""
    name = population if len(population) <= 2 * width else f"...{population[3 - 2 * width :]}"
    return "\n".join(textwrap.wrap(name, width))
