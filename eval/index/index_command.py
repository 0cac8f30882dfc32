"""The command `gve index`: keeps an index of videos and images on disk, and searches it."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gve.eval.console import INTERRUPTED, fail, run_command
from gve.eval.encoders import Encoder
from gve.eval.index.ann import KINDS, build_ann, describe
from gve.eval.index.building import Report, add, open_for, remove, update
from gve.eval.index.export import FORMATS, export
from gve.eval.index.rows import LEVELS, Levels
from gve.eval.index.storage import quoted, writing
from gve.eval.index.table import Index, is_index
from gve.eval.index.writing import REMOVED
from gve.eval.models import benchmark_encoder, load_encoder, model_fingerprint, set_up_encoder

OK, SOME_FAILED = 0, 3

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0, 3 if some files could not be embedded, 2 for bad usage, 130 when interrupted."""
    arguments = sys.argv[2:] if argv is None else list(argv)
    if arguments[:1] == ["search"]:
        from gve.eval import search_command

        return search_command.main(arguments[1:])
    return run_command(lambda given: given.run(given), _parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve index",
        description="Keep an index of videos and images on disk.",
        epilog='INDEX is a folder, or an address such as s3://bucket/name. Needs the extra: pip install "gve[index]".',
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    adding = _command(commands, "add", _add, "add files; makes the index if there is none")
    adding.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCES",
        help="folders, files, tables (csv, jsonl, parquet), data sets (name:config:split), output of `gve encode`",
    )
    adding.add_argument("--model", help="folder or Hub name of the embedder; an index knows its own")
    adding.add_argument("--window", type=float, metavar="S", help="also index windows of so many seconds")
    adding.add_argument(
        "--stride", type=float, metavar="S", help="seconds from one window to the next (default: --window)"
    )
    adding.add_argument("--shots", action="store_true", help="also index the stretches between scene cuts")
    adding.add_argument("--no-files", action="store_true", help="no rows of whole videos, only of their parts")
    adding.add_argument("--frames", type=int, metavar="N", help="frames of a row (default: the model's own)")
    updating = _command(commands, "update", _update, "index what is new, changed, moved or gone in the sources")
    for each in (adding, updating):
        each.add_argument("--workers", type=int, help="threads that decode (default: by the machine's cores)")
        each.add_argument("--frame-cache", type=Path, metavar="DIR", help="folder that keeps decoded frames")
    commands.add_parser("search", help="search it; the options are those of `gve search`", add_help=False)
    _command(commands, "info", _info, "say what is in it")
    removing = _command(commands, "remove", _remove, "take files, folders or rows out; the files stay")
    removing.add_argument("files", nargs="*", metavar="FILES", help="files, folders and sources")
    removing.add_argument("--where", metavar="SQL", help="rows such as \"level = 'window' AND start > 60\"")
    exporting = _command(commands, "export", _export, "write vectors and columns to a file")
    exporting.add_argument("out", metavar="OUT", type=Path, help="file to write")
    exporting.add_argument("--to", choices=FORMATS, default="parquet", help="format (%(default)s)")
    exporting.add_argument("--where", metavar="SQL", help="only these rows")
    building = _command(commands, "build", _build, "build the ANN index that makes large ones fast, and measure it")
    building.add_argument("--kind", choices=("auto", *KINDS), default="auto", help="what it holds (%(default)s)")
    building.add_argument("--dims", type=int, metavar="D", help="search by so many leading dimensions (Matryoshka)")
    return parser


def _command(commands: Any, name: str, run: Any, purpose: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    parser.add_argument("index", metavar="INDEX")
    parser.set_defaults(run=run)
    return parser


def _add(arguments: argparse.Namespace) -> int:
    kept = Index.open(arguments.index) if is_index(arguments.index) else None
    if arguments.model is None and kept is None:
        fail("--model: missing; a new index needs one. Name the embedder.")
    model = arguments.model or kept.model
    cuts = arguments.window is not None or arguments.stride is not None or arguments.shots or arguments.no_files
    levels = None
    if cuts or kept is None:
        levels = Levels(
            files=not arguments.no_files, window=arguments.window, stride=arguments.stride, shots=arguments.shots
        )
    fingerprint = model_fingerprint(model)
    open_for(arguments.index, model, fingerprint, levels, arguments.frames)  # before the model takes its time to load
    encoder = _encoder(model, arguments)
    try:
        report = add(
            arguments.index,
            arguments.sources,
            encoder,
            model=model,
            fingerprint=fingerprint,
            levels=levels,
            num_frames=arguments.frames,
        )
    except KeyboardInterrupt:
        return _interrupted("add")
    return _reported(report)


def _update(arguments: argparse.Namespace) -> int:
    index = Index.open(arguments.index)
    fingerprint = model_fingerprint(index.model)
    open_for(arguments.index, index.model, fingerprint)
    encoder = _encoder(index.model, arguments)
    try:
        return _reported(update(arguments.index, encoder, fingerprint=fingerprint))
    except KeyboardInterrupt:
        return _interrupted("update")


def _info(arguments: argparse.Namespace) -> int:
    index = Index.open(arguments.index)
    ledger = index.ledger
    ann = index.fact("ann")
    facts = {
        "rows": len(index),
        "files": ledger.count_rows("error IS NULL"),
        "failed": ledger.count_rows(f"error != {quoted(REMOVED)}"),
        "levels": {level: count for level in LEVELS if (count := index.segments.count_rows(f"level = '{level}'"))},
        "model": index.model,
        "width": index.width,
        "settings": index.settings | asdict(index.levels),
        "sources": index.sources,
        "columns": {name: str(kind) for name, kind in index.columns.items()},
        "search": "exact" if ann is None else describe(ann),
    }
    sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    return OK


def _remove(arguments: argparse.Namespace) -> int:
    if not arguments.files and arguments.where is None:
        fail("FILES: nothing to remove. Name files, or give --where.")
    rows = remove(arguments.index, arguments.files, filters=arguments.where)
    sys.stdout.write(json.dumps({"removed_rows": rows}) + "\n")
    return OK


def _export(arguments: argparse.Namespace) -> int:
    rows = export(Index.open(arguments.index), arguments.out, form=arguments.to, filters=arguments.where)
    sys.stdout.write(json.dumps({"out": str(arguments.out), "rows": rows}) + "\n")
    return OK


def _build(arguments: argparse.Namespace) -> int:
    with writing(arguments.index):
        ann = build_ann(Index.open(arguments.index), kind=arguments.kind, dims=arguments.dims)
    logger.info("%s", describe(ann))
    sys.stdout.write(json.dumps(ann) + "\n")
    return OK


def _encoder(model: str, arguments: argparse.Namespace) -> Encoder:
    if arguments.workers is not None and arguments.workers < 0:
        fail(f"--workers: {arguments.workers}; must be at least 0, which means no threads")
    encoder = benchmark_encoder(load_encoder(model))
    set_up_encoder(encoder, workers=arguments.workers, frame_cache=arguments.frame_cache)
    return encoder


def _reported(report: Report) -> int:
    counts = asdict(report) | {"ann": report.ann and describe(report.ann)}
    sys.stdout.write(json.dumps(counts) + "\n")
    return SOME_FAILED if report.failed else OK


def _interrupted(name: str) -> int:
    sys.stderr.write(f"gve index {name}: interrupted; whole files are kept, and the same command goes on from there\n")
    return INTERRUPTED
