"""The command `gve search`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gve.eval.console import fail, printable, run_command
from gve.eval.index.clip import write_clips
from gve.eval.index.rows import Hit
from gve.eval.inputs import file_row
from gve.eval.rerank import add_options, load_named
from gve.eval.search import find, open_corpus
from gve.eval.tables import aligned_table
from gve.media_gve import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 with results, 2 for bad usage or nothing to search, 130 when interrupted."""
    return run_command(_search, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve search", description="Find videos and images by text, image, video, or a combination of them."
    )
    parser.add_argument(
        "where", metavar="WHERE", help="index of `gve index`, folder of videos, or the output of `gve encode`"
    )
    parser.add_argument("query", nargs="?", help="text of the query; optional with --image or --video")
    parser.add_argument("--image", type=Path, help="image of the query")
    parser.add_argument("--video", type=Path, help="video of the query")
    parser.add_argument("--model", help="folder or Hub name of the embedder; needed for a folder of videos")
    parser.add_argument("--instruction", help="system message of the query (default: the model's own)")
    parser.add_argument("--top", type=int, default=10, help="number of results (%(default)s)")
    parser.add_argument("--index", type=Path, help="file that keeps a folder's vectors for the next search")
    parser.add_argument("--where", dest="filters", metavar="SQL", help='only rows of an index like "duration > 60"')
    parser.add_argument("--exact", action="store_true", help="look at every row, even if there is an ANN index")
    parser.add_argument("--clip", type=Path, metavar="DIR", help="write each hit that has times to a video of its own")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _search(arguments: argparse.Namespace) -> int:
    row = _query_row(arguments)
    for option in ("top", "rerank_top"):
        if getattr(arguments, option) < 1:
            fail(f"--{option.replace('_', '-')}: {getattr(arguments, option)}; must be at least 1")
    reranker = load_named(arguments)
    encoder, corpus = open_corpus(arguments.where, arguments.model, index=arguments.index)
    hits = find(
        encoder,
        corpus,
        row,
        count=arguments.top,
        instruction=arguments.instruction,
        filters=arguments.filters,
        exact=arguments.exact,
        reranker=reranker,
    )
    clips = [None] * len(hits) if arguments.clip is None else write_clips(hits, arguments.clip)
    if arguments.json:
        results = [
            {"rank": rank, **asdict(hit), "score": round(hit.score, 6)} for rank, hit in enumerate(hits, start=1)
        ]
        for result, clip in zip(results, clips, strict=True):
            result |= {} if clip is None else {"clip": str(clip)}
        sys.stdout.write(json.dumps({"query": row, "results": results}, default=str) + "\n")
    else:
        sys.stdout.write(_table(hits))
    return 0


def _query_row(arguments: argparse.Namespace) -> dict[str, str]:
    row: dict[str, str] = {}
    for key in ("video", "image"):
        path: Path | None = getattr(arguments, key)
        if path is None:
            continue
        try:
            kind = next(iter(file_row(path)))
        except ValueError as error:
            fail(f"--{key}: {error}. Check the path.")
        if kind != key:
            fail(f"--{key}: {shown(str(path))} is taken for {kind}, by its content or its suffix. Use --{kind}.")
        row[key] = str(path)
    if arguments.query:
        row["text"] = arguments.query
    if not row:
        fail("query: nothing to search for. Give a text, --image or --video.")
    return row


def _table(hits: Sequence[Hit]) -> str:
    """Lines of rank, score, seconds where a hit is a part of its file, and path."""
    cut = any(hit.level != "file" for hit in hits)
    rows = []
    for rank, hit in enumerate(hits, start=1):
        span = "" if hit.level == "file" else f"{hit.start:.1f}-{hit.end:.1f}"
        path = printable(hit.path) + "  (missing)" * hit.missing
        rows.append((str(rank), f"{hit.score:.4f}", *([span] if cut else []), path))
    header = ("rank", "score", *(["seconds"] if cut else []), "path")
    return aligned_table(header, rows, numbers=header[:-1])
