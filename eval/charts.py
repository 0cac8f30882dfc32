"""What the charts of this folder share: figures without global state, written in one step."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from gve.hub_datasets.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAMILY_COLOURS = {"CG": "tab:blue", "FG": "tab:orange", "LC": "tab:green", "CMP": "tab:purple", "VIS": "tab:red"}
"""Colour of each group of sets that does not overlap with another."""


def new_figure(width: float, height: float) -> "Figure":
    """A figure, whatever backend the caller has chosen.

    Args:
        width: In inches.
        height: In inches.

    Returns:
        The figure, at 150 dots an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: "Figure", target: Path) -> None:
    """Write a PNG file at once.

    Args:
        figure: What to write.
        target: The file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(target, buffer.getvalue())
