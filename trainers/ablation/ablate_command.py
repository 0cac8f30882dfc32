"""`gve ablate`: compare data, schedules and pre-training on the rendered world, over seeds."""

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from gve.eval.console import run_command
from gve.hub_datasets.files import write_json
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.world.sets import Sizes
from gve.trainers.ablation.arms import ARMS, ORACLE, Arm, chosen
from gve.trainers.ablation.jobs import Machine, run_jobs
from gve.trainers.ablation.scaling import AXES

if TYPE_CHECKING:
    from gve.trainers.ablation.study import Study

LEAST_STEPS, LEAST_DRAWS, MOST_SHARE = 20, 4, 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all went well, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="gve ablate", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gve-ablation"), help="folder (default: gve-ablation)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm (default: 5)")
    parser.add_argument("--steps", type=int, help="steps of each run (default: 160)")
    parser.add_argument("--lessons", type=int, help="steps of the shared pre-training (default: 1500)")
    parser.add_argument("--world", help="default or held-out, which has other shapes and actions (default: default)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the default number of pairs (default: 1)")
    parser.add_argument(
        "--arms", nargs="+", help=f"of {', '.join(arm.name for arm in ARMS)} (default: all but dependency, oracle)"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        nargs="+",
        default=[],
        metavar="OUT",
        help="studies of other worlds or sizes, for one report",
    )
    parser.add_argument(
        "--oracle", type=int, default=0, metavar="RUNS", help="first search the oracle's priors, so many runs a round"
    )
    parser.add_argument(
        "--transfer", action="store_true", help="first measure what steps of each task do to the others"
    )
    parser.add_argument(
        "--scaling",
        nargs="*",
        choices=AXES,
        metavar="AXIS",
        help=f"measure scaling by {', '.join(AXES)} (default: all)",
    )
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time, one thread each (default: 2)")
    parser.add_argument("--workers", type=int, help="processes that render and decode (default: as --parallel)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run that would end later than this")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu"), help="cpu: train on a GPU only what all runs begin with"
    )
    parser.add_argument(
        "--recipe", help="YAML file with these options and a `study`, such as world-gpu; flags override"
    )
    parser.set_defaults(study={})
    return run_command(partial(_with_recipe, parser, argv), parser, argv)


def _with_recipe(parser: argparse.ArgumentParser, argv: Sequence[str] | None, arguments: argparse.Namespace) -> int:
    if arguments.recipe:
        from gve.trainers.recipe import read_recipe  # seconds to import

        parser.set_defaults(**read_recipe(arguments.recipe, vars(arguments), folder="ablation"))
        arguments = parser.parse_args(argv)
    return _ablate(arguments, time.monotonic() + 60 * arguments.minutes)


