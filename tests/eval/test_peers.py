"""Agreement with trec_eval on data without ties; `tests/bench/metric.py` compares with more evaluators."""

import numpy as np
import pytest

from gve.eval.video_retrieval.metrics import per_query, tied_queries
from gve.eval.video_retrieval.ranking import count_ranks, score_block

DEPTHS = (1, 3, 10)
KINDS = {"recall": "recall", "success": "hit", "P": "precision", "ndcg_cut": "ndcg", "map_cut": "map"}


def test_pytrec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rng = np.random.default_rng(11)
    corpus = rng.standard_normal((150, 16))
    positives = [rng.choice(150, size=rng.integers(1, 5), replace=False).tolist() for _ in range(60)]
    queries = np.stack([corpus[rows].mean(axis=0) for rows in positives]) + rng.standard_normal((60, 16))
    counts = count_ranks(queries, corpus, positives)
    assert tied_queries(counts) == 0
    assert 0.05 < per_query(counts, "recall@3").mean() < 0.9

    scores = score_block(queries.astype(np.float32), corpus.astype(np.float32)).astype(np.float64).tolist()
    relevance = {f"q{query}": {f"d{row}": 1 for row in rows} for query, rows in enumerate(positives)}
    ranked = {f"q{query}": {f"d{row}": score for row, score in enumerate(line)} for query, line in enumerate(scores)}
    measures = {f"{kind}.{','.join(map(str, DEPTHS))}" for kind in KINDS} | {"map", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(relevance, measures).evaluate(ranked)
    names = {f"{kind}_{k}": f"{KINDS[kind]}@{k}" for kind in KINDS for k in DEPTHS}
    for their_name, name in (names | {"map": "map", "recip_rank": "mrr"}).items():
        values = [theirs[query][their_name] for query in relevance]
        np.testing.assert_allclose(per_query(counts, name), values, atol=1e-6, err_msg=name)
