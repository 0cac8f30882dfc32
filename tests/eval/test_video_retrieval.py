"""The evaluate metric, loaded by path as users load it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

import gve.eval.video_retrieval
from gve.eval.video_retrieval import app
from gve.eval.video_retrieval.intervals import bootstrap_interval
from gve.eval.video_retrieval.metrics import per_query
from gve.eval.video_retrieval.ranking import count_ranks, score_block

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
    named = ("recall@1", "recall@7", "hit@7", "precision@1", "precision@7", "ndcg@1", "ndcg@10", "map", "mrr")
    for name in (*named, "mean_rank"):
        assert result[name] == pytest.approx(per_query(counts, name).mean()), name
    assert result["median_rank"] == np.median(per_query(counts, "median_rank"))
    assert (result["num_queries"], result["tied_queries"]) == (12, 0.0)
    assert "intervals" not in result


def test_embeddings_scores_and_ranked_ids_agree(metric, data):
    queries, corpus, positives = data
    scores = score_block(queries, corpus)
    rows = {"predictions": list(range(12)), "references": positives}
    whole = metric.compute(**rows, query_embeddings=queries, corpus_embeddings=corpus)
    assert metric.compute(**rows, scores=scores) == whole
    order = np.argsort(-scores, axis=1)
    assert metric.compute(predictions=order.tolist(), references=positives) == whole
    names = [[f"clip-{row:02}" for row in ids] for ids in order.tolist()]
    answers = [[f"clip-{row:02}" for row in ids] for ids in positives]
    assert metric.compute(predictions=names, references=answers) == whole
    cut = metric.compute(predictions=[ids[:3] for ids in names], references=answers, num_candidates=40)
    assert cut["recall@1"] == whole["recall@1"]
    assert cut["tied_queries"] > 0


def test_tensors_of_any_kind_are_taken(metric, data):
    queries, corpus = (torch.from_numpy(part).bfloat16() for part in data[:2])
    rows = {"predictions": list(range(12)), "references": data[2], "per_query": True, "confidence": 0.9}
    wide = {"query_embeddings": queries.float().numpy(), "corpus_embeddings": corpus.float().numpy()}
    narrow = {"query_embeddings": queries.requires_grad_(), "corpus_embeddings": corpus}
    assert metric.compute(**rows, **narrow) == metric.compute(**rows, **wide)
    scores = torch.from_numpy(score_block(*data[:2])).half()
    assert metric.compute(**rows, scores=scores) == metric.compute(**rows, scores=scores.double().numpy())
    found = torch.rand(12, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert bootstrap_interval(found) == bootstrap_interval(found.double().numpy())


def test_predictions_choose_rows_and_their_pools(metric, data):
    queries, corpus, positives = data
    pools = [sorted({*rows, *range(5)}) for rows in positives]
    chosen = [7, 2]
    rows = {"predictions": chosen, "references": [positives[row] for row in chosen], "per_query": True}
    result = metric.compute(**rows, query_embeddings=queries, corpus_embeddings=corpus, candidates=pools)
    counts = count_ranks(queries[chosen], corpus, [positives[row] for row in chosen], [pools[row] for row in chosen])
    assert result["per_query"]["recall@1"] == per_query(counts, "recall@1").tolist()
    assert result["per_query"]["mrr"] == per_query(counts, "mrr").tolist()
    scores = score_block(queries, corpus)
    by_scores = [row[pool] for row, pool in zip(scores, pools, strict=True)]
    assert metric.compute(**rows, scores=by_scores, candidates=pools) == result


def test_intervals_and_truncation(metric, data):
    queries, corpus, positives = data
    rows = {"predictions": range(12), "references": positives}
    arrays = {"query_embeddings": queries, "corpus_embeddings": corpus}
    result = metric.compute(**rows, **arrays, truncate_dim=3, confidence=0.9, samples=500, seed=7, per_query=True)
    counts = count_ranks(queries, corpus, positives, truncate_dim=3)
    assert result["per_query"]["mrr"] == per_query(counts, "mrr").tolist()
    values = result["per_query"]
    wanted = bootstrap_interval(values["mrr"], level=0.9, samples=500, seed=7)
    assert result["intervals"]["mrr"] == wanted
    assert wanted[0] < result["mrr"] < wanted[1]
    median = bootstrap_interval(values["median_rank"], level=0.9, samples=500, seed=7, statistic="median")
    assert result["intervals"]["median_rank"] == median
    assert result["intervals"].keys() == values.keys()


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
    arrays = {"query_embeddings": queries, "corpus_embeddings": corpus}
    rows = {"predictions": range(12), "references": positives}
    scores = score_block(queries, corpus)
    for options, message in (
        (rows, "predictions: row numbers without embeddings or scores"),
        (rows | {"query_embeddings": queries}, "query_embeddings, corpus_embeddings: got one without the other"),
        (rows | arrays | {"scores": scores}, "query_embeddings, corpus_embeddings: got one"),
        (rows | {"scores": scores, "truncate_dim": 3}, "truncate_dim: not accepted"),
        (arrays | {"predictions": [[1]], "references": [[1]]}, "predictions: lists of ids with embeddings"),
        ({"predictions": [[1]], "references": [[1]], "candidates": [[1]]}, "candidates: not accepted"),
        (arrays | {"predictions": range(1, 13), "references": positives}, r"predictions: a row outside 0\.\.11"),
        (rows | arrays | {"candidates": [[0]]}, "candidates: 1 lists for 12 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            fresh.compute(**options)


def test_the_core_needs_numpy_alone():
    """Imported as the Space's folder lies there, without this package, evaluate or datasets."""
    code = (
        "import sys, types; package = types.ModuleType('space'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['space'] = package\n"
        "from space import intervals, metrics, ranking\n"
        "import numpy as np\n"
        "counts = ranking.count_ranks(np.eye(3), np.eye(3), [[0], [1], [2]])\n"
        "print(metrics.per_query(counts, 'recall@1').mean(), intervals.bootstrap_interval([1.0, 1.0]))\n"
        "print(sorted({'evaluate', 'datasets', 'torch', 'scipy', 'gve'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(FOLDER)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1.0 (1.0, 1.0)", "[]"]


def test_the_space_scores_files(tmp_path, data, monkeypatch):
    queries, corpus, positives = data
    space = tmp_path / "app"  # a Space's folder has another name
    shutil.copytree(FOLDER, space)
    monkeypatch.setattr(app, "__file__", str(space / "app.py"))
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "corpus.npy", corpus)
    paths = str(tmp_path / "queries.npy"), str(tmp_path / "corpus.npy")
    result = app.score(*paths, json.dumps(positives), 0)
    counts = count_ranks(queries, corpus, positives)
    assert result["recall@5"] == pytest.approx(per_query(counts, "recall@5").mean())
    assert len(result["intervals"]["recall@5"]) == 2
    assert app.score(*paths, json.dumps(positives), 2)["mrr"] != result["mrr"]
    with pytest.raises(ValueError, match="references: query 0 has no rows"):
        app.score(*paths, "[[]]")


def test_the_space_is_described():
    card = (FOLDER / "README.md").read_text()
    assert "sdk: gradio\n" in card
    assert "app_file: app.py\n" in card
    for heading in ("Metric Description", "How to Use", "Inputs", "Output Values", "Limitations and Bias", "Citation"):
        assert f"# {heading}\n" in card
    listed = {line.partition(">")[0] for line in (FOLDER / "requirements.txt").read_text().split()}
    assert listed == {"evaluate", "datasets", "numpy"}
    pytest.importorskip("gradio")
    assert app.build().title
