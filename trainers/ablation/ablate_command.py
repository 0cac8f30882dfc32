"""`gve ablate`: the ablation on the rendered world, by one command."""

import argparse
import json
import logging
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from gve.eval.console import run_command
from gve.hub_datasets.world.sets import Sizes
from gve.trainers.ablation.arms import ARMS, BASELINE, chosen

if TYPE_CHECKING:
    from gve.trainers.ablation.study import Study

LEAST_STEPS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; those of the process if None.

    Returns:
        0 when all went well, 2 for bad arguments.
    """
    return run_command(_ablate, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve ablate", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gve-ablation"), help="folder (default: gve-ablation)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm (default: 5)")
    parser.add_argument("--steps", type=int, default=160, help="steps of each run (default: 160)")
    parser.add_argument("--lessons", type=int, default=1500, help="steps of the shared pre-training (default: 1500)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the default number of pairs (default: 1)")
    parser.add_argument("--arms", nargs="+", help=f"of {', '.join(arm.name for arm in ARMS)} (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each (default: 2)")
    return parser


def _ablate(arguments: argparse.Namespace) -> int:
    arms = chosen(arguments.arms)
    for name, least in (("seeds", 2), ("steps", LEAST_STEPS), ("lessons", 1), ("processes", 1)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name}: got {getattr(arguments, name)}; {least} or more is accepted; raise it")
    if not 0.01 <= arguments.share <= 10:
        raise ValueError(f"--share: got {arguments.share:g}; 0.01 to 10 is accepted; 1 is the default")
    from transformers.utils import logging as transformers_logging  # this and a study take seconds to import

    from gve.trainers.ablation.report import Start, difference, write_report
    from gve.trainers.ablation.study import finished, prepare, score_start

    study = plan(arguments.out, steps=arguments.steps, lessons=arguments.lessons, share=arguments.share)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    transformers_logging.set_verbosity_error()
    prepare(study, workers=arguments.processes)
    run_all(study, [arm.name for arm in arms], range(arguments.seeds), processes=arguments.processes)
    runs = finished(study)
    settings = json.loads((study.root / "study.json").read_text())
    told_right = json.loads((study.root / "told_right.json").read_text())
    write_report(runs, study.root, settings, Start(told_right, score_start(study)))
    found = {arm: difference(runs, arm, "AVG-D")._asdict() for arm in runs if arm != BASELINE}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def plan(root: Path, *, steps: int, lessons: int, share: float = 1.0) -> "Study":
    """The study of so many steps on a share of the default data.

    Args:
        root: Its folder.
        steps: Of a run.
        lessons: Of the pre-training.
        share: Of the default number of pairs and raw videos.
    """
    from gve.trainers.ablation.study import PAIRS, Study

    pairs = {task: max(80, int(count * share) // 4 * 4) for task, count in PAIRS.items()}
    small = Sizes() if share >= 0.5 else Sizes(base=12, groups=3, programs=6, themes=8, longs=8, composed=6)
    return Study(root, steps, lessons, pairs, raw=max(80, int(1600 * share)), sizes=small)


def run_all(study: "Study", arms: Sequence[str], seeds: Sequence[int], *, processes: int) -> None:
    """Every arm with every seed; seeds first, so that an interrupted study has whole seeds.

    Args:
        study: The study, prepared.
        arms: Names.
        seeds: Of the runs.
        processes: Runs side by side.
    """
    from gve.trainers.ablation.study import run_one, set_threads

    jobs = [(arm, seed) for seed in seeds for arm in arms]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context, initializer=set_threads, initargs=(1,)) as pool,
        tqdm(total=len(jobs), desc="runs", unit="run") as bar,
    ):
        waiting = {pool.submit(run_one, study, arm, seed): (arm, seed) for arm, seed in jobs}
        for done in as_completed(waiting):
            arm, seed = waiting[done]
            done.result()
            bar.update()
            bar.set_postfix_str(f"{arm} {seed}")


if __name__ == "__main__":
    sys.exit(main())
