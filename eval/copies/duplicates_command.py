"""The command `gve duplicates`: it reports copies and deletes nothing."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from gve.eval.console import check_out, fail, printable, report_others, run_command
from gve.eval.copies.report import to_json, to_table, write_html
from gve.eval.copies.suggestions import find_copies
from gve.eval.index.storage import real_path
from gve.eval.index.table import Index, is_index
from gve.eval.inputs import find_files

OK, SOME_SKIPPED = 0, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 if every file was compared, 3 if some were not, 2 for bad usage, 130 when interrupted."""
    return run_command(_duplicates, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve duplicates",
        description="Find copies among videos and images: exact, re-encoded, changed and partial ones. Nothing is deleted.",
    )
    parser.add_argument("where", metavar="DIR|INDEX", help="folder of videos and images, or an index of `gve index`")
    parser.add_argument("--out", type=Path, metavar="HTML", help="write a page with frames side by side")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--least",
        type=float,
        default=2.0,
        help="seconds that two videos must share, or most of the shorter one (%(default)s)",
    )
    return parser


def _duplicates(arguments: argparse.Namespace) -> int:
    if not (math.isfinite(arguments.least) and arguments.least > 0):
        fail(f"--least: must be seconds above 0, got {arguments.least}. Correct it.")
    check_out(arguments.out, folder=False)
    if is_index(arguments.where):
        index = Index.open(arguments.where)
        named = {name for batch in index.scan(["path"]) for name in batch["path"].to_pylist()}
        found = find_copies(sorted(map(real_path, named)), least=arguments.least, index=index)
    else:
        paths, others = find_files([arguments.where])
        report_others(others)
        found = find_copies(paths, least=arguments.least)
    for path, reason in found.unread.items():
        sys.stderr.write(f"left out {printable(path)}: {reason}\n")
    if found.unread and not found.files:
        fail(f"DIR: none of the {len(found.unread)} files could be read. See the reasons above.")
    if arguments.out is not None:
        write_html(found, arguments.out)
    sys.stdout.write(to_json(found) if arguments.json else to_table(found))
    return SOME_SKIPPED if found.unread else OK
