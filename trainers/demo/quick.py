"""`gve demo --quick`: a small gallery of the rendered world, searched and scored with the checkpoint that ships."""

import os
import sys
import webbrowser
from pathlib import Path

import datasets
import torch

from gve.eval.benchmark import run_benchmark
from gve.eval.models import load_encoder, weights_fingerprint
from gve.eval.report import write_report
from gve.eval.tables import aligned_table
from gve.hub_datasets.world.sets import Sizes
from gve.tiny.demo import load_demo
from gve.trainers.demo.queries import CONTACT_SHEET
from gve.trainers.demo.stages import Stage, answer_queries, render_world
from gve.trainers.demo.workspace import DemoSize, Workspace

SIZE = DemoSize(pairs={}, sizes=Sizes(base=32, groups=8, programs=4, themes=4, longs=8, composed=8), raw=0)
SETS = ("MSRVTT", "MSRVTT-I2V", "CRB-S", "MS-TI")
"""One set of coarse texts, one of images, one of relations, one of texts with images."""


def place_model(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Save the checkpoint as a folder of its own, as a trained demo has one."""
    load_demo().save(str(workspace.model))


def score_few(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Score SETS on combinations that training never showed."""
    encoder, fingerprint = load_encoder(str(workspace.model)), weights_fingerprint(workspace.model)
    report = run_benchmark(encoder, workspace.uvrb, sets=SETS, split="unseen", fingerprint=fingerprint)
    write_report(report, workspace.root)
    keys = ("score", "chance", "num_queries")
    workspace.facts["scores"] = {name: [entry[key] for key in keys] for name, entry in report["sets"].items()}


STAGES: dict[str, Stage] = {
    "world": render_world,
    "model": place_model,
    "score": score_few,
    "queries": answer_queries,
}


def run_quick(workspace: Workspace) -> None:
    """Run every stage that is not done yet, then print the summary."""
    datasets.disable_progress_bars()  # one for each of the tables, all of a few rows
    torch.set_num_threads(1)  # the model is so small that on a busy machine a second thread costs more than it brings
    workspace.facts["quick"] = True
    for name, work in STAGES.items():
        with workspace.stage(name) as needed:
            if needed:
                work(workspace, SIZE, 0.0)
    sys.stdout.write(_summary(workspace) + "\n")
    open_picture(workspace.root / CONTACT_SHEET)


def open_picture(path: Path) -> None:
    """Show a picture on the desktop of whoever runs the command in a terminal; without either, do nothing."""
    desktop = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if desktop and sys.stdout.isatty():
        webbrowser.open(path.resolve().as_uri())


def _summary(workspace: Workspace) -> str:
    root, scores = workspace.root, workspace.facts["scores"].items()
    lines = [(name, f"{score:.3f}", f"{chance:.3f}", str(count)) for name, (score, chance, count) in scores]
    table = aligned_table(("set", "score", "chance", "queries"), lines, numbers=("score", "chance", "queries"))
    ranks = ", ".join(f"{query} {rank}" for query, rank in workspace.facts["first_right"].items())
    return f"""{table}
five queries, rank of the first video that answers each: {ranks}
The model knows coloured shapes and nothing else, and these sets are small: gve demo makes both at full size.

look at     {root / CONTACT_SHEET}, and {root / "queries"}/*.png
videos      {root / "data" / "uvrb" / "videos"}
report      {root / "report.md"}

next        gve search {root / "corpus.safetensors"} 'a red ring and a blue square in the snow'
            gve app {root}
            gve demo
            gve search YOUR_VIDEOS 'your words' --model Alibaba-NLP/GVE-3B"""
