"""Exact search in a folder of videos or a file of vectors, and the command `gve search`.

Shapes: Q queries, N corpus rows, D width.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.console import fail, printable, report_others, run_command
from gve.eval.embed_store import is_sharded
from gve.eval.encode import Encoder, encode_rows
from gve.eval.files import (
    FileEmbeddings,
    embed_files,
    file_row,
    find_files,
    load_embeddings,
    model_fingerprint,
    save_embeddings,
)
from gve.eval.models import load_encoder
from gve.eval.video_retrieval.ranking import as_array, score_block
from gve.media_gve import shown

_SCORE_CELLS = 1 << 24


def top_k(queries: Any, corpus: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best corpus rows of each query by dot product; equal scores stand in corpus order.

    Args:
        queries: (Q, D) floats, an array or a tensor.
        corpus: (N, D) floats, an array or a tensor.
        k: How many; more than N gives N.

    Returns:
        Row numbers (Q, k) int64 and scores (Q, k) float32, best first.

    Raises:
        ValueError: For k below 1, shapes that do not fit, or values that are not finite.
    """
    queries, corpus = (as_array(vectors).astype(np.float32, copy=False) for vectors in (queries, corpus))
    if k < 1:
        raise ValueError(f"k: {k}; 1 or more is accepted; raise it")
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1] or 0 in corpus.shape:
        raise ValueError(
            f"queries, corpus: shapes {queries.shape} and {corpus.shape}; (Q, D) and (N, D) with N and D above 0 are "
            "accepted; embed both with the same encoder"
        )
    if not (np.isfinite(queries).all() and np.isfinite(corpus).all()):
        raise ValueError("queries, corpus: nan or infinity; finite values are accepted; check the encoder")
    k = min(k, len(corpus))
    rows = np.empty((len(queries), k), dtype=np.int64)
    best = np.empty((len(queries), k), dtype=np.float32)
    step = max(1, _SCORE_CELLS // len(corpus))
    for start in range(0, len(queries), step):
        for offset, scores in enumerate(score_block(queries[start : start + step], corpus), start=start):
            rows[offset] = _best_rows(scores, k)
            best[offset] = scores[rows[offset]]
    return rows, best


def _best_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of the k best of (N,) scores, ties by row number."""
    last = np.partition(scores, len(scores) - k)[len(scores) - k]  # the k-th best score
    surely = np.flatnonzero(scores > last)
    chosen = np.concatenate([surely, np.flatnonzero(scores == last)[: k - len(surely)]])
    return chosen[np.lexsort((chosen, -scores[chosen]))]


def open_corpus(where: Path, model: str | None = None, *, index: Path | None = None) -> tuple[Encoder, FileEmbeddings]:
    """Open what is searched, with the embedder that its vectors are of.

    Args:
        where: A folder of videos and images, which is embedded now, or what `gve encode` wrote.
        model: Folder or Hub name of the embedder; None for the one that vectors were made with.
        index: File that keeps a folder's vectors for the next time; None keeps none.

    Returns:
        The encoder, and the files with their vectors.

    Raises:
        ValueError: If there is nothing to search, a folder comes without a model, or the vectors are another model's.
    """
    if where.is_dir() and not is_sharded(where):
        if model is None:
            fail("--model: missing; a folder is embedded on the fly; name the embedder")
        encoder = load_encoder(model)
        return encoder, _embed_folder(encoder, where, model, index)
    corpus = load_embeddings(where)
    model = model or corpus.model
    if model_fingerprint(model) != corpus.fingerprint:
        fail(f"--model: {shown(model)} is not the model that made {shown(str(where))}; give that one, or encode again")
    return load_encoder(model), corpus


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        0 with results, 2 for bad usage or nothing to search, 130 when interrupted.
    """
    return run_command(_search, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve search", description="Find videos by text, image, video, or a composition of them."
    )
    parser.add_argument(
        "where", metavar="DIR", type=Path, help="folder of videos, or a file or folder made by `gve encode`"
    )
    parser.add_argument("query", nargs="?", help="the text; may be left out with --image or --video")
    parser.add_argument("--image", type=Path, help="image of the query")
    parser.add_argument("--video", type=Path, help="video of the query")
    parser.add_argument("--model", help="folder or Hub name of the embedder; a file of vectors knows its own")
    parser.add_argument("--instruction", help="system message of the query; the model's own when left out")
    parser.add_argument("--top", type=int, default=10, help="number of results (%(default)s)")
    parser.add_argument("--index", type=Path, help="file that keeps a folder's vectors for the next search")
    parser.add_argument("--json", action="store_true", help="write JSON, not a table")
    return parser


def _search(arguments: argparse.Namespace) -> int:
    row = _query_row(arguments)
    if arguments.top < 1:
        fail(f"--top: {arguments.top}; 1 or more is accepted; raise it")
    encoder, corpus = open_corpus(arguments.where, arguments.model, index=arguments.index)
    try:
        query = encode_rows(encoder, [row], role="query", instruction=arguments.instruction)  # (1, D)
    except OSError as error:  # what PIL raises on broken images
        fail(f"query: {error}; a file that can be decoded is accepted; repair or replace it")
    rows, scores = top_k(query, corpus.vectors, arguments.top)
    results = [
        {"rank": rank, "score": round(float(score), 6), "path": corpus.paths[position]}
        for rank, (position, score) in enumerate(zip(rows[0], scores[0], strict=True), start=1)
    ]
    sys.stdout.write(json.dumps({"query": row, "results": results}) + "\n" if arguments.json else _table(results))
    return 0


def _query_row(arguments: argparse.Namespace) -> dict[str, str]:
    """What is asked, as a row; every part must exist."""
    row: dict[str, str] = {}
    for key in ("video", "image"):
        path: Path | None = getattr(arguments, key)
        if path is None:
            continue
        try:
            kind = next(iter(file_row(path)))
        except ValueError as error:
            fail(f"--{key}: {error}; an existing {key} file is accepted; check the path")
        if kind != key:
            fail(f"--{key}: {shown(str(path))} is taken for {kind}, by its content or its suffix; use --{kind}")
        row[key] = str(path)
    if arguments.query:
        row["text"] = arguments.query
    if not row:
        fail("query: nothing to search for; a text, --image or --video is accepted; give one or more")
    return row


def _embed_folder(encoder: Encoder, where: Path, model: str, index: Path | None) -> FileEmbeddings:
    """Vectors of a folder; what the index holds and has not changed is not read again."""
    paths, others = find_files([where])
    report_others(others)
    fingerprint = model_fingerprint(model)
    known: dict[str, tuple[str, np.ndarray]] = {}
    if index is not None and index.exists():
        kept = load_embeddings(index)
        if kept.fingerprint == fingerprint:
            known = dict(zip(kept.paths, zip(kept.stamps, kept.vectors, strict=True), strict=True))
    corpus = embed_files(encoder, paths, known=known)
    corpus.model, corpus.fingerprint = model, fingerprint
    if not corpus.paths:
        fail(f"DIR: none of the {len(paths)} files could be embedded; see the reasons above")
    if index is not None:
        save_embeddings(corpus, index)
    return corpus


def _table(results: Sequence[dict[str, Any]]) -> str:
    """Results as aligned text."""
    lines = [f"{'rank':>4}  {'score':>7}  path"]
    lines += [f"{result['rank']:>4}  {result['score']:>7.4f}  {printable(result['path'])}" for result in results]
    return "\n".join(lines) + "\n"
