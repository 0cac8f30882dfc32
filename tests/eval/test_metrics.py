"""Metrics of counted positions against every order of the tied candidates, and chance."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_oracle import METRICS, RANKS, oracle

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


def embed(num_rows, queries):
    """Vectors whose dot products are the wanted scores."""
    corpus = np.array([[scores[row] for scores, _, _ in queries] for row in range(num_rows)], dtype=np.float32)
    return np.eye(len(queries), dtype=np.float32), corpus


def count(num_rows, queries, way, with_pools):
    """The same case through embeddings or through scores."""
    positives = [wanted for _, _, wanted in queries]
    pools = [pool for _, pool, _ in queries] if with_pools else None
    if way == "embeddings":
        return count_ranks(*embed(num_rows, queries), positives, pools)
    rows = [[scores[row] for row in pool] if with_pools else scores for scores, pool, _ in queries]
    return count_scores(rows, positives, pools)


@settings(max_examples=60, deadline=None)
@given(small_cases(), st.sampled_from(["embeddings", "scores"]), st.booleans())
def test_expected_value_equals_all_orders(case, way, with_pools):
    num_rows, queries = case
    counts = count(num_rows, queries, way, with_pools)
    for metric in (*METRICS, *RANKS):
        wanted = [
            oracle({row: scores[row] for row in (pool if with_pools else range(num_rows))}, set(good), metric)[0]
            for scores, pool, good in queries
        ]
        np.testing.assert_allclose(per_query(counts, metric), wanted, rtol=1e-12, atol=1e-14, err_msg=metric)


@settings(max_examples=60, deadline=None)
@given(small_cases(), st.integers(0, 5), st.booleans())
def test_properties(case, offset, with_pools):
    num_rows, queries = case
    counts = count(num_rows, queries, "scores", with_pools)
    shifted = [([3 * score + offset for score in scores], pool, wanted) for scores, pool, wanted in queries]
    same = count(num_rows, shifted, "scores", with_pools)
    for metric in METRICS:
        values = per_query(counts, metric)
        assert ((values >= 0) & (values <= 1 + 1e-12)).all(), metric
        np.testing.assert_array_equal(values, per_query(same, metric), err_msg=metric)  # only the order counts
    for kind in ("recall", "hit", "mrr", "map"):
        rising = [per_query(counts, f"{kind}@{k}") for k in range(1, 8)]
        assert (np.diff(rising, axis=0) >= -1e-12).all(), kind
    assert (per_query(counts, "hit@2") >= per_query(counts, "recall@2") - 1e-12).all()
    np.testing.assert_allclose(per_query(counts, "mrr"), per_query(counts, "mrr@6"))
    np.testing.assert_allclose(per_query(counts, "map"), per_query(counts, "map@6"))
    assert (per_query(counts, "mean_rank") >= 1).all()


def test_chance_equals_all_permutations():
    for metric, total, wanted in itertools.product(METRICS, (1, 2, 5, 6), (1, 2, 3)):
        if wanted <= total:
            mean, variance = oracle(dict.fromkeys(range(total), 0), set(range(wanted)), metric)
            assert chance_level(metric, total, wanted) == pytest.approx(mean), (metric, total, wanted)
            if parse_metric(metric)[0] != "map":
                assert chance_error(metric, total, wanted) == pytest.approx(math.sqrt(variance), abs=1e-7), metric


def test_chance_closed_forms():
    assert chance_level("recall@1", 64, 1) == pytest.approx(1 / 64)
    assert chance_level("recall@10", 64, 3) == pytest.approx(10 / 64)
    assert chance_level("recall@10", 5, 2) == 1.0
    assert chance_level("hit@1", 64, 4) == pytest.approx(1 / 16)
    assert chance_level("mean_rank", 9, 1) == pytest.approx(5)
    assert chance_level("precision@1", [10, 10], [1, 2]) == pytest.approx(0.15)
    # One positive, recall@1: Bernoulli queries.
    level = 1 / 64
    assert chance_error("recall@1", [64] * 50, [1] * 50) == pytest.approx(math.sqrt(level * (1 - level) / 50))


def test_collapsed_encoder_scores_chance():
    queries, corpus = np.ones((7, 5), dtype=np.float32), np.full((33, 5), 0.1, dtype=np.float32)
    positives = [[row, row + 7] for row in range(7)]
    counts = count_ranks(queries, corpus, positives)
    assert tied_queries(counts) == 1.0
    for metric in (*METRICS, *RANKS):
        assert summarise(metric, per_query(counts, metric)) == pytest.approx(chance_level(metric, [33] * 7, [2] * 7))


def test_tied_queries_counts_ties_that_matter():
    # Positives tie with each other only, with nothing, and with a candidate that is none.
    counts = count_scores([[3, 3, 1, 0], [3, 2, 1, 0], [3, 1, 1, 0]], [[0, 1], [1], [1]])
    assert tied_queries(counts) == pytest.approx(1 / 3)
    assert counts.tied.tolist() == [2, 2, 1, 2]


def test_what_was_never_ranked():
    counts = count_ranked([["a", "b"], [], ["c", "a"]], [["b", "x"], ["a"], ["x", "y"]])
    assert per_query(counts, "recall@5").tolist() == [0.5, 0, 0]
    assert per_query(counts, "hit@5").tolist() == [1, 0, 0]
    assert per_query(counts, "mrr").tolist() == [0.5, 0, 0]
    assert per_query(counts, "map").tolist() == [0.25, 0, 0]
    assert per_query(counts, "ndcg@1000")[1:].tolist() == [0, 0]
    assert per_query(counts, "mean_rank").tolist() == [2, np.inf, np.inf]
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


def test_random_vectors_score_chance():
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((400, 60, 2)).astype(np.float32)
    corpus = rng.standard_normal((30, 2)).astype(np.float32)
    values = [
        np.mean(per_query(count_ranks(batch, rng.permutation(corpus), [[q % 30] for q in range(60)]), "recall@1"))
        for batch in queries
    ]
    assert np.mean(values) == pytest.approx(chance_level("recall@1", [30] * 60, 1), rel=0.15)
    assert np.std(values) == pytest.approx(chance_error("recall@1", [30] * 60, [1] * 60), rel=0.5)


def test_standard_error():
    scores = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    assert standard_error(scores) == pytest.approx(np.std(scores, ddof=1) / math.sqrt(5))
    assert standard_error(np.array([1.0])) == 0.5


def test_bad_names_and_counts_are_refused():
    for metric in ("recall", "recall@0", "recall@-1", "hit", "map@", "mean_rank@3", "", "ndcg@x"):
        with pytest.raises(ValueError, match=r"metric: .*recall@k"):
            per_query(all_tied(3, 1), metric)
    with pytest.raises(ValueError, match="num_positives"):
        chance_level("recall@1", [3], [4])
    for metric in ("median_rank", "mean_rank", "map"):
        with pytest.raises(ValueError, match=f"metric: '{metric}' has no chance error"):
            chance_error(metric, 3, 1)
