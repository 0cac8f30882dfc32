"""`gve demo`: from raw videos to a trained, scored and searchable embedder, on one machine; or a quick look at one."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from gve.eval.console import run_command

if TYPE_CHECKING:
    from gve.trainers.demo.workspace import DemoSize, Workspace

MINUTES, QUICK_MINUTES, LEAST_MINUTES, MOST_MINUTES = 15, 1, 1, 24 * 60
START_AND_END = 10.0
"""Seconds that loading the libraries and the summary take."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all went well, 2 for bad arguments, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="gve demo", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the demo (default: gve-demo, or gve-quick)")
    parser.add_argument("--minutes", type=float, help="time for the whole demo (default: 15)")
    parser.add_argument(
        "--quick", action="store_true", help="under a minute: search and score with the model that ships"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument("--resume", action="store_true", help="continue the demo in --out")
    return run_command(_demo, parser, argv)


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.quick and arguments.minutes is not None:
        raise ValueError(
            f"--minutes: got {arguments.minutes:g} with --quick, which trains nothing. Leave one of them out."
        )
    minutes = (QUICK_MINUTES if arguments.quick else MINUTES) if arguments.minutes is None else arguments.minutes
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise ValueError(
            f"--minutes: got {minutes:g}; it must be {LEAST_MINUTES} to {MOST_MINUTES}. 15 is a good start."
        )
    if arguments.seed < 0:
        raise ValueError(f"--seed: got {arguments.seed}; it must be 0 or more.")
    from transformers.utils import logging as transformers_logging  # seconds to import

    from gve.trainers.demo.workspace import open_workspace

    transformers_logging.set_verbosity_error()
    out = arguments.out or Path("gve-quick" if arguments.quick else "gve-demo")
    workspace = open_workspace(out, minutes=minutes, seed=arguments.seed, resume=arguments.resume)
    if workspace.stages and arguments.quick != workspace.facts.get("quick", False):
        raise ValueError(f"--quick: {out} holds a demo of the other kind. Choose another folder, or change --quick.")
    try:
        if arguments.quick:
            from gve.trainers.demo.quick import run_quick  # imports most of the project

            transformers_logging.disable_progress_bar()
            run_quick(workspace)
        else:
            run(workspace)
    except KeyboardInterrupt:
        workspace.write(f"interrupted; finished stages are kept: add --resume to go on, with --out {workspace.root}")
        return 130
    return 0


def run(workspace: "Workspace", size: "DemoSize | None" = None) -> None:
    """Run every stage that is not done yet, then print the summary; without a size, fit it to the minutes."""
    from gve.trainers.demo.stages import STAGES  # imports most of the project
    from gve.trainers.demo.workspace import size_for

    begun = time.monotonic() - sum(workspace.stages.values())
    size = size_for(workspace.minutes) if size is None else size
    workspace.write(
        f"gve demo in {workspace.root}: about {sum(size.seconds.values()) / 60:.0f} minutes on this machine"
    )
    workspace.write("  " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in size.seconds.items()))
    for name, work in STAGES.items():
        with workspace.stage(name) as needed:
            if needed:
                left = workspace.minutes * 60 - (time.monotonic() - begun) - size.after_training - START_AND_END
                work(workspace, size, max(left, size.least_training))
    workspace.facts["peak_memory_mb"] = max(workspace.facts.get("peak_memory_mb", 0), peak_memory() >> 20)
    workspace.save()
    sys.stdout.write(summarise(workspace) + "\n")


def peak_memory() -> int:
    """The most bytes that this process or one that it started has held; on Windows this one alone."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # Windows has none

    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most if sys.platform == "darwin" else most << 10  # macOS counts bytes, Linux KiB


def summarise(workspace: "Workspace") -> str:
    """The last words of a finished demo: its scores, its files, and what to do next."""
    from gve.eval.report import to_table

    root, facts = workspace.root, workspace.facts
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in workspace.stages.items())
    made = facts["synflow"]
    ranks = ", ".join(f"{query} {rank}" for query, rank in facts["first_right"].items())
    search = f"gve search --model {root / 'model'}"
    return f"""{to_table(json.loads((root / "report.json").read_text()))}

time        {sum(workspace.stages.values()) / 60:.1f} minutes ({times})
V-SynFlow   {made["records"]} raw videos, {made["kept"]} kept; {sum(made["rows"].values())} pairs
training    {facts["steps"]} steps on {facts["pairs"]} pairs, {facts["dtype"]}
memory      {facts["peak_memory_mb"]} MB at most in one process
five queries, rank of the first video that answers each: {ranks}

model       {root / "model"}
report      {root / "report.md"}, {root / "report.json"}
pictures    {root / "radar.png"}, {root / "bars.png"}, {root / "curriculum.png"}, {root / "queries"}/*.png
videos      {root / "data" / "uvrb" / "videos"}

next        {search} {root / "corpus.safetensors"} 'a red ring and a blue square in the snow'
            {search} YOUR_VIDEOS 'your words'
            gve eval --model {root / "model"} --data {root / "data" / "uvrb"} --split seen"""