def _ablate(arguments: argparse.Namespace, ends: float) -> int:
    arms = chosen(arguments.arms)
    for name, least in (("seeds", 2), ("steps", LEAST_STEPS), ("lessons", 1), ("parallel", 1), ("workers", 1)):
        if (given := getattr(arguments, name)) is not None and given < least:
            raise ValueError(f"--{name}: got {given}; it must be {least} or more.")
    if arguments.oracle and arguments.oracle < LEAST_DRAWS:
        raise ValueError(
            f"--oracle: got {arguments.oracle}; it must be {LEAST_DRAWS} or more runs a round, or 0 for none."
        )
    if not 0.01 <= arguments.share <= MOST_SHARE:
        raise ValueError(f"--share: got {arguments.share:g}; it must be 0.01 to {MOST_SHARE}. The default is 1.")
    for arm in arms:
        if arm.needs and not getattr(arguments, arm.needs) and not (arguments.out / f"{arm.needs}.json").is_file():
            raise ValueError(f"--arms: {arm.name} needs {arm.needs}.json in {arguments.out}. Add --{arm.needs}.")
    from transformers.utils import logging as transformers_logging  # this and a study take seconds to import

    from gve.trainers.ablation.outcomes import common_seeds, difference, read_outcome
    from gve.trainers.ablation.preparation import prepare
    from gve.trainers.ablation.report import write_report
    from gve.trainers.ablation.scaling import run_scaling
    from gve.trainers.ablation.study import run_one, score_start

    others = [read_outcome(folder) for folder in arguments.beside]
    flags = {name: getattr(arguments, name) for name in ("steps", "lessons", "world")}
    given = {name: value for name, value in flags.items() if value is not None}
    study = make_study(arguments.out, share=arguments.share, **arguments.study | given)
    machine, workers = Machine(arguments.parallel, arguments.device, ends), arguments.workers or arguments.parallel
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    transformers_logging.set_verbosity_error()
    prepare(study, workers=workers, counterfactual=any(arm.counterfactual for arm in arms))
    measure_first(study, arguments, machine)
    jobs = [
        (score_start, study),
        *((run_one, study, arm.name, seed) for seed in range(arguments.seeds) for arm in arms),
    ]
    run_jobs(jobs, machine, every=len(arms), lead=1, after=partial(_tell, study.root, time.monotonic()))
    if arguments.scaling is not None:
        run_scaling(study, arguments.scaling or AXES, range(arguments.seeds), machine)
    outcome = read_outcome(study.root)
    write_report([outcome, *others], study.root)
    compared = [arm for arm in outcome.runs if common_seeds(outcome.runs, arm) > 1]
    found = {arm: difference(outcome.runs, arm, "AVG-D")._asdict() for arm in compared}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def _tell(root: Path, begun: float) -> None:
    """Write what the finished runs say so far, to stderr; nothing before there are two seeds."""
    from gve.trainers.ablation.outcomes import common_seeds, difference, read_outcome

    runs = read_outcome(root).runs
    for arm in runs:
        if common_seeds(runs, arm) > 1:
            found = difference(runs, arm, "AVG-D")
            spread = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}], {found.seeds} seeds"
            tqdm.write(f"{time.monotonic() - begun:5.0f} s  {arm:18} {spread}", file=sys.stderr)


def make_study(root: Path, *, share: float = 1.0, **settings: Any) -> "Study":
    """A study on a share of the default pairs and raw videos, with other fields of `Study` as given."""
    from gve.trainers.ablation.study import PAIRS, Study

    if unknown := set(settings) - {one.name for one in fields(Study)}:
        raise ValueError(f"study: got {', '.join(sorted(unknown))}; fields of Study are accepted. Correct the name.")
    pairs = {task: max(80, int(count * share) // 4 * 4) for task, count in PAIRS.items()}
    small = {} if share >= 0.5 else {"base": 12, "groups": 3, "programs": 6, "themes": 8, "longs": 8, "composed": 6}
    sizes = Sizes(**settings.pop("sizes", small))
    return Study(**{"root": root, "pairs": pairs, "raw": max(80, int(1600 * share)), "sizes": sizes} | settings)


def measure_first(study: "Study", arguments: argparse.Namespace, machine: Machine) -> None:
    """Search the oracle's priors and measure the transfer between tasks, where asked."""
    from gve.trainers.ablation.oracle import search_priors
    from gve.trainers.ablation.study import run_one, source_names
    from gve.trainers.ablation.transfer import run_transfer, summarise_transfer

    machine = replace(machine, ends=math.inf)  # what follows needs all of it
    if arguments.oracle:

        def score(arms: Sequence[tuple[Arm, int]]) -> list[float]:
            runs = run_jobs([(run_one, study, *arm) for arm in arms], machine)
            return [run["averages"]["AVG-D"]["score"] for run in runs]

        found = search_priors(source_names(study), score, draws=arguments.oracle)
        write_json(study.root / f"{ORACLE}.json", found)
    if arguments.transfer:
        jobs = [(run_transfer, study, task, seed) for seed in range(arguments.seeds) for task in TASKS]
        write_json(study.root / "transfer.json", summarise_transfer(run_jobs(jobs, machine)))


if __name__ == "__main__":
    sys.exit(main())
