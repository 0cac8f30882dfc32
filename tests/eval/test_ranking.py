"""Counting against a slow oracle that writes out every order of the tied candidates."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.eval.video_retrieval import ranking
from gve.eval.video_retrieval.ranking import (
    all_tied,
    chance_error,
    chance_level,
    count_ranks,
    per_query,
    standard_error,
    summarise,
)

METRICS = ("recall@1", "recall@2", "recall@10", "precision@1", "precision@3", "ndcg@2", "ndcg@10", "mrr")


def score_order(order, positives, metric):
    """A metric of one strict order of candidates, straight from its definition."""
    kind, _, depth = metric.partition("@")
    ranks = [rank for rank, candidate in enumerate(order, start=1) if candidate in positives]
    if kind == "mrr":
        return 1 / ranks[0]
    if kind == "median_rank":
        return ranks[0]
    found = [rank for rank in ranks if rank <= int(depth)]
    if kind == "recall":
        return len(found) / len(positives)
    if kind == "precision":
        return len(found) / int(depth)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(positives), int(depth)) + 1))
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


def embed(num_rows, queries):
    """Vectors whose dot products are the wanted scores."""
    corpus = np.array([[scores[row] for scores, _, _ in queries] for row in range(num_rows)], dtype=np.float32)
    return np.eye(len(queries), dtype=np.float32), corpus


@settings(max_examples=60, deadline=None)
@given(small_cases(), st.booleans())
def test_expected_value_equals_all_orders(case, with_pools):
    num_rows, queries = case
    pools = [pool if with_pools else list(range(num_rows)) for _, pool, _ in queries]
    positives = [wanted for _, _, wanted in queries]
    counts = count_ranks(*embed(num_rows, queries), positives, pools if with_pools else None)
    for metric in (*METRICS, "median_rank"):
        wanted = [
            oracle({row: scores[row] for row in pool}, set(good), metric)[0]
            for (scores, _, good), pool in zip(queries, pools, strict=True)
        ]
        np.testing.assert_allclose(per_query(counts, metric), wanted, rtol=1e-12, err_msg=metric)


@pytest.mark.parametrize("num_candidates", [1, 2, 5, 6])
@pytest.mark.parametrize("metric", METRICS)
def test_chance_equals_all_permutations(metric, num_candidates):
    for num_positives in range(1, min(num_candidates, 3) + 1):
        mean, variance = oracle(dict.fromkeys(range(num_candidates), 0), set(range(num_positives)), metric)
        assert chance_level(metric, num_candidates, num_positives) == pytest.approx(mean)
        assert chance_error(metric, num_candidates, num_positives) == pytest.approx(math.sqrt(variance), abs=1e-9)


def test_chance_closed_forms():
    assert chance_level("recall@1", 64, 1) == pytest.approx(1 / 64)
    assert chance_level("recall@10", 64, 3) == pytest.approx(10 / 64)
    assert chance_level("recall@10", 5, 2) == 1.0
    assert chance_level("precision@1", [10, 10], [1, 2]) == pytest.approx(0.15)
    # One positive, recall@1: Bernoulli queries.
    level = 1 / 64
    assert chance_error("recall@1", [64] * 50, [1] * 50) == pytest.approx(math.sqrt(level * (1 - level) / 50))


def test_collapsed_encoder_scores_chance():
    queries, corpus = np.ones((7, 5), dtype=np.float32), np.full((33, 5), 0.1, dtype=np.float32)
    positives = [[row, row + 7] for row in range(7)]
    counts = count_ranks(queries, corpus, positives)
    for metric in (*METRICS, "median_rank"):
        assert summarise(metric, per_query(counts, metric)) == pytest.approx(chance_level(metric, [33] * 7, [2] * 7))
    pools = [[row, row + 7, *range(20, 28)] for row in range(7)]  # positives stand first
    pooled = count_ranks(queries, corpus, positives, pools)
    assert summarise("precision@1", per_query(pooled, "precision@1")) == pytest.approx(0.2)


def test_result_does_not_depend_on_blocks_or_order(monkeypatch):
    rng = np.random.default_rng(0)
    corpus = rng.standard_normal((203, 17)).astype(np.float32)
    corpus[100:110] = corpus[:10]  # duplicates that must tie
    queries = rng.standard_normal((41, 17)).astype(np.float32)
    positives = [rng.choice(203, size=rng.integers(1, 4), replace=False) for _ in range(41)]
    positives[0] = np.array([3])
    whole = count_ranks(queries, corpus, positives)
    assert whole.tied[0] == 2  # row 3 and its duplicate
    monkeypatch.setattr(ranking, "_SCORE_CELLS", 203 * 3)
    monkeypatch.setattr(ranking, "_CORPUS_CELLS", 17 * 10)
    blocks = count_ranks(queries, corpus, positives)
    order = rng.permutation(203)
    place = np.argsort(order)
    shuffled = count_ranks(queries, corpus[order], [place[rows] for rows in positives])
    pools = [rng.permutation(203) for _ in positives]
    pooled = count_ranks(queries, corpus, positives, pools)
    for other in (blocks, shuffled, pooled):
        np.testing.assert_array_equal(whole.above, other.above)
        np.testing.assert_array_equal(whole.tied, other.tied)


def test_true_recall_is_not_hit_rate():
    corpus = np.array([[3.0], [2.0], [1.0], [0.0]], dtype=np.float32)
    counts = count_ranks(np.ones((1, 1), dtype=np.float32), corpus, [[0, 3]])
    assert per_query(counts, "recall@1").tolist() == [0.5]
    assert per_query(counts, "precision@1").tolist() == [1.0]
    assert per_query(counts, "median_rank").tolist() == [1.0]


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


EYE = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EYE, EYE[:, :2], [[0]] * 3), "query_embeddings: width 3"),
        ((EYE[0], EYE, [[0]]), r"query_embeddings: shape \(3,\)"),
        ((EYE, np.where(EYE > 0, np.nan, EYE), [[0]] * 3), "corpus_embeddings: row 0 holds nan"),
        ((EYE, EYE, [[0]] * 2), "references: 2 lists for 3 queries"),
        ((EYE, EYE, [[0], [], [1]]), "references: query 1 has no rows"),
        ((EYE, EYE, [[0], [3], [1]]), r"references: query 1 names a row outside 0\.\.2"),
        ((EYE, EYE, [[0], [1, 1], [1]]), "references: query 1 repeats a row"),
        ((EYE, EYE, [[0], [1], [1]], [[0, 1], [0, 2], [1]]), "candidates: a positive of query 1 is not among them"),
        ((EYE, EYE, [[0], [1], [1]], [[0, 1, 0], [1], [1]]), "candidates: query 0 repeats a row"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        count_ranks(*arguments)


@pytest.mark.parametrize("metric", ["recall", "recall@0", "recall@-1", "hit@1", "mrr@10", "", "ndcg@x"])
def test_unknown_metric_is_named(metric):
    with pytest.raises(ValueError, match=r"metric: .*recall@k"):
        per_query(all_tied(3, 1), metric)


def test_chance_refuses_impossible_counts():
    with pytest.raises(ValueError, match="num_positives"):
        chance_level("recall@1", [3], [4])
    with pytest.raises(ValueError, match="median_rank"):
        chance_error("median_rank", 3, 1)
