"""Where each positive stands among its query's candidates, found by counting; numpy only, as the Hub Space needs.

Shapes: Q queries, N corpus rows, D width, C candidates of one query, P positives of all queries laid end to end.

Two integers for each positive decide every metric: how many candidates score strictly higher, and how many score the
same (itself included). Nothing is sorted and no ranking is cut off.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NEVER = 1 << 40
"""`above` of a positive that a ranked list does not hold; far beyond any depth k."""

_SCORE_CELLS = 1 << 21  # scores held at once, 8 MB of float32
_WIDE_CELLS = 1 << 19  # embedding values held at once in float64, 4 MB
_MAX_QUERIES = 512
_RECHECKED = 32  # one score in so many may be computed again before float64 is used for all
_ROUNDOFF, _SMALLEST, _LARGEST = 2.0**-24, 2.0**-126, 2.0**128 * (1 - 2.0**-24)  # of float32


@dataclass(frozen=True)
class Counts:
    """Ranks of the positives.

    Attributes:
        owner: (P,) the query of each positive, ascending.
        above: (P,) candidates with a strictly higher score; `NEVER` where the positive was not ranked at all.
        tied: (P,) candidates with the same score, itself included.
        num_positives: (Q,) at least one each.
        num_candidates: (Q,) size of each query's pool.
    """

    owner: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    num_positives: np.ndarray
    num_candidates: np.ndarray


def as_array(values: Any) -> np.ndarray:
    """An array from arrays, lists or tensors, also tensors on a device, with a gradient, or in bfloat16.

    Values of two bytes and less become float32, which holds them exactly. Tensors are recognised by their methods,
    since the Hub Space has no torch.
    """
    if isinstance(values, list | tuple) and values and hasattr(values[0], "detach"):
        return np.stack([as_array(row) for row in values])
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu()
    return (tensor if tensor.element_size() > 2 else tensor.float()).numpy()


def count_ranks(
    query_embeddings: Any,
    corpus_embeddings: Any,
    positives: Sequence[Sequence[int] | np.ndarray],
    candidates: Sequence[Sequence[int] | np.ndarray] | None = None,
    *,
    truncate_dim: int | None = None,
) -> Counts:
    """Rank every positive among its query's candidates by dot product.

    A score is the dot product in float64 rounded to float32, so that equal rows tie and the result depends neither on
    the machine nor on how the work is cut. The work itself is done in float32: only scores that lie within the bound
    on its rounding error are computed again.

    Args:
        query_embeddings: (Q, D) floats, an array or a tensor.
        corpus_embeddings: (N, D) floats, an array or a tensor.
        positives: Q lists of corpus rows that answer the query.
        candidates: Q lists of corpus rows to rank, or None for the whole corpus.
        truncate_dim: Keep so many leading dimensions and bring every row back to unit length; None keeps rows as
            they are.

    Raises:
        ValueError: For shapes that do not fit, values that are not finite or overflow float32, rows out of range or
            repeated, a query without a positive, or a positive outside the candidates.
    """
    queries = _embeddings(query_embeddings, "query_embeddings", truncate_dim)
    corpus = _embeddings(corpus_embeddings, "corpus_embeddings", truncate_dim)
    if queries.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"query_embeddings: width {queries.shape[1]}; the corpus has width {corpus.shape[1]}; "
            "embed both with the same encoder"
        )
    positive_rows = _row_lists(positives, len(queries), len(corpus), "references")
    if candidates is None:
        standing = _count_all(queries, corpus, positive_rows)
        num_candidates = np.full(len(queries), len(corpus), dtype=np.int64)
    else:
        pools = _row_lists(candidates, len(queries), len(corpus), "candidates")
        num_candidates = np.array([len(pool) for pool in pools], dtype=np.int64)
        standing = []
        for number, (wanted, pool) in enumerate(zip(positive_rows, pools, strict=True)):
            row = _scores_of(queries[number], corpus, pool)  # (C,)
            standing += _standing(row, _places(wanted, pool, number))
    return _counts(standing, positive_rows, num_candidates)


def count_scores(
    scores: Sequence[np.ndarray] | np.ndarray,
    positives: Sequence[Sequence[int] | np.ndarray],
    candidates: Sequence[Sequence[int] | np.ndarray] | None = None,
) -> Counts:
    """Rank every positive by given scores; higher is better.

    Args:
        scores: (Q, N) numbers, compared as they are; with `candidates`, Q rows of scores in the order of each query's
            candidates.
        positives: Q lists of corpus rows that answer the query.
        candidates: Q lists of corpus rows that were scored, or None for the whole corpus.

    Raises:
        ValueError: For rows of another length than their candidates, nan, or bad lists as in `count_ranks`.
    """
    num_queries = len(scores)
    if not num_queries:
        raise ValueError("scores: got no rows; give one row a query")
    if candidates is None:
        positive_rows = _row_lists(positives, num_queries, len(scores[0]), "references")
        num_candidates = np.full(num_queries, len(scores[0]), dtype=np.int64)
    else:
        pools = _row_lists(candidates, num_queries, NEVER, "candidates")
        positive_rows = _row_lists(positives, num_queries, NEVER, "references")
        num_candidates = np.array([len(pool) for pool in pools], dtype=np.int64)
    standing = []
    for number, wanted in enumerate(positive_rows):
        row = as_array(scores[number])
        if row.shape != (num_candidates[number],):
            raise ValueError(
                f"scores: row {number} has shape {row.shape}; {num_candidates[number]} candidates are ranked; "
                "give one score a candidate"
            )
        if np.isnan(row).any():
            raise ValueError(f"scores: row {number} holds nan. Check the encoder.")
        standing += _standing(row, wanted if candidates is None else _places(wanted, pools[number], number))
    return _counts(standing, positive_rows, num_candidates)


def count_ranked(
    ranked: Sequence[Sequence[Hashable]],
    positives: Sequence[Sequence[Hashable]],
    *,
    num_candidates: int | None = None,
) -> Counts:
    """Place every positive in lists of ids, best first; ids are ints or strings.

    Args:
        ranked: Q lists of ids, each once; they may be cut off, and may be empty.
        positives: Q lists of the ids that answer the query.
        num_candidates: How many candidates there were. The ids outside a list then share the places after its end as
            one tie. None: a positive outside its list was never found, as trec_eval counts.

    Raises:
        ValueError: For repeated ids, a query without a positive, or lists longer than `num_candidates`.
    """
    if len(ranked) != len(positives):
        raise ValueError(f"references: {len(positives)} lists for {len(ranked)} queries; give one list a query")
    standing: list[tuple[int, int]] = []
    for number, (listed, wanted) in enumerate(zip(ranked, positives, strict=True)):
        places = {identity: place for place, identity in enumerate(listed)}
        if len(places) != len(listed):
            raise ValueError(f"predictions: the list of query {number} repeats an id; each may stand once; remove it")
        if not len(wanted) or len(set(wanted)) != len(wanted):
            raise ValueError(f"references: query {number} has no id or repeats one; give at least one, each once")
        missing = sum(identity not in places for identity in wanted)
        if num_candidates is not None and len(places) + missing > num_candidates:
            raise ValueError(
                f"num_candidates: {num_candidates}, but query {number} names {len(places) + missing} ids; "
                "give the size of the whole corpus"
            )
        rest = (NEVER, 1) if num_candidates is None else (len(places), num_candidates - len(places))
        standing += [(places[identity], 1) if identity in places else rest for identity in wanted]
    sizes = np.array([num_candidates or len(listed) for listed in ranked], dtype=np.int64)
    return _counts(standing, positives, sizes)


def score_block(queries: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Dot products (Q, N) of float32 rows (Q, D) and (N, D), accumulated in float64 and rounded to float32."""
    wide = queries.astype(np.float64)
    scores = np.empty((len(queries), len(corpus)), dtype=np.float32)
    step = max(1, _WIDE_CELLS // corpus.shape[1])
    for start in range(0, len(corpus), step):
        scores[:, start : start + step] = wide @ corpus[start : start + step].astype(np.float64).T
    return scores


def _scores_of(query: np.ndarray, corpus: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(C,) exact scores of some rows, which are never copied all at once."""
    step = max(1, _WIDE_CELLS // corpus.shape[1])
    return np.concatenate(
        [score_block(query[None], corpus[rows[start : start + step]])[0] for start in range(0, len(rows), step)]
    )


def _counts(
    standing: list[tuple[int, int]], positives: Sequence[Sequence[Hashable] | np.ndarray], num_candidates: np.ndarray
) -> Counts:
    """Lay (above, tied) of every positive end to end."""
    above, tied = np.array(standing, dtype=np.int64).reshape(-1, 2).T
    num_positives = np.array([len(rows) for rows in positives], dtype=np.int64)
    return Counts(np.repeat(np.arange(len(positives)), num_positives), above, tied, num_positives, num_candidates)


def _embeddings(values: Any, name: str, truncate_dim: int | None) -> np.ndarray:
    """Check one embedding matrix and convert it to float32."""
    try:
        array = as_array(values).astype(np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:  # objects, texts, ragged lists, sparse tensors
        reason = str(error)[:200]
        raise ValueError(f"{name}: {reason}; must be an array or tensor of numbers") from error
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: shape {array.shape}; must be (rows, width), both above 0")
    finite = np.isfinite(_lengths(array))
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"{name}: row {row} holds nan or infinity. Check the encoder.")
    if truncate_dim is None:
        return array
    if not 1 <= truncate_dim <= array.shape[1]:
        raise ValueError(f"truncate_dim: {truncate_dim}; must be 1 to the width {array.shape[1]}")
    array = array[:, :truncate_dim]
    lengths = _lengths(array)
    if not lengths.all():
        row = int(np.argmin(lengths))
        raise ValueError(f"{name}: the first {truncate_dim} values of row {row} are zero; keep more dimensions")
    return (array / lengths[:, None]).astype(np.float32)


def _lengths(array: np.ndarray) -> np.ndarray:
    """(rows,) Euclidean lengths in float64, without a copy of the array."""
    step = max(1, _WIDE_CELLS // array.shape[1])
    blocks = (array[start : start + step].astype(np.float64) for start in range(0, len(array), step))
    return np.sqrt(np.concatenate([np.einsum("nd,nd->n", block, block) for block in blocks]))


def _row_lists(
    lists: Sequence[Sequence[int] | np.ndarray], num_queries: int, num_rows: int, name: str
) -> list[np.ndarray]:
    """Check one list of corpus rows for each query."""
    if len(lists) != num_queries:
        raise ValueError(f"{name}: {len(lists)} lists for {num_queries} queries; give one list a query")
    checked = []
    for query, rows in enumerate(lists):
        array = as_array(rows).astype(np.int64, copy=False)
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{name}: query {query} has no rows; give at least one corpus row")
        if array.min() < 0 or array.max() >= num_rows:
            raise ValueError(f"{name}: query {query} names a row outside 0..{num_rows - 1}")
        if len(array) > 1 and len(np.unique(array)) != len(array):
            raise ValueError(f"{name}: query {query} repeats a row; each row may stand once; remove the repetition")
        checked.append(array)
    return checked


def _places(wanted: np.ndarray, pool: np.ndarray, number: int) -> np.ndarray:
    """Places of a query's positives in its pool."""
    order = np.argsort(pool)
    found = np.searchsorted(pool, wanted, sorter=order)
    places = order[np.minimum(found, len(pool) - 1)]
    if not np.array_equal(pool[places], wanted):
        raise ValueError(f"candidates: a positive of query {number} is not among them")
    return places


def _standing(row: np.ndarray, places: np.ndarray) -> list[tuple[int, int]]:
    """(above, tied) of the candidates at some places of a row of scores."""
    return [(np.count_nonzero(row > value), np.count_nonzero(row == value)) for value in row[places]]


def _count_all(queries: np.ndarray, corpus: np.ndarray, positives: list[np.ndarray]) -> list[tuple[int, int]]:
    """(above, tied) against the whole corpus, a block of queries at a time."""
    longest = float(_lengths(corpus).max())
    lengths = _lengths(queries)
    largest = float(lengths.max()) * longest
    if largest > _LARGEST:
        raise ValueError(f"query_embeddings: dot products up to {largest:.1e} overflow float32; scale to unit length")
    # Two scores are compared, each off by at most D + 1 roundings of |q| |c| whatever the order of the sum (Higham,
    # Accuracy and Stability of Numerical Algorithms, section 3.1); the rest is for the thresholds and higher orders.
    margins = 2.02 * (queries.shape[1] + 4) * _ROUNDOFF * lengths * longest + _SMALLEST  # (Q,)
    step = int(np.clip(_SCORE_CELLS // len(corpus), 1, _MAX_QUERIES))
    standing: list[tuple[int, int]] = []
    buffer = np.empty((min(step, len(queries)), len(corpus)), dtype=np.float32)
    screening = True
    for start in range(0, len(queries), step):
        block, wanted = queries[start : start + step], positives[start : start + step]
        if screening:
            scores = np.matmul(block, corpus.T, out=buffer[: len(block)])  # (step, N)
            found = _screen(block, corpus, scores, wanted, margins[start : start + step])
            screening = found is not None  # vectors this close together would be computed twice
        if not screening:
            scores = score_block(block, corpus)
            found = [pair for row, places in zip(scores, wanted, strict=True) for pair in _standing(row, places)]
        standing += found
    return standing


def _screen(
    queries: np.ndarray, corpus: np.ndarray, scores: np.ndarray, positives: list[np.ndarray], margins: np.ndarray
) -> list[tuple[int, int]] | None:
    """Count by float32 scores where they decide, else by exact ones; None when too many are too close."""
    standing = []
    budget = max(scores.size // _RECHECKED, len(corpus))
    for query, row, wanted, margin in zip(queries, scores, positives, margins.tolist(), strict=True):
        for positive in wanted:
            value = float(row[positive])
            reached = np.flatnonzero(row >= value - margin)
            close = reached[row[reached] <= value + margin]
            above, tied = len(reached) - len(close), 1
            if len(close) > 1:
                budget -= len(close)
                if budget < 0:
                    return None
                exact = _scores_of(query, corpus, close)
                own = exact[close == positive]
                above += np.count_nonzero(exact > own)
                tied = np.count_nonzero(exact == own)
            standing.append((above, tied))
    return standing
