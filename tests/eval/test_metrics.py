"""Metrics of counted positions and chance, against a slow oracle: every order of the tied candidates, written out."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.eval.video_retrieval.metrics import (
    all_tied,
    chance_error,
    chance_level,
    parse_metric,
    per_query,
    standard_error,
    summarise,
    tied_queries,
)
from gve.eval.video_retrieval.ranking import count_ranked, count_ranks, count_scores

METRICS = (
    *("recall@1", "recall@2", "recall@10", "hit@1", "hit@2", "hit@10", "precision@1", "precision@3", "ndcg@2"),
    *("ndcg@10", "map", "map@2", "mrr", "mrr@2"),
)
RANKS = ("mean_rank", "median_rank")


def score_order(order, positives, metric):
    """A metric of one strict order of candidates, from its definition."""
    kind, _, depth = metric.partition("@")
    k = int(depth or len(order))
    ranks = [rank for rank, candidate in enumerate(order, start=1) if candidate in positives]
    found = [rank for rank in ranks if rank <= k]
    if metric in RANKS:
        return ranks[0]
    if kind == "mrr":
        return 1 / found[0] if found else 0
    if kind == "map":
        return sum(place / rank for place, rank in enumerate(found, start=1)) / len(positives)
    if kind == "recall":
        return len(found) / len(positives)
    if kind == "hit":
        return float(bool(found))
    if kind == "precision":
        return len(found) / k
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(positives), k) + 1))
    return sum(1 / math.log2(rank + 1) for rank in found) / ideal


def orders(scores):
    """Every order of the candidates that falls in score; ties in all arrangements."""
    levels = sorted(set(scores.values()), reverse=True)
    groups = [[candidate for candidate, score in scores.items() if score == level] for level in levels]
    for arrangement in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [candidate for group in arrangement for candidate in group]


def oracle(scores, positives, metric):
    """Mean and variance of a metric over the orders of the ties."""
    values = [score_order(order, positives, metric) for order in orders(scores)]
    return np.mean(values), np.var(values)


@st.composite
def small_cases(draw):
    """Few candidates on few score levels, so that ties abound; several positives; a pool for each query."""
    num_rows = draw(st.integers(1, 6))
    queries = []
    for _ in range(draw(st.integers(1, 3))):
        scores = draw(st.lists(st.integers(-2, 2), min_size=num_rows, max_size=num_rows))
        pool = draw(st.lists(st.integers(0, num_rows - 1), min_size=1, unique=True))
        positives = draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
        queries.append((scores, pool, positives))
    return num_rows, queries


def count(queries, way, with_pools):
    """The same case through embeddings, whose dot products are the scores, or through scores."""
    positives = [wanted for _, _, wanted in queries]
    pools = [pool for _, pool, _ in queries] if with_pools else None
    if way == "embeddings":
        corpus = np.array([scores for scores, _, _ in queries], dtype=np.float32).T
        return count_ranks(np.eye(len(queries), dtype=np.float32), corpus, positives, pools)
    rows = [[scores[row] for row in pool] if with_pools else scores for scores, pool, _ in queries]
    return count_scores(rows, positives, pools)


@settings(max_examples=60, deadline=None)
@given(small_cases(), st.sampled_from(["embeddings", "scores"]), st.booleans())
def test_expected_value_equals_all_orders(case, way, with_pools):
    num_rows, queries = case
    counts = count(queries, way, with_pools)
    for metric in (*METRICS, *RANKS):
        wanted = [
            oracle({row: scores[row] for row in (pool if with_pools else range(num_rows))}, set(good), metric)[0]
            for scores, pool, good in queries
        ]
        np.testing.assert_allclose(per_query(counts, metric), wanted, rtol=1e-12, atol=1e-14, err_msg=metric)


def test_chance_equals_all_permutations():
    for metric, total, wanted in itertools.product(METRICS, (1, 2, 5, 6), (1, 2, 3)):
        if wanted <= total:
            mean, variance = oracle(dict.fromkeys(range(total), 0), set(range(wanted)), metric)
            assert chance_level(metric, total, wanted) == pytest.approx(mean), (metric, total, wanted)
            if parse_metric(metric)[0] != "map":
                assert chance_error(metric, total, wanted) == pytest.approx(math.sqrt(variance), abs=1e-7), metric


def test_chance_and_errors_over_queries():
    assert chance_level("mean_rank", 9, 1) == pytest.approx(5)
    assert chance_level("precision@1", [10, 10], [1, 2]) == pytest.approx(0.15)
    # one positive, recall@1: Bernoulli queries
    assert chance_error("recall@1", [64] * 50, [1] * 50) == pytest.approx(math.sqrt(1 / 64 * 63 / 64 / 50))
    scores = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    assert standard_error(scores) == pytest.approx(np.std(scores, ddof=1) / math.sqrt(5))
    assert standard_error(np.array([1.0])) == 0.5


def test_tied_queries_counts_ties_that_matter():
    # Positives tie with each other only, with nothing, and with a candidate that is none.
    counts = count_scores([[3, 3, 1, 0], [3, 2, 1, 0], [3, 1, 1, 0]], [[0, 1], [1], [1]])
    assert tied_queries(counts) == pytest.approx(1 / 3)
    assert counts.tied.tolist() == [2, 2, 1, 2]


def test_what_was_never_ranked():
    counts = count_ranked([["a", "b"], [], ["c", "a"]], [["b", "x"], ["a"], ["x", "y"]])
    for metric, wanted in (
        ("recall@5", [0.5, 0, 0]),
        ("hit@5", [1, 0, 0]),
        ("mrr", [0.5, 0, 0]),
        ("map", [0.25, 0, 0]),
        ("mean_rank", [2, np.inf, np.inf]),
    ):
        assert per_query(counts, metric).tolist() == wanted, metric
    assert per_query(counts, "ndcg@1000")[1:].tolist() == [0, 0]
    assert summarise("median_rank", per_query(counts, "median_rank")) == np.inf
    assert tied_queries(counts) == 0


def test_places_after_a_cut_are_one_tie():
    listed, positives = [[4, 1], [0, 2]], [[1, 3], [3]]
    counts = count_ranked(listed, positives, num_candidates=5)
    for metric in (*METRICS, *RANKS):
        wanted = [
            oracle({row: {first: 2, second: 1}.get(row, 0) for row in range(5)}, set(good), metric)[0]
            for (first, second), good in zip(listed, positives, strict=True)
        ]
        np.testing.assert_allclose(per_query(counts, metric), wanted, rtol=1e-12, err_msg=metric)


def test_bad_names_and_counts_are_refused():
    for metric in ("recall", "recall@0", "recall@-1", "hit", "map@", "mean_rank@3", "", "ndcg@x"):
        with pytest.raises(ValueError, match=r"metric: .*recall@k"):
            per_query(all_tied(3, 1), metric)
    with pytest.raises(ValueError, match="num_positives"):
        chance_level("recall@1", [3], [4])
    for metric in ("median_rank", "mean_rank", "map"):
        with pytest.raises(ValueError, match=f"metric: '{metric}' has no chance error"):
            chance_error(metric, 3, 1)
