"""The ablation's report: tables of means and paired intervals, and its pictures.

Shapes: S seeds, A arms.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np

from gve.hub_datasets.files import write_atomic
from gve.trainers.ablation.arms import ARMS, BASELINE, BY_NAME
from gve.trainers.ablation.statistics import Difference, paired_difference

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Results by arm and seed."""
ABILITIES = ("TXT", "CMP", "VIS", "CG", "FG", "LC", "S", "T", "PR")
SCALING = (("data-10", 10), ("data-30", 30), (BASELINE, 100))
_COLOR, _MUTED = "#1f5a96", "#9aa5b1"


class Start(NamedTuple):
    """What the arms begin with.

    Attributes:
        told_right: Shares of right answers of the pre-trained model by attribute.
        scores: Its scores, as those of a run.
    """

    told_right: Mapping[str, float]
    scores: Mapping[str, Any]


def value(run: Mapping[str, Any], name: str) -> float:
    """One number of a run.

    Args:
        run: Its result.
        name: "AVG-D", "AVG-A", an ability, or a set's in-group accuracy as "CRB-S in group".
    """
    if name.endswith(" in group"):
        return float(run["sets"][name.removesuffix(" in group")]["in_group"]["score"])
    return float(run["averages" if name.startswith("AVG") else "abilities"][name]["score"])


def difference(runs: Runs, arm: str, name: str) -> Difference:
    """An arm minus the one that it is compared with, on the seeds that both have.

    Args:
        runs: Results.
        arm: Its name.
        name: As for `value`.
    """
    return paired_difference(*_paired(runs, arm, name))


def _paired(runs: Runs, arm: str, name: str) -> tuple[list[float], list[float]]:
    other = runs[BY_NAME[arm].against]
    seeds = sorted(set(runs[arm]) & set(other))
    return [value(runs[arm][seed], name) for seed in seeds], [value(other[seed], name) for seed in seeds]


def write_report(runs: Runs, root: Path, settings: Mapping[str, Any], start: Start) -> None:
    """Write REPORT.md, results.json, arms.png, scaling.png and curriculum.png.

    Args:
        runs: Results; arms that are not there are left out.
        root: Where to write.
        settings: Of the study.
        start: What the arms begin with.
    """
    there = [arm.name for arm in ARMS if arm.name in runs]
    compared = [name for name in there if name != BASELINE and len(_paired(runs, name, "AVG-D")[0]) > 1]
    parts = [
        _heading(runs, settings),
        _means(runs, there, start.scores),
        _differences(runs, compared),
        _abilities(runs, compared),
        _told(start.told_right),
    ]
    pictures = ["![Differences](arms.png)"]
    draw_arms(runs, compared, root / "arms.png")
    if all(name in runs for name, _ in SCALING):
        draw_scaling(runs, root / "scaling.png")
        pictures.append("![Data scaling](scaling.png)")
    if scheduled := [name for name in there if BY_NAME[name].schedule not in ("uniform", "proportional")]:
        draw_curriculum(runs, scheduled, root / "curriculum.png")
        pictures.append("![Probabilities](curriculum.png)")
    write_atomic(root / "results.json", (json.dumps(_numbers(runs)) + "\n").encode())
    (root / "REPORT.md").write_text("\n\n".join([*parts, *pictures]) + "\n", encoding="utf-8")


def _numbers(runs: Runs) -> dict[str, Any]:
    """The scores of all runs, small enough to be kept beside the report."""
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
    rows = sum(settings["pairs"].values())
    return (
        "# Ablation on the rendered world\n\n"
        f"{max(map(len, runs.values()))} seeds at most, {settings['steps']} steps of 32 pairs each, "
        f"{rows} synthesized and {settings['raw']} collected pairs, scored on unseen combinations. All begin with "
        f"one model, pre-trained for {settings['lessons']} steps on class labels, but for those from scratch. The prober of the first epoch is a separately trained model. Intervals are Student's at 95 %, over seeds, of "
        "paired differences with the same seed, to `uniform` or to the arm that is named. Seeds change the order of the "
        "batches and the rows that are kept, not the data or the model that is begun with. "
        "What is told here holds for this model and world."
    )


def _means(runs: Runs, there: Sequence[str], start: Mapping[str, Any]) -> str:
    names = ("AVG-D", "AVG-A", *ABILITIES, "CRB-S in group", "CRB-T in group")
    lines = [
        "## Means over seeds",
        "",
        f"| arm | {' | '.join(names)} | CPU s | seeds |",
        "|---|" + "---|" * (len(names) + 2),
    ]
    for arm, of_arm in {"(start)": [start], **{arm: list(runs[arm].values()) for arm in there}}.items():
        seconds = np.mean([run["cpu_seconds"] for run in of_arm])
        cells = [f"{np.mean([value(run, name) for run in of_arm]):.3f}" for name in names]
        lines.append(f"| {arm} | {' | '.join(cells)} | {seconds:.0f} | {len(of_arm)} |")
    told = ["- `(start)`: the pre-trained model, before any pairs"]
    told += [f"- `{arm}`: {BY_NAME[arm].told}" for arm in there]
    return "\n".join([*lines, "", *told])


