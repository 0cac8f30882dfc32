"""The ablation's report: tables of means and of paired differences over seeds, and its pictures.

Shapes: S seeds.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from gve.eval.charts import new_figure, write_figure
from gve.hub_datasets.card_parts import table
from gve.hub_datasets.files import write_text
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES
from gve.trainers.ablation.arms import ARMS, BASELINE, BY_NAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Results by arm and seed."""
SCALING = (("data-10", 10), ("data-30", 30), (BASELINE, 100))
_COLOR, _MUTED = "#1f5a96", "#9aa5b1"


class Start(NamedTuple):
    """The pre-trained model that arms begin with: shares of right answers by attribute, and its scores, as of a run."""

    told_right: Mapping[str, float]
    scores: Mapping[str, Any]


class Difference(NamedTuple):
    """Mean difference of an arm from its baseline over S common seeds, with its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Student's interval of the mean of (S,) values minus a (S,) baseline, both in the same order of seeds."""
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(
            f"values must be of two or more seeds that the baseline has too, got {len(values)} against "
            f"{len(baseline)}. Run the missing seeds."
        )
    differences = np.subtract(values, baseline, dtype=np.float64)
    mean, count = float(differences.mean()), len(differences)
    half = float(student.ppf(0.975, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    return Difference(mean, mean - half, mean + half, count)


def value(run: Mapping[str, Any], name: str) -> float:
    """One number of a run: "AVG-D", "AVG-A", an ability, or a set's in-group accuracy as "CRB-S in group"."""
    if name.endswith(" in group"):
        return float(run["sets"][name.removesuffix(" in group")]["in_group"]["score"])
    return float(run["averages" if name.startswith("AVG") else "abilities"][name]["score"])


def difference(runs: Runs, arm: str, name: str) -> Difference:
    """A number of an arm minus the same number of the arm it is compared with, on their common seeds."""
    return paired_difference(*_paired(runs, arm, name))


def _paired(runs: Runs, arm: str, name: str) -> tuple[list[float], list[float]]:
    other = runs[BY_NAME[arm].against]
    seeds = sorted(set(runs[arm]) & set(other))
    return [value(runs[arm][seed], name) for seed in seeds], [value(other[seed], name) for seed in seeds]


def write_report(runs: Runs, root: Path, settings: Mapping[str, Any], start: Start) -> None:
    """Write REPORT.md, results.json, arms.png, scaling.png and curriculum.png, with the arms that were run."""
    there = [arm.name for arm in ARMS if arm.name in runs]
    compared = [name for name in there if name != BASELINE and len(_paired(runs, name, "AVG-D")[0]) > 1]
    parts = [
        _heading(runs, settings),
        _means(runs, there, start.scores),
        _differences(runs, compared),
        _abilities(runs, compared),
        _answers(start.told_right),
        "![Differences](arms.png)",
    ]
    write_figure(draw_arms(runs, compared), root / "arms.png")
    if all(name in runs for name, _ in SCALING):
        write_figure(draw_scaling(runs), root / "scaling.png")
        parts.append("![Data scaling](scaling.png)")
    if scheduled := [name for name in there if BY_NAME[name].schedule not in ("uniform", "proportional")]:
        write_figure(draw_curriculum(runs, scheduled), root / "curriculum.png")
        parts.append("![Probabilities](curriculum.png)")
    write_text(root / "results.json", json.dumps(_numbers(runs)) + "\n")
    write_text(root / "REPORT.md", "\n\n".join(parts) + "\n")


def _numbers(runs: Runs) -> dict[str, Any]:
    """The scores of all runs, small enough to keep beside the report."""
    kept = ("averages", "abilities", "sets")
    return {
        arm: {str(seed): {part: _scores(run[part]) for part in kept} for seed, run in sorted(of_arm.items())}
        for arm, of_arm in runs.items()
    }


def _scores(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    found = {name: round(entry["score"], 4) for name, entry in entries.items()}
    grouped = {name: entry["in_group"] for name, entry in entries.items() if entry.get("in_group")}
    return found | {f"{name} in group": round(entry["score"], 4) for name, entry in grouped.items()}


def _heading(runs: Runs, settings: Mapping[str, Any]) -> str:
    return (
        "# Ablation on the rendered world\n\n"
        f"{max(map(len, runs.values()))} seeds at most, {settings['steps']} steps of 32 pairs each, "
        f"{sum(settings['pairs'].values())} synthesized and {settings['raw']} collected pairs, scored on unseen "
        f"combinations. All arms but `scratch` ones begin with one model, pre-trained for {settings['lessons']} steps on "
        "class labels. The prober of the first epoch is a separately trained model. Differences are paired by seed, to "
        "`uniform` or to the arm named; intervals are Student's at 95 %, over seeds. A seed changes the order of the "
        "batches and the rows that are kept, not the data or the model at the start. All of this holds for this model "
        "and world."
    )


def _section(title: str, text: str, head: Sequence[str], rows: Iterable[Sequence[object]], after: str = "") -> str:
    parts = [f"## {title}", text, "\n".join(table(head, rows)), after]
    return "\n\n".join(part for part in parts if part)


def _means(runs: Runs, there: Sequence[str], start: Mapping[str, Any]) -> str:
    names = ("AVG-D", "AVG-A", *ABILITY_NAMES, "CRB-S in group", "CRB-T in group")
    rows = []
    for arm, of_arm in {"(start)": [start], **{arm: list(runs[arm].values()) for arm in there}}.items():
        means = [f"{np.mean([value(run, name) for run in of_arm]):.3f}" for name in names]
        rows.append((arm, *means, f"{np.mean([run['cpu_seconds'] for run in of_arm]):.0f}", len(of_arm)))
    legend = ["- `(start)`: the pre-trained model, before any pairs"]
    legend += [f"- `{arm}`: {BY_NAME[arm].description}" for arm in there]
    return _section("Means over seeds", "", ("arm", *names, "CPU s", "seeds"), rows, "\n".join(legend))


def _differences(runs: Runs, compared: Sequence[str]) -> str:
    rows = []
    for arm in compared:
        found = difference(runs, arm, "AVG-D")
        interval, verdict = f"{found.low:+.4f} to {found.high:+.4f}", "yes" if found.excludes_zero else "no"
        rows.append((arm, BY_NAME[arm].against, f"{found.mean:+.4f}", interval, found.seeds, verdict))
    head = ("arm", "minus", "difference", "95 % interval", "seeds", "excludes zero")
    return _section("AVG-D, differences", "", head, rows)


def _abilities(runs: Runs, compared: Sequence[str]) -> str:
    rows = []
    for arm in compared:
        cells = []
        for found in (difference(runs, arm, name) for name in ABILITY_NAMES):
            text = f"{found.mean:+.3f} +- {found.high - found.mean:.3f}"
            cells.append(f"**{text}**" if found.excludes_zero else text)
        rows.append((arm, *cells))
    text = "Bold: the interval excludes zero. With nine abilities an arm, one in twenty does so by chance."
    return _section("Abilities, differences", text, ("arm", *ABILITY_NAMES), rows)


def _answers(told_right: Mapping[str, float]) -> str:
    rows = ((name.replace("_", " "), f"{share:.3f}") for name, share in told_right.items())
    text = "Share of right answers on videos of unseen combinations."
    return _section("What the pre-trained model knows", text, ("attribute", "right"), rows)


def _axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    figure = new_figure(width, height)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_arms(runs: Runs, compared: Sequence[str]) -> "Figure":
    """Differences of AVG-D with their intervals, and the single seeds."""
    figure, axes = _axes(8, 1.2 + 0.45 * len(compared))
    for place, arm in enumerate(reversed(compared)):
        found = difference(runs, arm, "AVG-D")
        single = np.subtract(*_paired(runs, arm, "AVG-D"))
        axes.plot(single, [place] * len(single), "o", color=_MUTED, markersize=4)
        axes.plot([found.low, found.high], [place, place], color=_COLOR, linewidth=2)
        axes.plot(found.mean, place, "s", color=_COLOR)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(compared)), [f"{arm} - {BY_NAME[arm].against}" for arm in reversed(compared)])
    axes.set_xlabel("difference of AVG-D, same seed (square: mean, line: 95 % interval)")
    return figure


def draw_scaling(runs: Runs) -> "Figure":
    """AVG-D over the share of the rows."""
    figure, axes = _axes(6, 3.6)
    shares, means = [share for _, share in SCALING], []
    for arm, share in SCALING:
        values = [value(run, "AVG-D") for run in runs[arm].values()]
        axes.plot([share] * len(values), values, "o", color=_MUTED, markersize=4)
        means.append(np.mean(values))
    axes.plot(shares, means, "s-", color=_COLOR)
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share} %" for share in shares])
    axes.minorticks_off()
    axes.set(xlabel="share of the training rows, same number of steps", ylabel="AVG-D")
    return figure


def draw_curriculum(runs: Runs, scheduled: Sequence[str]) -> "Figure":
    """P_t(k) of each measured schedule, mean over seeds."""
    figure = new_figure(3.4 * len(scheduled) + 1.6, 6.4)
    panels = np.atleast_1d(figure.subplots(1, len(scheduled), sharey=True))
    tasks = sorted(next(iter(runs[scheduled[0]].values()))["history"]["0"]["probabilities"])
    for panel, arm in zip(panels, scheduled, strict=True):
        histories = [run["history"] for run in runs[arm].values()]
        epochs = sorted(histories[0], key=int)
        grid = [[np.mean([h[e]["probabilities"][task] for h in histories]) for e in epochs] for task in tasks]
        image = panel.imshow(grid, aspect="auto", cmap="Blues", vmin=0)
        panel.set(title=arm, xlabel="epoch")
        panel.set_xticks(range(len(epochs)), [str(int(e) + 1) for e in epochs])
        figure.colorbar(image, ax=panel, shrink=0.5)
    panels[0].set_yticks(range(len(tasks)), tasks, fontsize=8)
    return figure
