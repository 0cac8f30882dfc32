"""Charts of a report as PNG files: bars of the sets, a radar of the abilities, curves over frames and tokens."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gve.eval.averages import benchmark_name, displayed, round_half_up
from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLASSIFICATION = "classification"
_COLOURS = {
    "CG": "tab:blue",
    "FG": "tab:orange",
    "LC": "tab:green",
    "CMP": "tab:purple",
    "VIS": "tab:red",
    _CLASSIFICATION: "tab:cyan",
}
"""Colour of each group of sets; no set is in two."""
_FEWEST = 3


def new_figure(width: float, height: float) -> "Figure":
    """A figure independent of pyplot's global state and backend; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: "Figure", target: Path) -> None:
    """Write a PNG file atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(target, buffer.getvalue())


def draw_bars(report: Mapping[str, Any], target: Path) -> None:
    """Draw each set's score with its 95 % interval and its chance level."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = report["sets"]
    figure = new_figure(7.2, 1.4 + 0.34 * len(entries))
    axes = figure.add_subplot()
    groups = {
        name: next((one for one in entry["abilities"] if one in _COLOURS), _CLASSIFICATION)
        for name, entry in entries.items()
    }
    for place, (name, entry) in enumerate(entries.items()):
        low, high = entry["interval"]
        score = entry["score"]
        axes.barh(place, score, height=0.7, color=_COLOURS[groups[name]], alpha=0.75)
        axes.plot([low, high], [place, place], color="black", linewidth=1.2)
        axes.plot([entry["chance"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.2, linestyle=":")
        axes.text(max(high, score) + 0.012, place, round_half_up(score), va="center", fontsize=8)
    labels = [
        f"{name}  {entry['metric'].replace('recall', 'R').replace('precision', 'P')}"
        for name, entry in entries.items()
    ]
    axes.set_yticks(range(len(entries)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.09)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_xlabel("score")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_title(report, f"{benchmark_name(report)}: sets"), fontsize=12)
    handles: list[Any] = [
        Patch(color=colour, alpha=0.75, label=group) for group, colour in _COLOURS.items() if group in groups.values()
    ]
    handles.append(Line2D([], [], color="black", linewidth=1.2, label="95 %"))
    handles.append(Line2D([], [], color="black", linewidth=1.2, linestyle=":", label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    write_figure(figure, target)


def check_drawable(abilities: Mapping[str, Any]) -> list[str]:
    """Abilities with a value, in the paper's order; ValueError for fewer than three, which span no area."""
    names = [name for name in ABILITY_NAMES if abilities.get(name) is not None]
    if len(names) < _FEWEST:
        raise ValueError(
            f"radar: {len(names)} abilities have all their sets ({', '.join(names) or 'none'}); at least {_FEWEST} are "
            "needed. Evaluate more sets."
        )
    return names


def draw_radar(report: Mapping[str, Any], target: Path) -> None:
    """Draw the abilities of a report above chance; ValueError for fewer than three complete ones."""
    names = check_drawable(report["abilities"])
    entries = [report["abilities"][name] for name in names]
    lines = {key: [entry[key] for entry in entries] for key in ("score", "chance")}
    shown = displayed(report)
    ticks = [f"{name}\n{shown[name]}" for name in names]
    _write_radar(lines, ticks, _title(report, "UVRB abilities"), target, colours=("tab:blue", "tab:gray"))


def draw_radars(reports: Mapping[str, Mapping[str, Any]], target: Path) -> None:
    """Draw the abilities that all reports, given by label, have; ValueError for fewer than three."""
    complete = {
        name: all(report["abilities"][name] is not None for report in reports.values()) or None
        for name in ABILITY_NAMES
    }
    names = check_drawable(complete)
    lines = {label: [report["abilities"][name]["score"] for name in names] for label, report in reports.items()}
    _write_radar(lines, names, "UVRB abilities", target, colours=None)


def _write_radar(
    lines: Mapping[str, Sequence[float]],
    ticks: Sequence[str],
    title: str,
    target: Path,
    *,
    colours: Sequence[str] | None,
) -> None:
    """One closed line for each label; colours None takes matplotlib's own."""
    angles = [2 * math.pi * place / len(ticks) for place in range(len(ticks) + 1)]
    figure = new_figure(6.4, 6.4)
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    for place, (label, values) in enumerate(lines.items()):
        colour = f"C{place}" if colours is None else colours[place]
        axes.plot(angles, [*values, values[0]], color=colour, linewidth=2, label=label)
        axes.fill(angles, [*values, values[0]], color=colour, alpha=0.2 if len(lines) < _FEWEST else 0.05)
    top = max(max(values) for values in lines.values())
    axes.set_ylim(0, max(0.1, math.ceil(top * 10) / 10))
    axes.set_xticks(angles[:-1], ticks, fontsize=11)
    axes.tick_params(axis="x", pad=12)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(title, fontsize=13, pad=16)
    if colours is None:  # labels are names of models, which may be long
        figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    else:
        axes.legend(loc="lower right", bbox_to_anchor=(1.1, -0.08))
    write_figure(figure, target)


def draw_scaling(report: Mapping[str, Any], target: Path) -> None:
    """Draw the average and abilities over a video's frames and tokens; needs two settings of known size."""
    points = report["scaling"]
    if len(points) < 2 or any(None in (point["num_frames"], point["frame_tokens"]) for point in points):
        raise ValueError(f"scaling: {len(points)} settings; at least two of known size are needed. Name more.")
    figure = new_figure(9.6, 4.2)
    left, right = figure.subplots(1, 2, sharex=True)
    budgets = sorted({point["frame_tokens"] for point in points})
    for tokens in budgets:
        chosen = [point for point in points if point["frame_tokens"] == tokens]
        _curve(left, chosen, [_average(point) for point in chosen], f"{tokens} tokens a frame")
    largest = [point for point in points if point["frame_tokens"] == budgets[-1]]
    names = [name for name in ABILITY_NAMES if all(point["abilities"][name] for point in largest)]
    kind, lines = ("abilities", names) if names else ("sets", list(report["sets"]))
    for name in lines:
        _curve(right, largest, [point[kind][name] for point in largest], name, band=False)
    left.set_title("mean over the sets", fontsize=11)
    right.set_title(f"{kind}, {budgets[-1]} tokens a frame", fontsize=11)
    frames = sorted({point["num_frames"] for point in points})
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(frames, [str(count) for count in frames])
        axes.minorticks_off()
        axes.set_xlabel("frames a video")
        axes.set_ylabel("score")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2 if axes is right else 1)
    figure.suptitle(_title(report, f"{benchmark_name(report)} over frames and tokens"))
    write_figure(figure, target)


def _title(report: Mapping[str, Any], what: str) -> str:
    return f"{what}, split {report['split']}\n{report.get('model') or ''}".rstrip()


def _average(point: Mapping[str, Any]) -> Mapping[str, Any]:
    """AVG-D, or the mean over the sets if it is missing."""
    if point["averages"]["AVG-D"] is not None:
        return point["averages"]["AVG-D"]
    entries = list(point["sets"].values())
    score = sum(entry["score"] for entry in entries) / len(entries)
    error = sum(entry["standard_error"] ** 2 for entry in entries) ** 0.5 / len(entries)
    return {"score": score, "interval": [score - 1.96 * error, score + 1.96 * error]}


def _curve(
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    entries: Sequence[Mapping[str, Any]],
    label: str,
    *,
    band: bool = True,
) -> None:
    order = sorted(range(len(points)), key=lambda place: points[place]["num_frames"])
    frames, chosen = [points[place]["num_frames"] for place in order], [entries[place] for place in order]
    (line,) = axes.plot(frames, [entry["score"] for entry in chosen], marker="o", markersize=4, label=label)
    if band:
        low, high = zip(*(entry["interval"] for entry in chosen), strict=True)
        axes.fill_between(frames, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
