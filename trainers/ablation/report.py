"""The ablation's report: tables of means and of paired differences over seeds, world by world, and its pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gve.eval.charts import new_figure, write_figure
from gve.hub_datasets.card_parts import table
from gve.hub_datasets.files import write_text
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES
from gve.trainers.ablation.arms import ARMS, BASELINE, BY_NAME, ORACLE
from gve.trainers.ablation.outcomes import Outcome, Runs, common_seeds, difference, paired, value
from gve.trainers.ablation.scaling import COLOR, MUTED, draw_scaling
from gve.trainers.ablation.transfer import draw_transfer
from gve.trainers.curriculum.schedule import CurriculumHistory
from gve.trainers.curriculum.weights import UNMEASURED
from gve.trainers.watching.curriculum_map import Epochs, draw_curricula

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST = "pyramid-plus"
"""The schedule that the verdict is about."""


def write_report(outcomes: Sequence[Outcome], root: Path) -> None:
    """Write REPORT.md, results.json and pictures of one or more studies, with the arms that were run."""
    studies = _named(outcomes)
    matched = {name: outcome for name, outcome in studies.items() if outcome.compares} or studies
    compared = [arm.name for arm in ARMS if any(common_seeds(outcome.runs, arm.name) > 1 for outcome in outcomes)]
    parts = [_heading(studies), _differences(matched, compared), "![Differences](arms.png)"]
    write_figure(draw_arms(matched, compared), root / "arms.png")
    for name, outcome in studies.items():
        parts += _of_study(name, outcome, compared, root)
    parts.append(_answers(studies))
    numbers = {name: _numbers(_with_start(one)) | _measured(one.measured) for name, one in studies.items()}
    write_text(root / "results.json", json.dumps(numbers) + "\n")
    write_text(root / "REPORT.md", "\n\n".join(parts) + "\n")


def _named(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """Studies by their worlds, and a further one of the same world by its pairs too."""
    studies: dict[str, Outcome] = {}
    seen = set()
    for outcome in outcomes:
        world, pairs = outcome.world, sum(outcome.settings["pairs"].values())
        if (world, pairs) in seen:
            raise ValueError(
                f"studies must be of different worlds or sizes, got two of {world} with {pairs} pairs. Leave one out."
            )
        seen.add((world, pairs))
        studies[f"{world}-{pairs}" if world in studies else world] = outcome
    return studies


def _of_study(name: str, outcome: Outcome, compared: Sequence[str], root: Path) -> list[str]:
    """The parts about one study; its pictures are written."""
    parts = [_means(name, outcome)]
    if outcome.compares:
        parts.append(_abilities(name, outcome.runs, compared))
    if scheduled := [arm for arm in outcome.runs if BY_NAME[arm].schedule not in UNMEASURED]:
        maps = {arm: mean_epochs(list(outcome.runs[arm].values())) for arm in scheduled}
        write_figure(draw_curricula(maps), root / f"{name}-curriculum.png")
        parts.append(f"![R', accuracy and P]({name}-curriculum.png)")
    if transfer := outcome.measured.get("transfer"):
        write_figure(draw_transfer(transfer), root / f"{name}-transfer.png")
        parts += [f"## What steps of one task do to another, {name}", f"![Transfer]({name}-transfer.png)"]
    if scaling := outcome.measured.get("scaling"):
        write_figure(draw_scaling(scaling["axes"]), root / f"{name}-scaling.png")
        parts += [_scaling(name, scaling), f"![Scaling]({name}-scaling.png)"]
    return parts


def mean_epochs(runs: Sequence[Mapping[str, Any]]) -> Epochs:
    """R', accuracy and P by epoch, mean over runs of the same arm."""
    histories = [CurriculumHistory.from_json(run["history"]).epochs for run in runs]
    logs = [[history[epoch].logs() for history in histories] for epoch in sorted(histories[0])]
    return [{name: float(np.mean([log[name] for log in of_epoch])) for name in of_epoch[0]} for of_epoch in logs]


def _with_start(outcome: Outcome) -> Runs:
    """The scores before any pairs, as an arm of one run, then the runs."""
    return {"(start)": {0: outcome.start}, **outcome.runs}


