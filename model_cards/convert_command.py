"""`gve convert`: a published checkpoint to a folder of ours, or one of ours to a stock Qwen-VL folder."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gve.eval.console import run_command
from gve.positions_gve import POSITION_MODES
from gve.sentence_gve import MAX_SHARD_SIZE

DTYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 with a complete folder, 2 for bad usage or a source that cannot be converted."""
    return run_command(_convert, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve convert",
        description="Convert a published checkpoint to an embedder of this project, or back to a stock Qwen-VL checkpoint.",
        epilog="Prints a JSON summary. DST appears once it is complete and gives the source's vectors.",
    )
    parser.add_argument("source", metavar="SRC", help="folder or Hub name of a GVE or Qwen-VL model")
    parser.add_argument("target", metavar="DST", type=Path, help="folder to write")
    parser.add_argument("--to", choices=("gve", "stock"), default="gve", help="layout to write (default: gve)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="LoRA adapter to merge first")
    parser.add_argument("--position-mode", choices=POSITION_MODES, help="positions of the result; SRC's by default")
    parser.add_argument("--dtype", choices=DTYPES, help="number format of the weights; SRC's by default")
    parser.add_argument(
        "--max-shard-size", metavar="SIZE", default=MAX_SHARD_SIZE, help="largest file of weights (default: 5GB)"
    )
    parser.add_argument("--force", action="store_true", help="replace DST if it is a model's folder")
    return parser


def _convert(arguments: argparse.Namespace) -> int:
    from gve.model_cards.conversion import convert  # takes seconds to import; usage errors should not wait

    return convert(arguments)
