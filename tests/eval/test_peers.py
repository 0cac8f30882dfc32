"""Agreement with other evaluators to 1e-6 on data without ties."""

import numpy as np
import pytest

from gve.eval.video_retrieval.metrics import per_query, tied_queries
from gve.eval.video_retrieval.ranking import count_ranks, score_block

NUM_QUERIES, NUM_ROWS, DEPTHS = 60, 150, (1, 3, 10)
TOLERANCE = 1e-6
KINDS = ("recall", "hit", "precision", "ndcg", "map", "mrr")


@pytest.fixture(scope="module")
def case():
    """Unit vectors, one to four positives a query, and every query's value by name."""
    rng = np.random.default_rng(11)
    corpus = rng.standard_normal((NUM_ROWS, 16))
    positives = [rng.choice(NUM_ROWS, size=rng.integers(1, 5), replace=False).tolist() for _ in range(NUM_QUERIES)]
    queries = np.stack([corpus[rows].mean(axis=0) for rows in positives]) + rng.standard_normal((NUM_QUERIES, 16))
    queries, corpus = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for rows in (queries, corpus)
    )
    counts = count_ranks(queries, corpus, positives)
    assert tied_queries(counts) == 0
    ours = {
        name: per_query(counts, name) for name in (*(f"{kind}@{k}" for kind in KINDS for k in DEPTHS), "map", "mrr")
    }
    assert 0.05 < ours["recall@3"].mean() < 0.9
    return queries, corpus, positives, ours


@pytest.fixture(scope="module")
def run(case):
    """Relevance and all scores as dictionaries, the form that trec_eval and its kin read."""
    queries, corpus, positives, _ = case
    scores = score_block(queries, corpus).astype(np.float64)
    relevance = {f"q{query:03}": {f"d{row:03}": 1 for row in rows} for query, rows in enumerate(positives)}
    ranked = {
        f"q{query:03}": {f"d{row:03}": score for row, score in enumerate(line)}
        for query, line in enumerate(scores.tolist())
    }
    return relevance, ranked


def test_pytrec_eval(case, run):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    ours, relevance = case[-1], run[0]
    cut = dict(zip(("recall", "success", "P", "ndcg_cut", "map_cut"), KINDS, strict=False))
    measures = {f"{name}.{','.join(map(str, DEPTHS))}" for name in cut} | {"map", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(relevance, measures).evaluate(run[1])
    names = {"map": "map", "recip_rank": "mrr"} | {f"{kind}_{k}": f"{cut[kind]}@{k}" for kind in cut for k in DEPTHS}
    for their_name, name in names.items():
        values = [theirs[query][their_name] for query in relevance]
        np.testing.assert_allclose(ours[name], values, atol=TOLERANCE, err_msg=name)


def test_sentence_transformers(case):
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    torch = pytest.importorskip("torch")
    queries, corpus, positives, ours = case

    class Vectors:
        """Gives the vectors whose numbers it is handed."""

        similarity_fn_name = "cosine"
        model_card_data = None

        def encode_query(self, texts, **options):
            return torch.from_numpy(queries[[int(text) for text in texts]])

        def encode_document(self, texts, **options):
            return torch.from_numpy(corpus[[int(text) for text in texts]])

    depths = {name: list(DEPTHS) for name in ("mrr_at_k", "ndcg_at_k", "accuracy_at_k", "precision_recall_at_k")}
    evaluator = evaluation.InformationRetrievalEvaluator(
        {f"q{query}": str(query) for query in range(NUM_QUERIES)},
        {f"d{row}": str(row) for row in range(NUM_ROWS)},
        {f"q{query}": {f"d{row}" for row in rows} for query, rows in enumerate(positives)},
        map_at_k=[NUM_ROWS],
        score_functions={"dot": lambda first, second: first @ second.T},
        write_csv=False,
        **depths,
    )
    theirs = evaluator.compute_all_metrics(Vectors())["dot"]
    assert theirs["map@k"][NUM_ROWS] == pytest.approx(ours["map"].mean(), abs=TOLERANCE)
    for kind, name in {"accuracy": "hit", **{one: one for one in KINDS if one not in ("hit", "map")}}.items():
        for k in DEPTHS:
            assert theirs[f"{kind}@k"][k] == pytest.approx(ours[f"{name}@{k}"].mean(), abs=TOLERANCE), (kind, k)


@pytest.mark.slow  # compiles for a minute or two at its first use on a machine
def test_ranx(case, run):
    ranx = pytest.importorskip("ranx")
    names = {"map": "map", "mrr": "mrr"}
    names |= {f"{'hit_rate' if kind == 'hit' else kind}@{k}": f"{kind}@{k}" for kind in KINDS for k in DEPTHS}
    theirs = ranx.evaluate(ranx.Qrels(run[0]), ranx.Run(run[1]), list(names), return_mean=False)
    for their_name, name in names.items():
        np.testing.assert_allclose(case[-1][name], theirs[their_name], atol=TOLERANCE, err_msg=name)
