"""The command `gve search`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gve.eval.console import fail, printable, run_command
from gve.eval.encode import encode_rows
from gve.eval.inputs import file_row
from gve.eval.search import open_corpus, top_k
from gve.media_gve import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 with results, 2 for bad usage or nothing to search, 130 when interrupted."""
    return run_command(_search, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve search", description="Find videos and images by text, image, video, or a combination of them."
    )
    parser.add_argument("where", metavar="DIR", type=Path, help="folder of videos, or the output of `gve encode`")
    parser.add_argument("query", nargs="?", help="text of the query; optional with --image or --video")
    parser.add_argument("--image", type=Path, help="image of the query")
    parser.add_argument("--video", type=Path, help="video of the query")
    parser.add_argument("--model", help="folder or Hub name of the embedder; needed for a folder of videos")
    parser.add_argument("--instruction", help="system message of the query (default: the model's own)")
    parser.add_argument("--top", type=int, default=10, help="number of results (%(default)s)")
    parser.add_argument("--index", type=Path, help="file that keeps a folder's vectors for the next search")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _search(arguments: argparse.Namespace) -> int:
    row = _query_row(arguments)
    if arguments.top < 1:
        fail(f"--top: {arguments.top}; must be at least 1")
    encoder, corpus = open_corpus(arguments.where, arguments.model, index=arguments.index)
    query = encode_rows(encoder, [row], role="query", instruction=arguments.instruction)  # (1, D)
    rows, scores = top_k(query, corpus.vectors, arguments.top)
    results = [
        {"rank": rank, "score": round(float(score), 6), "path": corpus.paths[position]}
        for rank, (position, score) in enumerate(zip(rows[0], scores[0], strict=True), start=1)
    ]
    sys.stdout.write(json.dumps({"query": row, "results": results}) + "\n" if arguments.json else _table(results))
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


def _table(results: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'rank':>4}  {'score':>7}  path"]
    lines += [f"{result['rank']:>4}  {result['score']:>7.4f}  {printable(result['path'])}" for result in results]
    return "\n".join(lines) + "\n"