def _numbers(runs: Runs) -> dict[str, Any]:
    """The scores of all runs, small enough to keep beside the report."""
    kept = ("averages", "abilities", "sets")
    return {
        arm: {str(seed): {part: _scores(run[part]) for part in kept} for seed, run in sorted(of_arm.items())}
        for arm, of_arm in runs.items()
    }


def _measured(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What else a study measured; of the oracle's search what it found and the scores of its draws."""
    kept = {name: found for name, found in measured.items() if name != ORACLE}  # which is the name of an arm too
    if found := measured.get(ORACLE):
        kept["search"] = {"priors": found["priors"], "AVG-D": [one["AVG-D"] for one in found["draws"]]}
    return kept


def _scores(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    found = {name: round(entry["score"], 4) for name, entry in entries.items()}
    grouped = {name: entry["in_group"] for name, entry in entries.items() if entry.get("in_group")}
    return found | {f"{name} in group": round(entry["score"], 4) for name, entry in grouped.items()}


def _heading(worlds: Mapping[str, Outcome]) -> str:
    lines = []
    for world, (runs, settings, *_) in worlds.items():
        lines.append(
            f"- `{world}`: {max(map(len, runs.values()), default=0)} seeds at most, {settings['steps']} steps of "
            f"{settings.get('batch', 32)} pairs each, {sum(settings['pairs'].values())} synthesized and {settings['raw']} "
            f"collected pairs; {settings['lessons']} steps of pre-training on class labels"
        )
    return (
        "# Ablation on the rendered world\n\n" + "\n".join(lines) + "\n\n"
        "Scores are of unseen combinations. All arms but `scratch` ones begin with one pre-trained model a world. The "
        "prober of the first epoch is a separately trained model. Differences are paired by seed, to `uniform` or to the "
        "arm named; intervals are Student's at 95 %, over seeds; p is that of flipping the signs of the differences. A "
        "seed changes the order of the batches and the rows that are kept, not the data or the model at the start. All "
        "of this holds for these models and worlds."
    )


def _section(title: str, text: str, head: Sequence[str], rows: Iterable[Sequence[object]], after: str = "") -> str:
    parts = [f"## {title}", text, "\n".join(table(head, rows)), after]
    return "\n\n".join(part for part in parts if part)


def _means(world: str, outcome: Outcome) -> str:
    names = ("AVG-D", "AVG-A", *ABILITY_NAMES, "CRB-S in group", "CRB-T in group")
    rows = []
    for arm, of_arm in _with_start(outcome).items():
        means = [f"{np.mean([value(run, name) for run in of_arm.values()]):.3f}" for name in names]
        rows.append((arm, *means, f"{np.mean([run['cpu_seconds'] for run in of_arm.values()]):.0f}", len(of_arm)))
    legend = ["- `(start)`: the pre-trained model, before any pairs"]
    legend += [f"- `{arm}`: {BY_NAME[arm].description}" for arm in outcome.runs]
    return _section(f"Means over seeds, {world}", "", ("arm", *names, "CPU s", "seeds"), rows, "\n".join(legend))


def _differences(worlds: Mapping[str, Outcome], compared: Sequence[str]) -> str:
    rows = []
    for arm in compared:
        cells = [cell for outcome in worlds.values() for cell in _compared(outcome.runs, arm)]
        rows.append((arm, BY_NAME[arm].against, *cells))
    head = [f"{what}, {world}" for world in worlds for what in ("difference", "p", "seeds")]
    text = "With an interval of 95 %, in bold if it excludes zero."
    bounds = [_bound(world, outcome) for world, outcome in worlds.items()]
    return _section("AVG-D, differences", text, ("arm", "minus", *head), rows, "\n".join(filter(None, bounds)))


def _compared(runs: Runs, arm: str) -> tuple[object, object, object]:
    if common_seeds(runs, arm) < 2:
        return "", "", ""
    found = difference(runs, arm, "AVG-D")
    text = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    return f"**{text}**" if found.excludes_zero else text, f"{found.chance:.3f}", found.seeds


def _bound(world: str, outcome: Outcome) -> str:
    """What the priors that were tuned on the test gain, which no schedule can be expected to beat."""
    runs = outcome.runs
    if min(common_seeds(runs, ORACLE), common_seeds(runs, BEST)) < 2:
        return ""
    bound, best = (difference(runs, arm, "AVG-D") for arm in (ORACLE, BEST))
    text = (
        f"- `{world}`: priors tuned on the test gain {bound.mean:+.4f} [{bound.low:+.4f}, {bound.high:+.4f}] over "
        f"`{BASELINE}`, `{BEST}` {best.mean:+.4f}."
    )
    if not (draws := [one["AVG-D"] for one in outcome.measured.get(ORACLE, {}).get("draws", [])]):
        return text
    own = [value(run, "AVG-D") for run in runs[BASELINE].values()]
    return (
        f"{text} The {len(draws)} mixtures of the search reach {min(draws):.3f} to {max(draws):.3f} on the test that they "
        f"were chosen by, with a deviation of {np.std(draws, ddof=1):.3f}; the seeds of `{BASELINE}` have {np.std(own, ddof=1):.3f}."
    )


def _abilities(world: str, runs: Runs, compared: Sequence[str]) -> str:
    rows = []
    for arm in compared:
        cells = []
        for found in (difference(runs, arm, name) for name in ABILITY_NAMES if common_seeds(runs, arm) > 1):
            text = f"{found.mean:+.3f} +- {found.high - found.mean:.3f}"
            cells.append(f"**{text}**" if found.excludes_zero else text)
        rows += [(arm, *cells)] if cells else []
    text = "Bold: the interval excludes zero. With nine abilities an arm, one in twenty does so by chance."
    return _section(f"Abilities, differences, {world}", text, ("arm", *ABILITY_NAMES), rows)


def _answers(worlds: Mapping[str, Outcome]) -> str:
    right = {
        name: [outcome.told_right[name] for outcome in worlds.values()]
        for name in next(iter(worlds.values())).told_right
    }
    rows = ((name.replace("_", " "), *(f"{share:.3f}" for share in shares)) for name, shares in right.items())
    text = "Share of right answers on videos of unseen combinations."
    return _section("What the pre-trained model knows", text, ("attribute", *worlds), rows)


def _scaling(name: str, content: Mapping[str, Any]) -> str:
    """What a decade more of pairs, steps or parameters gives; see `gve.trainers.ablation.scaling`."""
    rows = []
    for axis, found in content["axes"].items():
        means = zip(found["sizes"], found["scores"], strict=True)
        cells = [", ".join(f"{size:,.0f}: {np.mean(scores):.3f}" for size, scores in means)]
        for fit, form in (("log", "+.4f"), ("relative", "+.1%"), ("power", "+.3f")):
            low, high = found[fit]["interval"]
            cells.append(f"{found[fit]['value']:{form}} [{low:{form}}, {high:{form}}]")
        rows.append((axis, *cells))
    text = f"{len(content['seeds'])} seeds, which the intervals of 95 % resample. c is that of 1 - AVG-D = d size^-c."
    head = ("axis", "AVG-D by size", "AVG-D a decade", "relative", "c")
    return _section(f"Scaling, {name}", text, head, rows)


def draw_arms(worlds: Mapping[str, Outcome], compared: Sequence[str]) -> "Figure":
    """Differences of AVG-D with their intervals, and the single seeds; a panel a world."""
    figure = new_figure(3 + 5 * len(worlds), 1.4 + 0.45 * len(compared))
    panels = figure.subplots(1, len(worlds), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (world, outcome) in zip(panels, worlds.items(), strict=True):
        for place, arm in enumerate(reversed(compared)):
            if common_seeds(outcome.runs, arm) > 1:
                found = difference(outcome.runs, arm, "AVG-D")
                single = np.subtract(*paired(outcome.runs, arm, "AVG-D"))
                axes.plot(single, [place] * len(single), "o", color=MUTED, markersize=4)
                axes.plot([found.low, found.high], [place, place], color=COLOR, linewidth=2)
                axes.plot(found.mean, place, "s", color=COLOR)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(world)
        axes.set_yticks(range(len(compared)), [f"{arm} - {BY_NAME[arm].against}" for arm in reversed(compared)])
    figure.supxlabel("difference of AVG-D, same seed (square: mean, line: 95 % interval)")
    return figure
