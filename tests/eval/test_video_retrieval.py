"""The evaluate metric, loaded by path as users load it."""

from pathlib import Path

import evaluate
import numpy as np
import pytest

import gve.eval.video_retrieval
from gve.eval.video_retrieval.ranking import count_ranks, per_query

FOLDER = Path(gve.eval.video_retrieval.__file__).parent


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(FOLDER), keep_in_memory=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((12, 8)).astype(np.float32)
    corpus = rng.standard_normal((40, 8)).astype(np.float32)
    positives = [sorted(rng.choice(40, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(12)]
    return queries, corpus, positives


def test_equals_ranking(metric, data):
    queries, corpus, positives = data
    result = metric.compute(
        predictions=range(12), references=positives, query_embeddings=queries, corpus_embeddings=corpus, ks=(1, 7)
    )
    counts = count_ranks(queries, corpus, positives)
    for name in ("recall@1", "recall@7", "precision@1", "precision@7", "ndcg@10", "mrr"):
        assert result[name] == pytest.approx(per_query(counts, name).mean()), name
    assert result["median_rank"] == np.median(per_query(counts, "median_rank"))
    assert (result["num_queries"], result["tied_queries"]) == (12, 0.0)


def test_predictions_choose_rows_and_their_pools(metric, data):
    queries, corpus, positives = data
    pools = [sorted({*rows, *range(5)}) for rows in positives]
    chosen = [7, 2]
    result = metric.compute(
        predictions=chosen,
        references=[positives[row] for row in chosen],
        query_embeddings=queries,
        corpus_embeddings=corpus,
        candidates=pools,
        per_query=True,
    )
    counts = count_ranks(queries[chosen], corpus, [positives[row] for row in chosen], [pools[row] for row in chosen])
    assert result["per_query"]["recall@1"] == per_query(counts, "recall@1").tolist()
    assert result["per_query"]["mrr"] == per_query(counts, "mrr").tolist()


def test_batches_add_up(metric, data):
    queries, corpus, positives = data
    whole = metric.compute(
        predictions=range(12), references=positives, query_embeddings=queries, corpus_embeddings=corpus
    )
    metric.add_batch(predictions=range(5), references=positives[:5])
    metric.add_batch(predictions=range(5, 12), references=positives[5:])
    assert metric.compute(query_embeddings=queries, corpus_embeddings=corpus) == whole


def test_ties_are_reported(metric):
    result = metric.compute(
        predictions=[0, 1],
        references=[[0], [1]],
        query_embeddings=np.ones((2, 3)),
        corpus_embeddings=np.ones((4, 3)),
    )
    assert (result["tied_queries"], result["recall@1"]) == (1.0, 0.25)


def test_errors_name_the_argument(data):
    queries, corpus, positives = data
    fresh = evaluate.load(str(FOLDER), keep_in_memory=True)
    with pytest.raises(ValueError, match="query_embeddings, corpus_embeddings: got None"):
        fresh.compute(predictions=range(12), references=positives)
    with pytest.raises(ValueError, match=r"predictions: a row outside 0\.\.11"):
        fresh.compute(
            predictions=range(1, 13), references=positives, query_embeddings=queries, corpus_embeddings=corpus
        )
    with pytest.raises(ValueError, match="candidates: 1 lists for 12 rows"):
        fresh.compute(
            predictions=range(12),
            references=positives,
            query_embeddings=queries,
            corpus_embeddings=corpus,
            candidates=[[0]],
        )
