"""Transfer between tasks: what some steps of one task alone do to the probes of all, from the pre-trained model on.

Shapes: K tasks, S seeds.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gve.eval.charts import new_figure
from gve.eval.heatmaps import draw_cells
from gve.hub_datasets.files import read_json, write_json
from gve.hub_datasets.schema import TASKS, task_of
from gve.trainers.ablation.arms import COLLECTED, Arm
from gve.trainers.curriculum.weights import TaskScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gve.trainers.ablation.study import Study

STEPS = 40
"""Steps of one task: enough to move its own probe, few enough that the model does not forget everything else."""


def run_transfer(study: "Study", task: str, seed: int) -> dict[str, Any]:
    """The mean reciprocal rank of each source's held-out probe before and after steps of one task; finished runs are read."""
    from gve.trainers.ablation.study import make_trainer  # seconds to import

    path = study.root / "transfer" / f"{task}-{seed}.json"
    if path.is_file():
        return read_json(path)
    arm = Arm(f"{task}-alone", f"steps of {task} alone", only=task, bounded=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(study, arm, seed, Path(folder), steps=STEPS, epochs=1)
        before = _ranks(trainer.probe(1))
        trainer.train()
        result = {"task": task, "seed": seed, "before": before, "after": _ranks(trainer.probe(1))}
    write_json(path, result)
    return result


def _ranks(scores: Mapping[str, TaskScores]) -> dict[str, float]:
    return {source: round(measured.reciprocal, 6) for source, measured in scores.items()}


def summarise_transfer(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """(K, K) mean gains of MRR and their standard deviations over seeds; row: the task trained, column: the task probed."""
    tasks = [task for task in TASKS if any(run["task"] == task for run in runs)]
    gains = {task: np.array([_gains(run, tasks) for run in runs if run["task"] == task]) for task in tasks}  # (S, K)
    before = np.mean([[_by_task(run["before"])[task] for task in tasks] for run in runs], axis=0)
    spread = [gains[task].std(axis=0, ddof=1 if len(gains[task]) > 1 else 0).round(4).tolist() for task in tasks]
    return {
        "tasks": tasks,
        "steps": STEPS,
        "seeds": sorted({run["seed"] for run in runs}),
        "before": before.round(4).tolist(),
        "mean": [gains[task].mean(axis=0).round(4).tolist() for task in tasks],
        "spread": spread,
    }


def _gains(run: Mapping[str, Any], tasks: Sequence[str]) -> list[float]:
    before, after = _by_task(run["before"]), _by_task(run["after"])
    return [after[task] - before[task] for task in tasks]


def _by_task(ranks: Mapping[str, float]) -> dict[str, float]:
    """Each task's mean over its synthesized sources."""
    found: dict[str, list[float]] = {}
    for source, rank in ranks.items():
        if source != COLLECTED:
            found.setdefault(str(task_of(source)), []).append(rank)
    return {task: float(np.mean(of_task)) for task, of_task in found.items()}


def draw_transfer(summary: Mapping[str, Any]) -> "Figure":
    """Mean gains and their spread side by side, in hundredths; the colour is strongest at the largest gain."""
    figure = new_figure(11, 4.6)
    left, right = figure.subplots(1, 2)
    rows = [f"{task} trained" for task in summary["tasks"]]
    most = max(float(np.abs(summary["mean"]).max()), 1e-9)
    for axes, name, title in (
        (left, "mean", f"gain of the probe's MRR x 100 after {summary['steps']} steps"),
        (right, "spread", f"standard deviation over {len(summary['seeds'])} seeds"),
    ):
        cells = 100 * np.array(summary[name])  # (K, K)
        draw_cells(axes, cells.tolist(), rows, summary["tasks"], shades=cells / 100 / most, digits=1)
        axes.set_title(title, fontsize=11)
    return figure
