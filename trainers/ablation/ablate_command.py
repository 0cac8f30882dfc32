"""`gve ablate`: compare data, schedules and pre-training on the rendered world, over seeds."""

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
from gve.hub_datasets.files import read_json
from gve.hub_datasets.world.sets import Sizes
from gve.trainers.ablation.arms import ARMS, BASELINE, chosen

if TYPE_CHECKING:
    from gve.trainers.ablation.study import Study

LEAST_STEPS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all went well, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="gve ablate", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gve-ablation"), help="folder (default: gve-ablation)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm (default: 5)")
    parser.add_argument("--steps", type=int, default=160, help="steps of each run (default: 160)")
    parser.add_argument("--lessons", type=int, default=1500, help="steps of the shared pre-training (default: 1500)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the default number of pairs (default: 1)")
    parser.add_argument("--arms", nargs="+", help=f"of {', '.join(arm.name for arm in ARMS)} (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="parallel runs, one thread each (default: 2)")
    return run_command(_ablate, parser, argv)


def _ablate(arguments: argparse.Namespace) -> int:
    arms = chosen(arguments.arms)
    for name, least in (("seeds", 2), ("steps", LEAST_STEPS), ("lessons", 1), ("processes", 1)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name}: got {getattr(arguments, name)}; it must be {least} or more.")
    if not 0.01 <= arguments.share <= 10:
        raise ValueError(f"--share: got {arguments.share:g}; it must be 0.01 to 10. The default is 1.")
    from transformers.utils import logging as transformers_logging  # this and a study take seconds to import

    from gve.trainers.ablation.report import Start, difference, write_report
    from gve.trainers.ablation.study import finished, prepare, score_start

    study = make_study(arguments.out, steps=arguments.steps, lessons=arguments.lessons, share=arguments.share)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    transformers_logging.set_verbosity_error()
    prepare(study, workers=arguments.processes)
    run_all(study, [arm.name for arm in arms], range(arguments.seeds), processes=arguments.processes)
    runs = finished(study)
    start = Start(read_json(study.root / "told_right.json"), score_start(study))
    write_report(runs, study.root, read_json(study.root / "study.json"), start)
    found = {arm: difference(runs, arm, "AVG-D")._asdict() for arm in runs if arm != BASELINE}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def make_study(root: Path, *, steps: int, lessons: int, share: float = 1.0) -> "Study":
    """A study with runs of so many steps, on a share of the default pairs and raw videos."""
    from gve.trainers.ablation.study import PAIRS, Study

    pairs = {task: max(80, int(count * share) // 4 * 4) for task, count in PAIRS.items()}
    small = Sizes() if share >= 0.5 else Sizes(base=12, groups=3, programs=6, themes=8, longs=8, composed=6)
    return Study(root, steps, lessons, pairs, raw=max(80, int(1600 * share)), sizes=small)


def run_all(study: "Study", arms: Sequence[str], seeds: Sequence[int], *, processes: int) -> None:
    """Run every arm with every seed; seeds first, so that an interrupted study has whole seeds."""
    from gve.trainers.ablation.study import run_one, set_threads

    pairs = [(arm, seed) for seed in seeds for arm in arms]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context, initializer=set_threads, initargs=(1,)) as pool,
        tqdm(total=len(pairs), desc="runs", unit="run") as bar,
    ):
        waiting = {pool.submit(run_one, study, arm, seed): f"{arm} {seed}" for arm, seed in pairs}
        for done in as_completed(waiting):
            done.result()
            bar.update()
            bar.set_postfix_str(waiting[done])


if __name__ == "__main__":
    sys.exit(main())
