"""`gve curves RUN`: pictures of a training run from its trainer_state.json (paper, Figures 9 and 10)."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gve.eval.charts import new_figure, write_figure
from gve.eval.console import run_command
from gve.hub_datasets.schema import task_of
from gve.media_gve import PNG
from gve.trainers.watching.curriculum_map import draw_curricula

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = Mapping[str, tuple[list[float], list[float]]]
"""By label the places on the horizontal axis and the values."""

CURVES = {
    "loss": "loss",
    "score_positive": "mean cosine of positives",
    "score_mean": "mean cosine of all pairs",
    "score_gap": "positive minus hardest negative",
}
"""What the paper plots (Figures 9, 10), with titles; the log holds `score_gap` and, by task, `score_gap/t2v`."""
_PACE = {
    "tokens_per_second": "tokens a second",
    "padding_waste": "share of padding",
    "data_wait_share": "share of time spent waiting for data",
    "grad_norm": "gradient norm",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="gve curves", description="Draw the curves of a training run as PNG files.")
    parser.add_argument("run", help="output folder of gve train, a checkpoint, or a trainer_state.json")
    parser.add_argument("--out", type=Path, help="folder of the pictures (by default RUN/curves)")
    return run_command(_draw, parser, argv)


def _draw(arguments: argparse.Namespace) -> int:
    for path in draw_run(arguments.run, arguments.out):
        sys.stdout.write(f"{path}\n")
    return 0


def draw_run(run: str | PathLike[str], out: Path | None = None) -> list[Path]:
    """Draw every picture for which the log of a run has numbers.

    Returns:
        The PNG files: `tasks.png` (the paper's four curves by task), `curriculum.png` (R', accuracy and P by
        task and epoch), `pace.png` (speed, padding, waiting, gradient) and `evaluation.png`.
    """
    path = find_state(Path(run))
    history = read_history(path)
    folder = out or path.parent / "curves"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in (
        ("tasks", _draw_tasks),
        ("curriculum", _draw_curriculum),
        ("pace", _draw_pace),
        ("evaluation", _draw_evaluation),
    ):
        if (figure := draw(history)) is not None:
            write_figure(figure, folder / f"{name}{PNG}")
            drawn.append(folder / f"{name}{PNG}")
    return drawn


def find_state(run: Path) -> Path:
    """The log of a run, of its output folder or else of its last checkpoint."""
    if run.is_file():
        return run
    from transformers.trainer import TRAINER_STATE_NAME  # seconds to import, which usage need not wait for
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(run) if run.is_dir() else None
    for folder in (run, *([Path(last)] if last else [])):
        if (folder / TRAINER_STATE_NAME).is_file():
            return folder / TRAINER_STATE_NAME
    raise ValueError(
        f"run: {str(run)!r} holds no {TRAINER_STATE_NAME}; the output folder of gve train is accepted; check it"
    )


def read_history(path: Path) -> list[dict[str, Any]]:
    """The entries of a log."""
    try:
        history = json.loads(path.read_text(encoding="utf-8"))["log_history"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"run: {str(path)!r} is not a trainer_state.json ({error!r}); take the file of a run"
        ) from error
    if not history:
        raise ValueError(f"run: {str(path)!r} has an empty log; lower logging_steps so that steps are logged")
    return history


def series(history: Sequence[Mapping[str, Any]], prefix: str, *, over: str = "step") -> Series:
    """All numbers whose name is the prefix and what follows it."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name.startswith(prefix) and name != prefix and isinstance(value, int | float):
                places, values = found.setdefault(name.removeprefix(prefix), ([], []))
                places.append(entry[over])
                values.append(float(value))
    return found


def _draw_tasks(history: Sequence[Mapping[str, Any]]) -> Any:
    by_task = {name: series(history, f"{name}/") for name in CURVES}
    if not any(by_task.values()):
        return None
    figure = new_figure(12, 7.5)
    tasks = list(dict.fromkeys(task for lines in by_task.values() for task in lines))
    colours = _colours(tasks)
    for axes, name in zip(figure.subplots(2, 2).flat, CURVES, strict=True):
        rows = [entry for entry in history if name in entry]
        steps, values = [row["step"] for row in rows], [row[name] for row in rows]
        axes.plot(steps, values, color="black", linewidth=1, alpha=0.35, label="all tasks")
        _lines(axes, by_task[name], colours)
        axes.set(title=CURVES[name], xlabel="optimizer step")
    _legend(figure)
    return figure


def _draw_curriculum(history: Sequence[Mapping[str, Any]]) -> Any:
    epochs = [entry for entry in history if "sigma" in entry and series([entry], "P/")]
    return draw_curricula({"": epochs}) if epochs else None


def _draw_pace(history: Sequence[Mapping[str, Any]]) -> Any:
    there = {name: title for name, title in _PACE.items() if any(name in entry for entry in history)}
    if not there:
        return None
    figure = new_figure(12, 1 + 3.2 * -(-len(there) // 2))
    panels = list(figure.subplots(-(-len(there) // 2), 2, squeeze=False).flat)
    for axes, (name, title) in zip(panels, there.items(), strict=False):
        rows = [entry for entry in history if name in entry]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], color="tab:blue", linewidth=1.2)
        axes.set(title=title, xlabel="optimizer step")
        if name.endswith(("_share", "_waste")):
            axes.set_ylim(0, 1)
    for axes in panels[len(there) :]:
        axes.axis("off")
    return figure


def _draw_evaluation(history: Sequence[Mapping[str, Any]]) -> Any:
    timing = ("runtime", "samples_per_second", "steps_per_second")
    lines = {name: line for name, line in series(history, "eval_").items() if name not in timing}
    if not lines:
        return None
    figure = new_figure(9, 5.5)
    axes = figure.subplots()
    _lines(axes, lines, _colours(list(lines)), marker="o")
    axes.set(title="evaluation while training", xlabel="optimizer step")
    _legend(figure)
    return figure


def _lines(axes: "Axes", lines: Series, colours: Mapping[str, Any], marker: str | None = None) -> None:
    for name, (places, values) in lines.items():
        alone = "o" if len(values) == 1 else marker
        axes.plot(places, values, color=colours[name], linewidth=1.4, marker=alone, markersize=4, label=name)
    axes.grid(alpha=0.25)


def _legend(figure: Any) -> None:
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize=8, frameon=False)


def _colours(names: Sequence[str]) -> dict[str, Any]:
    """One colour a name; sources of one task, such as t2v-spatial, stand side by side in the order of the maps."""
    from matplotlib import colormaps

    ordered = sorted(names, key=lambda name: (task_of(name) or "", name))
    palette = [*colormaps["tab10"].colors, *colormaps["tab20b"].colors, *colormaps["Set2"].colors]
    return {name: palette[place % len(palette)] for place, name in enumerate(ordered)}


if __name__ == "__main__":
    sys.exit(main())
