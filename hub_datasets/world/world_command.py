"""`gve world OUT`: render the world's training pairs, benchmark and raw corpus into a folder."""

import argparse
import json
import sys
from collections.abc import Sequence

from gve.hub_datasets.world.worlds import DEFAULT, WORLDS


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="gve world", description=__doc__)
    parser.add_argument("out", help="folder to write; an interrupted build is continued")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument(
        "--world", choices=tuple(WORLDS), default=DEFAULT, help="shapes and actions (default: default)"
    )
    parser.add_argument(
        "--pairs-scale", type=float, default=1.0, help="multiple of the default training rows; 0 for none"
    )
    parser.add_argument(
        "--counterfactuals", type=int, default=0, help="rows of each source of counterfactual pairs (default: 0)"
    )
    parser.add_argument("--raw", type=int, default=200, help="videos of the raw corpus; 0 for none (default: 200)")
    parser.add_argument("--no-sets", action="store_true", help="leave the benchmark out")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; what was built is printed as JSON."""
    arguments = make_parser().parse_args(argv)
    if min(arguments.pairs_scale, arguments.counterfactuals, arguments.raw) < 0:
        make_parser().error("--pairs-scale, --counterfactuals and --raw must be 0 or more, got a negative number")
    from gve.hub_datasets.schema import COUNTERFACTUALS
    from gve.hub_datasets.world.build import DEFAULT_PAIRS, build_world  # a second to import, with datasets

    world = build_world(
        arguments.out,
        seed=arguments.seed,
        pairs={task: round(count * arguments.pairs_scale) for task, count in DEFAULT_PAIRS.items()}
        | dict.fromkeys(COUNTERFACTUALS, arguments.counterfactuals),
        sets=not arguments.no_sets,
        raw=arguments.raw,
        workers=arguments.workers,
        progress=not arguments.quiet,
        world=arguments.world,
    )
    sys.stdout.write(json.dumps(world) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
