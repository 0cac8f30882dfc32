"""`gve demo`: from raw videos to a trained, scored and searchable embedder, on one machine."""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gve.eval.console import run_command

if TYPE_CHECKING:
    from gve.trainers.demo.estimate import Plan
    from gve.trainers.demo.workspace import Workspace

LEAST_MINUTES, MOST_MINUTES = 1, 24 * 60
START_AND_END = 10.0
"""Seconds that loading the libraries and the summary take."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; those of the process if None.

    Returns:
        0 when all went well, 2 for bad arguments, 130 when interrupted.
    """
    return run_command(_demo, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gve-demo"), help="folder of the demo (default: gve-demo)")
    parser.add_argument("--minutes", type=float, default=15, help="budget of the whole demo (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with the demo that lies in --out")
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    if not LEAST_MINUTES <= arguments.minutes <= MOST_MINUTES:
        raise ValueError(
            f"--minutes: got {arguments.minutes:g}; {LEAST_MINUTES} to {MOST_MINUTES} are accepted; 15 is a good start"
        )
    if arguments.seed < 0:
        raise ValueError(f"--seed: got {arguments.seed}; 0 or more is accepted; choose another")
    from transformers.utils import logging as transformers_logging  # seconds to import

    from gve.trainers.demo.workspace import open_workspace

    transformers_logging.set_verbosity_error()
    workspace = open_workspace(arguments.out, minutes=arguments.minutes, seed=arguments.seed, resume=arguments.resume)
    try:
        run(workspace, _write)
    except KeyboardInterrupt:
        _write(f"interrupted; what is done is kept: gve demo --out {workspace.root} --resume")
        return 130
    return 0


def run(workspace: "Workspace", write: Callable[[str], Any], plan: "Plan | None" = None) -> None:
    """Run every stage that is not done yet, then show the summary.

    Args:
        workspace: The demo.
        write: Shows a line to the user.
        plan: What to make; None plans by the workspace's minutes.
    """
    from gve.trainers.demo.estimate import make_plan  # with the stages, all of the project
    from gve.trainers.demo.stages import STAGES, Job
    from gve.trainers.demo.summary import summarise

    begun = time.monotonic() - sum(workspace.stages.values())
    plan = make_plan(workspace.minutes) if plan is None else plan
    write(f"gve demo in {workspace.root}: about {sum(plan.seconds.values()) / 60:.0f} minutes on this machine")
    write("  " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in plan.seconds.items()))
    for name, work in STAGES.items():
        with workspace.stage(name, write) as needed:
            if needed:
                left = workspace.minutes * 60 - (time.monotonic() - begun) - plan.after_training - START_AND_END
                work(Job(workspace, plan, max(left, plan.least_training), write))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    workspace.facts["peak_memory_mb"] = max(workspace.facts.get("peak_memory_mb", 0), peak >> 10)
    workspace.save()
    sys.stdout.write(summarise(workspace) + "\n")


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
