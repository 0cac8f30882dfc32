"""Heat maps of correlations and scores, as PNG files."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.analysis import Entry
from gve.eval.averages import AVERAGE_NAMES, round_half_up
from gve.eval.correlations import STATISTICS
from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

_MISSING = "0.92"  # a light grey
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def draw_triangles(
    matrices: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    sizes: Mapping[str, int],
    title: str,
    target: Path,
) -> None:
    """Correlations of the abilities, one triangle a population, as in Figure 7.

    Args:
        matrices: Correlation by ability, by ability, by population.
        sizes: Number of models by population.
        title: Above all.
        target: The file to write.
    """
    names = list(ABILITY_NAMES)
    figure, panels = _figure(1, len(matrices), (5.2 * len(matrices), 5.4))
    for axes, (population, matrix) in zip(panels, matrices.items(), strict=True):
        rows, columns = names[1:], names[:-1]
        cells = [
            [matrix[row][column] if place <= index else None for place, column in enumerate(columns)]
            for index, row in enumerate(rows)
        ]
        _draw_cells(axes, cells, rows, columns, scale=(-1, 1), hidden=np.triu(np.ones((8, 8), bool), 1))
        axes.set_title(f"{_short(population)} ({sizes[population]} models)", fontsize=12)
        for edge in axes.spines.values():
            edge.set_visible(False)
    figure.suptitle(title, fontsize=14)
    _save(figure, target)


def draw_against_average(
    correlations: Mapping[str, Mapping[str, Any]], average: str, title: str, target: Path
) -> None:
    """Correlation of every set and ability with an average, by population and statistic.

    Args:
        correlations: As in an analysis.
        average: "AVG-D" or "AVG-A".
        title: Above all.
        target: The file to write.
    """
    rows = [*SETS, *ABILITY_NAMES]
    columns = [f"{_short(name, 12)}\n{statistic.title()}" for name in correlations for statistic in STATISTICS]
    cells = [
        [entry[statistic]["averages"][row][average] for entry in correlations.values() for statistic in STATISTICS]
        for row in rows
    ]
    figure, (axes,) = _figure(1, 1, (2.6 + 0.95 * len(columns), 10))
    _draw_cells(axes, cells, rows, columns, scale=(-1, 1))
    axes.axhline(len(SETS) - 0.5, color="black", linewidth=1.5)
    axes.set_title(title, fontsize=13, pad=10)
    _save(figure, target)


def draw_models(entries: Sequence[Entry], rule: str, title: str, target: Path) -> None:
    """Scores of all models; each column has its own colours, from its lowest to its highest comparable score.

    Args:
        entries: The models, one's own last; those on other data are coloured within the same range.
        rule: "paper" or "plain".
        title: Above all.
        target: The file to write.
    """
    columns = [*SETS, *ABILITY_NAMES, *AVERAGE_NAMES]
    values = [entry.values(rule) for entry in entries]
    cells = [[row[name] for name in columns] for row in values]
    numbers = _numbers(cells)
    comparable = numbers[[entry.official for entry in entries]]
    low, high = np.nanmin(comparable, axis=0), np.nanmax(comparable, axis=0)
    shares = np.clip((numbers - low) / np.where(high > low, high - low, 1), 0, 1)
    labels = [entry.name + ("" if entry.official else " *") for entry in entries]
    figure, (axes,) = _figure(1, 1, (3 + 0.56 * len(columns), 1.8 + 0.36 * len(entries)))
    _draw_cells(axes, cells, labels, columns, scale=(0, 1), shades=shares, digits=3, colours="Blues")
    for place in (len(SETS), len(SETS) + len(ABILITY_NAMES)):
        axes.axvline(place - 0.5, color="black", linewidth=1.5)
    own = [place for place, entry in enumerate(entries) if entry.own]
    if own:
        axes.axhline(own[0] - 0.5, color="black", linewidth=1.5)
        for place in own:
            axes.get_yticklabels()[place].set_fontweight("bold")
    note = "Colours run from the lowest to the highest score of each column."
    if not all(entry.official for entry in entries):
        note += " * on other data than the paper's: not comparable, and left out of the paper's correlations"
    axes.set_xlabel(note, fontsize=10)
    axes.set_title(title, fontsize=13, pad=10)
    _save(figure, target)


def _draw_cells(
    axes: Any,
    cells: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    scale: tuple[float, float],
    shades: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
    digits: int = 2,
    colours: str = "RdBu_r",
) -> None:
    """A grid of numbers on colours; `shades` replace the numbers as what is coloured, `hidden` cells stay white."""
    from matplotlib import colormaps

    shown = _numbers(cells) if shades is None else shades
    palette = colormaps[colours].with_extremes(bad="white" if hidden is not None else _MISSING)
    image = axes.imshow(np.ma.masked_invalid(shown), cmap=palette, vmin=scale[0], vmax=scale[1], aspect="auto")
    for row, column in np.ndindex(*shown.shape):
        if hidden is not None and hidden[row, column]:
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


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Sequence[Any]]:
    """A figure without global state, window system or chosen backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _short(population: str, width: int = 28) -> str:
    """A population's name on lines that fit a panel or a column; of a long one the end."""
    name = population if len(population) <= 2 * width else f"...{population[3 - 2 * width :]}"
    return "\n".join(textwrap.wrap(name, width))


def _save(figure: Any, target: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(target, buffer.getvalue())
