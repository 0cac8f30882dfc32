"""A radar chart of the nine abilities against chance."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gve.eval.averages import displayed
from gve.eval.charts import new_figure, write_figure
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

_FEWEST = 3


def check_drawable(abilities: Mapping[str, Any]) -> list[str]:
    """Which abilities a chart would show.

    Args:
        abilities: A value or None by name; other names are ignored.

    Returns:
        The names with a value, in the paper's order.

    Raises:
        ValueError: When they are fewer than three, which make no area.
    """
    names = [name for name in ABILITY_NAMES if abilities.get(name) is not None]
    if len(names) < _FEWEST:
        raise ValueError(
            f"radar: {len(names)} abilities have all their sets ({', '.join(names) or 'none'}); at least {_FEWEST} are "
            "needed; evaluate more sets"
        )
    return names


def draw_radar(report: Mapping[str, Any], target: Path) -> None:
    """Draw the abilities of a report, with chance beneath, to a PNG file.

    Args:
        report: What `run_benchmark` returned or the JSON file holds.
        target: The file to write.

    Raises:
        ValueError: When fewer than three abilities have all their sets.
    """
    names = check_drawable(report["abilities"])
    entries = [report["abilities"][name] for name in names]
    angles = [2 * math.pi * place / len(names) for place in range(len(names) + 1)]
    figure = new_figure(6.4, 6.4)
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    for key, colour, label in (("score", "tab:blue", "score"), ("chance", "tab:gray", "chance")):
        values = [entry[key] for entry in entries]
        axes.plot(angles, [*values, values[0]], color=colour, linewidth=2, label=label)
        axes.fill(angles, [*values, values[0]], color=colour, alpha=0.2)
    top = max(entry[key] for entry in entries for key in ("score", "chance"))
    axes.set_ylim(0, max(0.1, math.ceil(top * 10) / 10))
    shown = displayed(report)
    axes.set_xticks(angles[:-1], [f"{name}\n{shown[name]}" for name in names], fontsize=11)
    axes.tick_params(axis="x", pad=12)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(
        f"UVRB abilities, split {report['split']}\n{report.get('model') or ''}".rstrip(), fontsize=13, pad=16
    )
    axes.legend(loc="lower right", bbox_to_anchor=(1.1, -0.08))
    write_figure(figure, target)
