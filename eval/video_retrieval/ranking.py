"""Exact ranking arithmetic by counting; numpy only, so that the Hub Space needs nothing else.

Shapes: Q queries, N corpus rows, D width, P positives of all queries laid end to end.

Two integers for each positive decide every metric: how many candidates score strictly higher, and how many score the
same (itself included). Nothing is sorted and no ranking is cut off. Under ties the expected value over all orders of
the tied candidates is taken, so neither the order of the corpus nor a collapsed encoder can gain from them. Chance
is the same arithmetic with every candidate tied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SCORE_CELLS = 1 << 24  # scores held at once, 64 MB of float32
_CORPUS_CELLS = 1 << 22  # corpus values held at once in float64, 32 MB
_MAX_QUERIES = 512


@dataclass(frozen=True)
class Counts:
    """Where the positives stand.

    Attributes:
        owner: (P,) the query of each positive, ascending.
        above: (P,) candidates with a strictly higher score.
        tied: (P,) candidates with the same score, itself included.
        num_positives: (Q,) at least one each.
        num_candidates: (Q,) size of what each query is ranked against.
    """

    owner: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    num_positives: np.ndarray
    num_candidates: np.ndarray


def count_ranks(
    query_embeddings: np.ndarray,
    corpus_embeddings: np.ndarray,
    positives: Sequence[Sequence[int] | np.ndarray],
    candidates: Sequence[Sequence[int] | np.ndarray] | None = None,
) -> Counts:
    """Rank every positive among its query's candidates by dot product.

    Products are accumulated in float64 and rounded to float32, so that equal rows tie and the result depends neither
    on the machine nor on how the work is cut.

    Args:
        query_embeddings: (Q, D) floats.
        corpus_embeddings: (N, D) floats.
        positives: Q lists of corpus rows that answer the query.
        candidates: Q lists of corpus rows to rank, or None for the whole corpus.

    Returns:
        The counts.

    Raises:
        ValueError: For shapes that do not fit, values that are not finite, rows out of range or repeated, a query
            without a positive, or a positive that is no candidate.
    """
    queries = _embeddings(query_embeddings, "query_embeddings")
    corpus = _embeddings(corpus_embeddings, "corpus_embeddings")
    if queries.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"query_embeddings: width {queries.shape[1]}; the corpus has width {corpus.shape[1]}; "
            "embed both with the same encoder"
        )
    positive_rows = _row_lists(positives, len(queries), len(corpus), "references")
    if candidates is None:
        above, tied = _count_all(queries, corpus, positive_rows)
        num_candidates = np.full(len(queries), len(corpus), dtype=np.int64)
    else:
        pools = _row_lists(candidates, len(queries), len(corpus), "candidates")
        above, tied = _count_pools(queries, corpus, positive_rows, pools)
        num_candidates = np.array([len(pool) for pool in pools], dtype=np.int64)
    num_positives = np.array([len(rows) for rows in positive_rows], dtype=np.int64)
    return Counts(np.repeat(np.arange(len(queries)), num_positives), above, tied, num_positives, num_candidates)


def all_tied(num_candidates: Sequence[int] | np.ndarray, num_positives: Sequence[int] | np.ndarray) -> Counts:
    """The counts of an encoder that tells nothing apart; the expectation over them is chance.

    Args:
        num_candidates: (Q,) or one number for all queries.
        num_positives: (Q,) or one number for all queries.

    Returns:
        Counts in which every candidate has the same score.

    Raises:
        ValueError: When a query has no positive, or fewer candidates than positives.
    """
    total, wanted = np.broadcast_arrays(
        np.atleast_1d(np.asarray(num_candidates, dtype=np.int64)), np.atleast_1d(np.asarray(num_positives, np.int64))
    )
    if (wanted < 1).any() or (total < wanted).any():
        raise ValueError("num_positives: each must lie between 1 and its query's number of candidates; correct them")
    owner = np.repeat(np.arange(len(total)), wanted)
    return Counts(owner, np.zeros(len(owner), dtype=np.int64), total[owner], wanted.copy(), total.copy())


def _embeddings(values: np.ndarray, name: str) -> np.ndarray:
    """Check one embedding matrix and bring it to float32, which holds bfloat16 and float16 values exactly."""
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: shape {array.shape}; (rows, width) without zeros is accepted; stack the vectors")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"{name}: row {row} holds nan or infinity; finite values are accepted; check the encoder")
    return array


def _row_lists(
    lists: Sequence[Sequence[int] | np.ndarray], num_queries: int, num_rows: int, name: str
) -> list[np.ndarray]:
    """Check one list of corpus rows for each query."""
    if len(lists) != num_queries:
        raise ValueError(f"{name}: {len(lists)} lists for {num_queries} queries; give one list a query")
    checked = []
    for query, rows in enumerate(lists):
        array = np.asarray(rows, dtype=np.int64)
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{name}: query {query} has no rows; at least one corpus row is needed; add it")
        if array.min() < 0 or array.max() >= num_rows:
            raise ValueError(f"{name}: query {query} names a row outside 0..{num_rows - 1}; correct the row number")
        if len(np.unique(array)) != len(array):
            raise ValueError(f"{name}: query {query} repeats a row; each row may stand once; remove the repetition")
        checked.append(array)
    return checked


def _count_all(queries: np.ndarray, corpus: np.ndarray, positives: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Count against the whole corpus, a block of queries at a time."""
    step = int(np.clip(_SCORE_CELLS // len(corpus), 1, _MAX_QUERIES))
    above: list[int] = []
    tied: list[int] = []
    for start in range(0, len(queries), step):
        scores = score_block(queries[start : start + step], corpus)  # (step, N)
        for row, wanted in zip(scores, positives[start : start + step], strict=True):
            for value in row[wanted]:
                above.append(np.count_nonzero(row > value))
                tied.append(np.count_nonzero(row == value))
    return np.array(above, dtype=np.int64), np.array(tied, dtype=np.int64)


def _count_pools(
    queries: np.ndarray, corpus: np.ndarray, positives: list[np.ndarray], pools: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Count against each query's own candidates."""
    above: list[int] = []
    tied: list[int] = []
    for number, (query, wanted, pool) in enumerate(zip(queries, positives, pools, strict=True)):
        if not np.isin(wanted, pool).all():
            raise ValueError(f"candidates: a positive of query {number} is not among them; add it to the candidates")
        row = score_block(query[None], corpus[pool])[0]  # (C,)
        place = {candidate: position for position, candidate in enumerate(pool.tolist())}
        for value in row[[place[positive] for positive in wanted.tolist()]]:
            above.append(np.count_nonzero(row > value))
            tied.append(np.count_nonzero(row == value))
    return np.array(above, dtype=np.int64), np.array(tied, dtype=np.int64)


def score_block(queries: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Dot products, accumulated in float64 and rounded to float32.

    Args:
        queries: (Q, D) float32.
        corpus: (N, D) float32.

    Returns:
        (Q, N) float32.
    """
    wide = queries.astype(np.float64)
    scores = np.empty((len(queries), len(corpus)), dtype=np.float32)
    step = max(1, _CORPUS_CELLS // corpus.shape[1])
    for start in range(0, len(corpus), step):
        block = corpus[start : start + step].astype(np.float64)
        scores[:, start : start + step] = wide @ block.T
    return scores


def per_query(counts: Counts, metric: str) -> np.ndarray:
    """Expected value of a metric for every query.

    Args:
        counts: Where the positives stand.
        metric: "recall@k" (share of the query's positives in the first k), "precision@k", "ndcg@k", "mrr" (reciprocal
            rank of the first positive) or "median_rank" (that rank itself).

    Returns:
        (Q,) float64.

    Raises:
        ValueError: For another name.
    """
    kind, k = parse_metric(metric)
    if kind in ("mrr", "median_rank"):
        return _first_positive(counts, kind)
    if kind == "ndcg":
        discounts = _discounts(k)
        low, high = np.minimum(counts.above, k), np.minimum(counts.above + counts.tied, k)
        gain = _sum_by_query(counts, (discounts[high] - discounts[low]) / counts.tied)
        return gain / discounts[np.minimum(counts.num_positives, k)]
    inside = np.minimum(np.maximum(k - counts.above, 0), counts.tied) / counts.tied  # (P,) P(in the first k)
    found = _sum_by_query(counts, inside)
    return found / (counts.num_positives if kind == "recall" else k)


def summarise(metric: str, scores: np.ndarray) -> float:
    """One number of many queries: the mean, and for `median_rank` the median.

    Args:
        metric: As for `per_query`.
        scores: (Q,) what `per_query` gave.

    Returns:
        The metric's value.
    """
    return float(np.median(scores) if parse_metric(metric)[0] == "median_rank" else np.mean(scores))


def standard_error(scores: np.ndarray) -> float:
    """Standard error of the mean over queries, taken as independent draws.

    Args:
        scores: (Q,) values in [0, 1].

    Returns:
        The sample deviation over the root of Q; for a single query 0.5, the most that values in [0, 1] can spread.
    """
    if len(scores) == 1:
        return 0.5
    return float(np.std(scores, ddof=1) / np.sqrt(len(scores)))


def chance_level(
    metric: str, num_candidates: Sequence[int] | np.ndarray | int, num_positives: Sequence[int] | np.ndarray | int
) -> float:
    """What a random order scores: k/N for recall@k, P/N for precision@1, averaged over the queries.

    Args:
        metric: As for `per_query`.
        num_candidates: (Q,) or one number.
        num_positives: (Q,) or one number.

    Returns:
        The metric's expectation.
    """
    return summarise(metric, per_query(all_tied(np.asarray(num_candidates), np.asarray(num_positives)), metric))


def chance_error(
    metric: str, num_candidates: Sequence[int] | np.ndarray | int, num_positives: Sequence[int] | np.ndarray | int
) -> float:
    """Standard deviation of the score of one random order of every query's candidates.

    Args:
        metric: "recall@k", "precision@k", "ndcg@k" or "mrr".
        num_candidates: (Q,) or one number.
        num_positives: (Q,) or one number.

    Returns:
        The deviation of the mean over the queries; each query adds its own variance.

    Raises:
        ValueError: For "median_rank", which is no mean.
    """
    kind, k = parse_metric(metric)
    counts = all_tied(np.asarray(num_candidates), np.asarray(num_positives))
    total, wanted = counts.num_candidates, counts.num_positives
    # A sum over P places drawn from N without return has P (N - P) / (N - 1) times the variance of one place.
    spread = wanted * (total - wanted) / np.maximum(total - 1, 1)
    if kind in ("recall", "precision"):
        share = np.minimum(k, total) / total
        scale = wanted if kind == "recall" else k
        variance = spread * share * (1 - share) / scale**2
    elif kind == "ndcg":
        variance = spread * _place_variance(total, k) / _discounts(k)[np.minimum(wanted, k)] ** 2
    elif kind == "mrr":
        pairs = [_reciprocal_moments(0, *pair) for pair in zip(total.tolist(), wanted.tolist(), strict=True)]
        variance = np.array([second - first**2 for first, second in pairs])
    else:
        raise ValueError("metric: 'median_rank' is no mean; recall@k, precision@k, ndcg@k and mrr have a chance error")
    return float(np.sqrt(np.maximum(variance, 0).sum()) / len(total))


def parse_metric(metric: str) -> tuple[str, int]:
    """Split "recall@10" into its kind and depth.

    Args:
        metric: As for `per_query`.

    Returns:
        The kind and k; k is 0 for a metric without depth.

    Raises:
        ValueError: For an unknown name or a depth below 1.
    """
    kind, at, depth = metric.partition("@")
    if not at and kind in ("mrr", "median_rank"):
        return kind, 0
    if kind in ("recall", "precision", "ndcg") and depth.isascii() and depth.isdigit() and int(depth) > 0:
        return kind, int(depth)
    raise ValueError(
        f"metric: {metric!r}; recall@k, precision@k, ndcg@k, mrr and median_rank are accepted, k at least 1; "
        "write for example 'recall@1'"
    )


def _sum_by_query(counts: Counts, values: np.ndarray) -> np.ndarray:
    """(P,) values to (Q,) sums."""
    return np.bincount(counts.owner, values, minlength=len(counts.num_positives))


def _discounts(k: int) -> np.ndarray:
    """(k + 1,) sums of the first 0..k discounts 1 / log2(rank + 1)."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])


def _place_variance(total: np.ndarray, k: int) -> np.ndarray:
    """(Q,) variance of the discount of a random place among N; places after k count nothing."""
    squares = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)) ** 2)])
    depth = np.minimum(total, k)
    return squares[depth] / total - (_discounts(k)[depth] / total) ** 2


