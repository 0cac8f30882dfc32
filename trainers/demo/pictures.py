"""The demo's pictures: the curriculum over the epochs, and a contact sheet for each query."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.files import write_atomic

TILE_FRAMES = 4
"""Frames of a video that a contact sheet shows side by side."""


@dataclass
class Hit:
    """One result of a query.

    Attributes:
        name: Of the video.
        score: Cosine.
        right: Whether the query was made for it; others of the corpus may answer a short query as well.
        frames: (F, H, W, 3) uint8.
    """

    name: str
    score: float
    right: bool
    frames: np.ndarray


@dataclass
class Sheet:
    """A query and its results.

    Attributes:
        title: What kind of query it is.
        text: The query's words, or None.
        image: (H, W, 3) uint8, or None.
        video: (F, H, W, 3) uint8, or None.
        hits: Best first.
    """

    title: str
    text: str | None
    image: np.ndarray | None
    video: np.ndarray | None
    hits: list[Hit] = field(default_factory=list)


def film_strip(frames: np.ndarray, count: int = TILE_FRAMES) -> np.ndarray:
    """Evenly spaced frames side by side, (H, count * W, 3) uint8."""
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return np.concatenate(list(frames[chosen]), axis=1)


def save_figure(figure: Any, target: Path) -> None:
    """Write a figure as a PNG file at once."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomic(target, buffer.getvalue())


def draw_curriculum(history: Mapping[str, Any], target: Path, *, schedule: str) -> None:
    """P_t(k) of every task over the epochs, with sigma(t) where the schedule has one.

    Args:
        history: Epochs as `CurriculumHistory.to_json` gives them.
        target: The PNG file.
        schedule: Its name.
    """
    from matplotlib.figure import Figure

    epochs = sorted(history, key=int)
    numbers = [int(e) + 1 for e in epochs]
    names = sorted(history[epochs[-1]]["probabilities"], key=lambda k: -history[epochs[-1]]["probabilities"][k])
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(epochs))
    colours = _colours(len(names))
    for name, colour in zip(names, colours, strict=True):
        share = np.array([history[e]["probabilities"][name] for e in epochs])
        axes.bar(numbers, share, bottom=bottom, width=0.86, color=colour, edgecolor="white", linewidth=0.6, label=name)
        for x, low, height in zip(numbers, bottom, share, strict=True):
            if height > 0.03:
                axes.text(x, low + height / 2, f"{height:.2f}", ha="center", va="center", fontsize=7)
        bottom += share
    axes.set(xlabel="epoch t", ylabel="P$_t$(k), share of steps", ylim=(0, 1), xticks=numbers)
    if schedule.startswith("pyramid"):
        sigmas = [f"{n}\n$\\sigma$ {history[e]['sigma']:.2f}" for n, e in zip(numbers, epochs, strict=True)]
        axes.set_xticklabels(sigmas)
    axes.set_title(f"The tasks of each epoch, schedule {schedule}")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=8, frameon=False)
    save_figure(figure, target)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    maps = [colormaps["tab20"], colormaps["tab20b"]]
    return [maps[i // 20 % 2](i % 20 / 20) for i in range(count)]


def draw_sheet(sheet: Sheet, target: Path) -> None:
    """The query on the left, its best hits with their scores on the right; what the query was made for is framed in green.

    Args:
        sheet: What to show.
        target: The PNG file.
    """
    from matplotlib.figure import Figure

    rows = len(sheet.hits)
    figure = Figure(figsize=(11, 0.9 + 1.12 * rows), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    figure.suptitle(sheet.title, fontsize=13, fontweight="bold")
    _draw_query(left, sheet)
    for axes, (rank, hit) in zip(right.subplots(rows, 1, squeeze=False)[:, 0], enumerate(sheet.hits, 1), strict=True):
        _picture(axes, film_strip(hit.frames), edge="#1a9641" if hit.right else "#bbbbbb")
        mark = "the answer it was made for" if hit.right else ""
        axes.set_ylabel(f"{rank}.  {hit.score:.3f}", rotation=0, ha="right", va="center", fontsize=11)
        axes.set_title(f"{hit.name}   {mark}", loc="left", fontsize=8, color="#1a9641" if hit.right else "#555555")
    save_figure(figure, target)


def _draw_query(panel: Any, sheet: Sheet) -> None:
    pictures = [p for p in (sheet.image, None if sheet.video is None else film_strip(sheet.video)) if p is not None]
    slots = panel.subplots(len(pictures) + (sheet.text is not None), 1, squeeze=False)[:, 0]
    for axes, picture in zip(slots, pictures, strict=False):
        _picture(axes, picture, edge="#2c7bb6")
    slots[0].set_title("query", fontsize=11)
    if sheet.text is not None:
        slots[-1].axis("off")
        slots[-1].text(0.5, 0.5, f'"{wrap(sheet.text)}"', ha="center", va="center", fontsize=11)


def wrap(text: str, width: int = 44) -> str:
    """Break a text into lines of at most `width` characters where its words allow."""
    lines: Sequence[str] = [""]
    for word in text.split():
        *rest, last = lines
        lines = [*rest, f"{last} {word}".strip()] if len(last) + len(word) < width else [*lines, word]
    return "\n".join(lines)


def _picture(axes: Any, picture: np.ndarray, *, edge: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=edge, linewidth=2.5)
