"""The command `gve search`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gve.eval.console import fail, printable, run_command
from gve.eval.index.clip import write_clips
from gve.eval.index.rows import Hit
from gve.eval.inputs import file_row
from gve.eval.rerank import TOP, load_reranker
from gve.eval.search import find, open_corpus
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
    parser.add_argument("--rerank", metavar="MODEL", help="CrossEncoder that reorders the best hits")
    parser.add_argument("--rerank-top", type=int, default=TOP, metavar="K", help="how many of them (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _search(arguments: argparse.Namespace) -> int:
    row = _query_row(arguments)
    for option in ("top", "rerank_top"):
        if getattr(arguments, option) < 1:
            fail(f"--{option.replace('_', '-')}: {getattr(arguments, option)}; must be at least 1")
    reranker = load_reranker(arguments.rerank, top=arguments.rerank_top) if arguments.rerank else None
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
        results = [_result(rank, *pair) for rank, pair in enumerate(zip(hits, clips, strict=True), start=1)]
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


def _result(rank: int, hit: Hit, clip: Path | None) -> dict[str, Any]:
    """A hit for JSON; `clip` is the file that was cut for it."""
    found = {"rank": rank, "score": round(hit.score, 6), "path": hit.path, "kind": hit.kind, "level": hit.level}
    found |= {"start": hit.start, "end": hit.end, "missing": hit.missing, "columns": dict(hit.columns)}
    return found if clip is None else found | {"clip": str(clip)}


def _table(hits: Sequence[Hit]) -> str:
    """Lines of rank, score, seconds where a hit is a part of its file, and path."""
    spans = ["" if hit.level == "file" else f"{hit.start:.1f}-{hit.end:.1f}" for hit in hits]
    width = max(map(len, [*spans, "seconds"])) if any(spans) else 0
    lines = [f"{'rank':>4}  {'score':>7}  {'seconds':>{width}}  path" if width else f"{'rank':>4}  {'score':>7}  path"]
    for rank, (hit, span) in enumerate(zip(hits, spans, strict=True), start=1):
        times = f"{span:>{width}}  " if width else ""
        gone = "  (missing)" if hit.missing else ""
        lines.append(f"{rank:>4}  {hit.score:>7.4f}  {times}{printable(hit.path)}{gone}")
    return "\n".join(lines) + "\n"
