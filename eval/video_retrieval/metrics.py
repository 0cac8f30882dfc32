"""Metrics of counted positions: for every query the expected value over all orders of its tied candidates.

Shapes: Q queries, P positives of all queries laid end to end, G groups of tied candidates that hold a positive.

So neither the order of the corpus nor a collapsed encoder can gain from ties. Chance is the same arithmetic with every
candidate tied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .ranking import NEVER, Counts

_WITH_DEPTH = ("recall", "hit", "precision", "ndcg", "map", "mrr")
_WITHOUT_DEPTH = ("map", "mrr", "mean_rank", "median_rank")


@dataclass(frozen=True)
class _Groups:
    """Tied candidates with at least one positive among them, best first within each query; every array is (G,)."""

    owner: np.ndarray  # the query
    above: np.ndarray  # candidates before the group
    tied: np.ndarray  # its size
    wanted: np.ndarray  # positives in it
    before: np.ndarray  # positives of the same query before it


def per_query(counts: Counts, metric: str) -> np.ndarray:
    """Expected value (Q,) of a metric for every query.

    Args:
        counts: Ranks of the positives.
        metric: "recall@k" (share of the query's positives in the first k), "hit@k" (1 if any is), "precision@k" (share
            of the first k that are positives), "ndcg@k", "map" or "map@k" (mean over the positives of the precision at
            each, 0 after place k), "mrr" or "mrr@k" (reciprocal rank of the first positive, 0 after place k),
            "mean_rank" or "median_rank" (rank of the first positive; infinite if it was never ranked).

    Raises:
        ValueError: For another name.
    """
    kind, k = parse_metric(metric)
    if kind in ("recall", "precision"):
        inside = np.minimum(np.maximum(k - counts.above, 0), counts.tied) / counts.tied  # (P,) P(in the first k)
        return _sum_by_query(counts, inside) / (counts.num_positives if kind == "recall" else k)
    if kind == "ndcg":
        discounts = _discounts(k)
        low, high = np.minimum(counts.above, k), np.minimum(counts.above + counts.tied, k)
        gain = _sum_by_query(counts, (discounts[high] - discounts[low]) / counts.tied)
        return gain / discounts[np.minimum(counts.num_positives, k)]
    if kind == "map":
        return _average_precision(counts, k or NEVER)
    return _first_positive(counts, kind, k or NEVER)


def summarise(metric: str, scores: np.ndarray) -> float:
    """One number for many queries' values (Q,): the mean, and for `median_rank` the median."""
    return float(np.median(scores) if parse_metric(metric)[0] == "median_rank" else np.mean(scores))


def tied_queries(counts: Counts) -> float:
    """Share of the queries for which a positive ties with a candidate that is none; at 0, order never matters."""
    groups = _groups(counts)
    return len(np.unique(groups.owner[groups.tied > groups.wanted])) / len(counts.num_positives)


def standard_error(scores: np.ndarray) -> float:
    """Standard error of the mean over queries (Q,) in [0, 1], taken as independent draws.

    A single query gives 0.5, the most that such values can spread.
    """
    if len(scores) == 1:
        return 0.5
    return float(np.std(scores, ddof=1) / np.sqrt(len(scores)))


def all_tied(num_candidates: Sequence[int] | np.ndarray, num_positives: Sequence[int] | np.ndarray) -> Counts:
    """The counts of an encoder that gives every candidate the same score; the expectation over them is chance.

    Args:
        num_candidates: (Q,) or one number for all queries.
        num_positives: (Q,) or one number for all queries.

    Raises:
        ValueError: If a query has no positive, or fewer candidates than positives.
    """
    total, wanted = np.broadcast_arrays(
        np.atleast_1d(np.asarray(num_candidates, dtype=np.int64)), np.atleast_1d(np.asarray(num_positives, np.int64))
    )
    if (wanted < 1).any() or (total < wanted).any():
        raise ValueError("num_positives: each must lie between 1 and its query's number of candidates")
    owner = np.repeat(np.arange(len(total)), wanted)
    return Counts(owner, np.zeros(len(owner), dtype=np.int64), total[owner], wanted.copy(), total.copy())


def chance_level(
    metric: str, num_candidates: Sequence[int] | np.ndarray | int, num_positives: Sequence[int] | np.ndarray | int
) -> float:
    """Expected score of a random order: k/N for recall@k, P/N for precision@1, averaged over the queries.

    Args:
        metric: As for `per_query`.
        num_candidates: (Q,) or one number.
        num_positives: (Q,) or one number.
    """
    return summarise(metric, per_query(all_tied(np.asarray(num_candidates), np.asarray(num_positives)), metric))