def _first_positive(counts: Counts, kind: str) -> np.ndarray:
    """(Q,) expected reciprocal rank or rank of each query's first positive."""
    starts = np.cumsum(counts.num_positives) - counts.num_positives
    best = np.minimum.reduceat(counts.above, starts)  # (Q,) candidates above the best group with a positive
    in_best = counts.above == best[counts.owner]
    wanted = _sum_by_query(counts, in_best).astype(np.int64)  # (Q,) positives in that group
    tied = np.maximum.reduceat(np.where(in_best, counts.tied, 0), starts)  # (Q,) its size
    if kind == "median_rank":
        return best + (tied + 1) / (wanted + 1)
    cases, which = np.unique(np.stack([best, tied, wanted], axis=1), axis=0, return_inverse=True)
    values = np.array([_reciprocal_moments(*case)[0] for case in cases.tolist()])
    return values[which.reshape(-1)]


def _reciprocal_moments(above: int, tied: int, wanted: int) -> tuple[float, float]:
    """First and second moment of 1 / rank of the first of `wanted` positives among `tied`, after `above` others."""
    place = np.arange(1, tied - wanted + 2)
    keep = (tied - place[:-1] - wanted + 1) / (tied - place[:-1])  # P(at j + 1) / P(at j)
    chance = wanted / tied * np.concatenate([[1.0], np.cumprod(keep)])
    reciprocal = 1.0 / (above + place)
    return float(chance @ reciprocal), float(chance @ reciprocal**2)
