"""A bar chart of the sets, with intervals and chance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gve.eval.averages import benchmark_name, round_half_up
from gve.eval.charts import FAMILY_COLOURS, new_figure, write_figure

_CLASSIFICATION = "classification"
_COLOURS = {**FAMILY_COLOURS, _CLASSIFICATION: "tab:cyan"}


def draw_bars(report: Mapping[str, Any], target: Path) -> None:
    """Draw the score of every set with its 95 % interval and its chance level, to a PNG file.

    Args:
        report: What `run_benchmark` returned or the JSON file holds.
        target: The file to write.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = report["sets"]
    figure = new_figure(7.2, 1.4 + 0.34 * len(entries))
    axes = figure.add_subplot()
    families = {name: _family(entry["abilities"]) for name, entry in entries.items()}
    for place, (name, entry) in enumerate(entries.items()):
        low, high = entry["interval"]
        score = entry["score"]
        axes.barh(place, score, height=0.7, color=_COLOURS[families[name]], alpha=0.75)
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
    axes.set_title(
        f"{benchmark_name(report)}: sets, split {report['split']}\n{report.get('model') or ''}".rstrip(), fontsize=12
    )
    handles: list[Any] = [
        Patch(color=colour, alpha=0.75, label=family)
        for family, colour in _COLOURS.items()
        if family in families.values()
    ]
    handles.append(Line2D([], [], color="black", linewidth=1.2, label="95 %"))
    handles.append(Line2D([], [], color="black", linewidth=1.2, linestyle=":", label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    write_figure(figure, target)


def _family(abilities: list[str]) -> str:
    """The one of the groups that do not overlap; sets of classification count towards none."""
    return next((name for name in abilities if name in FAMILY_COLOURS), _CLASSIFICATION)
