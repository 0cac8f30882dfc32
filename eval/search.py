"""Exact search in a folder of videos or a file of vectors.

Shapes: Q queries, N corpus rows, D width.
"""

from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.console import fail, report_others
from gve.eval.encode import embed_files
from gve.eval.encoders import Encoder
from gve.eval.inputs import find_files
from gve.eval.models import load_encoder, model_fingerprint
from gve.eval.store import FileEmbeddings, is_sharded, load_embeddings, save_embeddings
from gve.eval.video_retrieval.ranking import as_array, score_block
from gve.media_gve import shown

_SCORE_CELLS = 1 << 24


def top_k(queries: Any, corpus: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best corpus rows of each query by dot product; ties stand in corpus order.

    Args:
        queries: (Q, D) floats, an array or a tensor.
        corpus: (N, D) floats, likewise.
        k: Results a query; more than N gives N.

    Returns:
        Row numbers (Q, k) int64 and scores (Q, k) float32, best first.

    Raises:
        ValueError: For k below 1, shapes that do not fit, or values that are not finite.
    """
    queries, corpus = (as_array(vectors).astype(np.float32, copy=False) for vectors in (queries, corpus))
    if k < 1:
        raise ValueError(f"k: {k}; must be at least 1")
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1] or 0 in corpus.shape:
        raise ValueError(
            f"queries, corpus: must be (Q, D) and (N, D) with N and D above 0, got shapes {queries.shape} and "
            f"{corpus.shape}. Embed both with the same encoder."
        )
    if not (np.isfinite(queries).all() and np.isfinite(corpus).all()):
        raise ValueError("queries, corpus: must be finite, got nan or infinity. Check the encoder.")
    k = min(k, len(corpus))
    rows = np.empty((len(queries), k), dtype=np.int64)
    best = np.empty((len(queries), k), dtype=np.float32)
    step = max(1, _SCORE_CELLS // len(corpus))
    for start in range(0, len(queries), step):
        for offset, scores in enumerate(score_block(queries[start : start + step], corpus), start=start):
            rows[offset] = _best_rows(scores, k)
            best[offset] = scores[rows[offset]]
    return rows, best


def open_corpus(where: Path, model: str | None = None, *, index: Path | None = None) -> tuple[Encoder, FileEmbeddings]:
    """Open a corpus and the embedder of its vectors.

    Args:
        where: A folder of videos and images, which is embedded now, or the output of `gve encode`.
        model: Folder or Hub name of the embedder; None for the one that made the vectors.
        index: File that caches a folder's vectors.

    Raises:
        ValueError: If there is nothing to search, a folder comes without a model, or the vectors are another model's.
    """
    if where.is_dir() and not is_sharded(where):
        if model is None:
            fail("--model: missing; a folder is embedded on the fly. Name the embedder.")
        encoder = load_encoder(model)
        return encoder, _embed_folder(encoder, where, model, index)
    corpus = load_embeddings(where)
    model = model or corpus.model
    if model_fingerprint(model) != corpus.fingerprint:
        fail(
            f"--model: {shown(model)} is not the model that made {shown(str(where))}. Give that one, or encode again."
        )
    return load_encoder(model), corpus


def _best_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of the k best of (N,) scores, ties by row number."""
    last = np.partition(scores, len(scores) - k)[len(scores) - k]  # the k-th best score
    surely = np.flatnonzero(scores > last)
    chosen = np.concatenate([surely, np.flatnonzero(scores == last)[: k - len(surely)]])
    return chosen[np.lexsort((chosen, -scores[chosen]))]


def _embed_folder(encoder: Encoder, where: Path, model: str, index: Path | None) -> FileEmbeddings:
    """Vectors of a folder; unchanged files come from the index."""
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
        fail(f"DIR: none of the {len(paths)} files could be embedded. See the reasons above.")
    if index is not None:
        save_embeddings(corpus, index)
    return corpus