def chance_error(
    metric: str, num_candidates: Sequence[int] | np.ndarray | int, num_positives: Sequence[int] | np.ndarray | int
) -> float:
    """Standard deviation of the score of one random order of every query's candidates; their variances add.

    Args:
        metric: "recall@k", "hit@k", "precision@k", "ndcg@k", "mrr" or "mrr@k".
        num_candidates: (Q,) or one number.
        num_positives: (Q,) or one number.

    Raises:
        ValueError: For the other metrics.
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
    elif kind == "hit":
        found = per_query(counts, metric)
        variance = found * (1 - found)
    elif kind == "mrr":
        pairs = [
            _reciprocal_moments(0, *pair, k or NEVER) for pair in zip(total.tolist(), wanted.tolist(), strict=True)
        ]
        variance = np.array([second - first**2 for first, second in pairs])
    else:
        raise ValueError(
            f"metric: {metric!r:.200} has no chance error; recall@k, hit@k, precision@k, ndcg@k and mrr have"
        )
    return float(np.sqrt(np.maximum(variance, 0).sum()) / len(total))


def parse_metric(metric: str) -> tuple[str, int]:
    """Split "recall@10" into its kind and depth; a metric without depth has 0.

    Raises:
        ValueError: For an unknown name or a depth below 1.
    """
    kind, at, depth = metric.partition("@")
    if not at and kind in _WITHOUT_DEPTH:
        return kind, 0
    if at and kind in _WITH_DEPTH and depth.isascii() and depth.isdigit() and int(depth) > 0:
        return kind, int(depth)
    raise ValueError(
        f"metric: {metric!r:.200}; must be recall@k, hit@k, precision@k, ndcg@k, map, map@k, mrr, mrr@k, mean_rank or "
        "median_rank, with k at least 1, such as 'recall@1'"
    )


def _sum_by_query(counts: Counts, values: np.ndarray) -> np.ndarray:
    """(P,) values to (Q,) sums."""
    return np.bincount(counts.owner, values, minlength=len(counts.num_positives))


def _groups(counts: Counts) -> _Groups:
    """The positives that share a score, together."""
    order = np.lexsort((counts.above, counts.owner))
    owner, above = counts.owner[order], counts.above[order]
    first = np.flatnonzero(np.diff(owner, prepend=-1) | (np.diff(above, prepend=-1) != 0))
    wanted = np.diff(first, append=len(owner))
    query_start = np.cumsum(counts.num_positives) - counts.num_positives  # (Q,)
    return _Groups(owner[first], above[first], counts.tied[order][first], wanted, first - query_start[owner[first]])


def _discounts(k: int) -> np.ndarray:
    """Sums (k + 1,) of the first 0..k discounts 1 / log2(rank + 1)."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])


def _place_variance(total: np.ndarray, k: int) -> np.ndarray:
    """(Q,) variance of the discount of a random place among N; places after k count nothing."""
    squares = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)) ** 2)])
    depth = np.minimum(total, k)
    return squares[depth] / total - (_discounts(k)[depth] / total) ** 2


def _average_precision(counts: Counts, k: int) -> np.ndarray:
    """(Q,) expected average precision over the query's positives.

    In a group of t after a candidates, b of them positives, each place holds one of its n positives with chance n / t,
    and j - 1 earlier places of the group then hold (j - 1)(n - 1) / (t - 1) others on average.
    """
    groups = _groups(counts)
    found = groups.above < min(k, NEVER)
    above, tied, wanted, before = (
        values[found] for values in (groups.above, groups.tied, groups.wanted, groups.before)
    )
    last = np.minimum(above + tied, k)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, last.max(initial=0) + 1))])
    others = (wanted - 1) / np.maximum(tied - 1, 1)
    precision = (before + 1 - (above + 1) * others) * (harmonic[last] - harmonic[above]) + others * (last - above)
    sums = np.bincount(groups.owner[found], wanted / tied * precision, minlength=len(counts.num_positives))
    return sums / counts.num_positives


def _first_positive(counts: Counts, kind: str, k: int) -> np.ndarray:
    """(Q,) expected rank or reciprocal rank of each query's first positive, or the chance that it is in the first k."""
    groups = _groups(counts)
    first = groups.before == 0  # one a query
    above, tied, wanted = groups.above[first], groups.tied[first], groups.wanted[first]
    if kind in ("mean_rank", "median_rank"):
        return np.where(above < NEVER, above + (tied + 1) / (wanted + 1), np.inf)
    # Few cases differ: most positives tie with nothing.
    cases, which = np.unique(np.stack([above, tied, wanted], axis=1), axis=0, return_inverse=True)
    if kind == "hit":
        values = [_found_within(*case, k) for case in cases.tolist()]
    else:
        values = [_reciprocal_moments(*case, k)[0] for case in cases.tolist()]
    return np.array(values)[which.reshape(-1)]


def _found_within(above: int, tied: int, wanted: int, k: int) -> float:
    """Chance that one of `wanted` positives among `tied`, after `above` others, is in the first k."""
    drawn = min(max(k - above, 0), tied)
    if not drawn:
        return 0.0
    if drawn > tied - wanted:
        return 1.0
    place = np.arange(drawn)
    return 1.0 - float(np.prod((tied - wanted - place) / (tied - place)))


def _reciprocal_moments(above: int, tied: int, wanted: int, k: int) -> tuple[float, float]:
    """First and second moment of 1 / rank of the first of `wanted` positives among `tied`, after `above` others."""
    if above >= min(k, NEVER):
        return 0.0, 0.0
    place = np.arange(1, tied - wanted + 2)
    keep = (tied - place[:-1] - wanted + 1) / (tied - place[:-1])  # P(at j + 1) / P(at j)
    chance = wanted / tied * np.concatenate([[1.0], np.cumprod(keep)])
    reciprocal = np.where(above + place <= k, 1.0 / (above + place), 0.0)
    return float(chance @ reciprocal), float(chance @ reciprocal**2)