def _differences(runs: Runs, compared: Sequence[str]) -> str:
    lines = ["## AVG-D, differences", "", "| arm | minus | difference | 95 % interval | seeds | excludes zero |"]
    lines.append("|---|---|---|---|---|---|")
    for arm in compared:
        found = difference(runs, arm, "AVG-D")
        verdict = "yes" if found.excludes_zero else "no"
        lines.append(
            f"| {arm} | {BY_NAME[arm].against} | {found.mean:+.4f} | {found.low:+.4f} to {found.high:+.4f} | {found.seeds} | {verdict} |"
        )
    return "\n".join(lines)


def _abilities(runs: Runs, compared: Sequence[str]) -> str:
    lines = [
        "## Abilities, differences",
        "",
        "Bold: the interval excludes zero. With nine abilities an arm, one in",
    ]
    lines += ["twenty does so by chance.", "", f"| arm | {' | '.join(ABILITIES)} |", "|---|" + "---|" * len(ABILITIES)]
    for arm in compared:
        cells = []
        for name in ABILITIES:
            found = difference(runs, arm, name)
            text = f"{found.mean:+.3f} +- {found.high - found.mean:.3f}"
            cells.append(f"**{text}**" if found.excludes_zero else text)
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(told_right: Mapping[str, float]) -> str:
    lines = [
        "## What the pre-trained model can tell",
        "",
        "Share of right answers on videos of unseen combinations.",
        "",
    ]
    lines += ["| attribute | right |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name.replace('_', ' ')} | {share:.3f} |" for name, share in told_right.items())])


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_arms(runs: Runs, compared: Sequence[str], path: Path) -> None:
    """Differences of AVG-D with their intervals, and the single seeds.

    Args:
        runs: Results.
        compared: Arms.
        path: PNG to write.
    """
    figure, axes = _figure(8, 1.2 + 0.45 * len(compared))
    for place, arm in enumerate(reversed(compared)):
        found = difference(runs, arm, "AVG-D")
        single = np.subtract(*_paired(runs, arm, "AVG-D"))
        axes.plot(single, [place] * len(single), "o", color=_MUTED, markersize=4)
        axes.plot([found.low, found.high], [place, place], color=_COLOR, linewidth=2)
        axes.plot(found.mean, place, "s", color=_COLOR)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(compared)), [f"{arm} - {BY_NAME[arm].against}" for arm in reversed(compared)])
    axes.set_xlabel("difference of AVG-D, same seed (square: mean, line: 95 % interval)")
    figure.savefig(path, dpi=120)


def draw_scaling(runs: Runs, path: Path) -> None:
    """AVG-D over the share of the rows.

    Args:
        runs: Results of `SCALING`.
        path: PNG to write.
    """
    figure, axes = _figure(6, 3.6)
    means = []
    for arm, share in SCALING:
        values = [value(run, "AVG-D") for run in runs[arm].values()]
        axes.plot([share] * len(values), values, "o", color=_MUTED, markersize=4)
        means.append(np.mean(values))
    axes.plot([share for _, share in SCALING], means, "s-", color=_COLOR)
    axes.set_xscale("log")
    axes.set_xticks([share for _, share in SCALING], [f"{share} %" for _, share in SCALING])
    axes.minorticks_off()
    axes.set_xlabel("share of the training rows, same number of steps")
    axes.set_ylabel("AVG-D")
    figure.savefig(path, dpi=120)


def draw_curriculum(runs: Runs, scheduled: Sequence[str], path: Path) -> None:
    """P_t(k) of each measured schedule, mean over seeds, sources from the most drawn down.

    Args:
        runs: Results.
        scheduled: Arms.
        path: PNG to write.
    """
    figure = matplotlib.figure.Figure(figsize=(3.4 * len(scheduled) + 1.6, 6.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(scheduled), sharey=True))
    tasks = sorted(next(iter(runs[scheduled[0]].values()))["history"]["0"]["probabilities"])
    for panel, arm in zip(panels, scheduled, strict=True):
        histories = [run["history"] for run in runs[arm].values()]
        epochs = sorted(histories[0], key=int)
        grid = [[np.mean([h[e]["probabilities"][task] for h in histories]) for e in epochs] for task in tasks]
        image = panel.imshow(grid, aspect="auto", cmap="Blues", vmin=0)
        panel.set_title(arm)
        panel.set_xticks(range(len(epochs)), [str(int(e) + 1) for e in epochs])
        panel.set_xlabel("epoch")
        figure.colorbar(image, ax=panel, shrink=0.5)
    panels[0].set_yticks(range(len(tasks)), tasks, fontsize=8)
    figure.savefig(path, dpi=110)
