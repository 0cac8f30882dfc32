"""Search in an index, a folder of videos or a file of vectors; exact search in memory.

Shapes: Q queries, N corpus rows, D width.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gve.eval.console import fail, report_others
from gve.eval.encode import embed_files, encode_rows
from gve.eval.encoders import Encoder
from gve.eval.index.moments import merge_hits
from gve.eval.index.rows import Hit
from gve.eval.index.table import Index, is_index
from gve.eval.inputs import find_files
from gve.eval.models import benchmark_encoder, load_encoder, model_fingerprint
from gve.eval.rerank import Reranker, rerank
from gve.eval.store import FileEmbeddings, is_sharded, load_embeddings, save_embeddings
from gve.eval.video_retrieval.ranking import as_array, score_block
from gve.media_gve import media_kind, shown

_SCORE_CELLS = 1 << 24
_MOST_ROWS = 512  # looked at for one moment


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


class Corpus(Protocol):
    """What `open_corpus` gives: an index on disk, or vectors in memory."""

    model: str  # folder or Hub name of the embedder

    def __len__(self) -> int: ...

    def search(self, queries: Any, k: int, *, filters: str | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k best rows of each of (Q, D) unit vectors, best first."""


class MemoryCorpus:
    """Vectors of files in memory."""

    def __init__(self, embeddings: FileEmbeddings) -> None:
        self.embeddings, self.model = embeddings, embeddings.model

    def __len__(self) -> int:
        return len(self.embeddings.paths)

    def search(self, queries: Any, k: int, *, filters: str | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k best files of each of (Q, D) unit vectors; ties stand in corpus order."""
        if filters is not None:
            fail("--where: needs the columns of an index. Make one with `gve index add`, or leave it out.")
        rows, scores = top_k(queries, self.embeddings.vectors, k)
        return [[self._hit(*pair) for pair in zip(*found, strict=True)] for found in zip(rows, scores, strict=True)]

    def _hit(self, row: int, score: float) -> Hit:
        path = self.embeddings.paths[row]
        kind = media_kind(Path(path)) or "video"
        return Hit(path=path, kind=kind, level="file", start=None, end=None, score=float(score))


def open_corpus(where: Path | str, model: str | None = None, *, index: Path | None = None) -> tuple[Encoder, Corpus]:
    """Open a corpus and the embedder of its vectors.

    Args:
        where: An index, the output of `gve encode`, or a folder of videos and images, which is embedded now.
        model: Folder or Hub name of the embedder; None for the one that made the vectors.
        index: File that caches a folder's vectors.

    Raises:
        ValueError: If there is nothing to search, a folder comes without a model, or the vectors are another model's.
    """
    corpus: Index | FileEmbeddings
    if is_index(str(where)):
        corpus = Index.open(str(where))
    elif Path(where).is_dir() and not is_sharded(Path(where)):
        if model is None:
            fail("--model: missing; a folder is embedded on the fly. Name the embedder.")
        encoder = load_encoder(model)
        return encoder, MemoryCorpus(_embed_folder(encoder, Path(where), model, index))
    else:
        corpus = load_embeddings(Path(where))
    model = model or corpus.model
    if model_fingerprint(model) != corpus.fingerprint:
        fail(
            f"--model: {shown(model)} is not the model that made {shown(str(where))}. Give that one, or encode again."
        )
    if isinstance(corpus, Index):
        return benchmark_encoder(load_encoder(model)), corpus
    return load_encoder(model), MemoryCorpus(corpus)


def find(
    encoder: Encoder,
    corpus: Corpus,
    row: Mapping[str, Any],
    *,
    count: int,
    instruction: str | None = None,
    filters: str | None = None,
    exact: bool = False,
    moments: bool = True,
    reranker: Reranker | None = None,
) -> list[Hit]:
    """Find what is nearest to a query, best first.

    Args:
        row: Text, image or video of the query, or several of them.
        count: Number of hits.
        instruction: System message of the query; None for the model's own.
        filters: A condition of SQL over the columns of an index.
        exact: Look at every row of an index.
        moments: Make one hit of overlapping stretches of a video.
        reranker: Reads its `top` best hits together with the query and orders them anew, before `count` are taken.

    Raises:
        ValueError: For a query that cannot be read, or a condition.
    """
    vector = encode_rows(encoder, [row], role="query", instruction=instruction, progress=False)  # (1, D)
    wanted = count if reranker is None else max(count, reranker.top)
    if moments:
        hits = nearest_moments(corpus, vector, wanted, filters=filters, exact=exact)
    else:
        (hits,) = corpus.search(vector, wanted, filters=filters, exact=exact)
    hits = [replace(hit, missing=not os.path.exists(hit.path)) for hit in hits]  # noqa: PTH110 - any length
    if reranker is not None:
        hits = rerank(reranker, row, hits[: reranker.top], instruction=instruction) + hits[reranker.top :]
    return hits[:count]


def nearest_moments(
    corpus: Corpus, vector: np.ndarray, count: int, *, filters: str | None = None, exact: bool = False
) -> list[Hit]:
    """The best moments of a (1, D) unit vector, from as many rows as they take."""
    asked = count
    while True:
        (rows,) = corpus.search(vector, asked, filters=filters, exact=exact)
        hits = merge_hits(rows, count)
        if len(hits) == count or len(rows) < asked or asked >= count * _MOST_ROWS:
            return hits
        asked *= 8  # windows of one moment follow one another in the ranking


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
