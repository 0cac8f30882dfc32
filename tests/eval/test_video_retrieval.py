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
def arrays():
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((12, 8)).astype(np.float32)
    return {"query_embeddings": queries, "corpus_embeddings": rng.standard_normal((40, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(4)
    positives = [sorted(rng.choice(40, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(12)]
    return {"predictions": list(range(12)), "references": positives}


def test_equals_ranking_at_once_and_in_batches(metric, arrays, rows):
    result = metric.compute(**rows, **arrays, ks=(1, 7))
    counts = count_ranks(*arrays.values(), rows["references"])
    named = ("recall@1", "recall@7", "hit@7", "precision@1", "precision@7", "ndcg@1", "ndcg@10", "map", "mrr")
    for name in (*named, "mean_rank"):
        assert result[name] == pytest.approx(per_query(counts, name).mean()), name
    assert result["median_rank"] == np.median(per_query(counts, "median_rank"))
    assert (result["num_queries"], result["tied_queries"]) == (12, 0.0)
    assert "intervals" not in result
    for part in (slice(5), slice(5, 12)):
        metric.add_batch(**{name: values[part] for name, values in rows.items()})
    assert metric.compute(**arrays, ks=(1, 7)) == result


def test_embeddings_scores_and_ranked_ids_agree(metric, arrays, rows):
    scores, positives = score_block(*arrays.values()), rows["references"]
    whole = metric.compute(**rows, **arrays)
    assert metric.compute(**rows, scores=scores) == whole
    tensors = {name: torch.from_numpy(part).requires_grad_() for name, part in arrays.items()}
    assert metric.compute(**rows, **tensors) == metric.compute(**rows, scores=torch.from_numpy(scores)) == whole
    order = np.argsort(-scores, axis=1)
    assert metric.compute(predictions=order.tolist(), references=positives) == whole
    names = [[f"clip-{row:02}" for row in ids] for ids in order.tolist()]
    answers = [[f"clip-{row:02}" for row in ids] for ids in positives]
    assert metric.compute(predictions=names, references=answers) == whole
    cut = metric.compute(predictions=[ids[:3] for ids in names], references=answers, num_candidates=40)
    assert cut["recall@1"] == whole["recall@1"]
    assert cut["tied_queries"] > 0


def test_predictions_choose_rows_and_their_pools(metric, arrays, rows):
    queries, corpus = arrays.values()
    pools = [sorted({*answers, *range(5)}) for answers in rows["references"]]
    chosen = [7, 2]
    some = {"predictions": chosen, "references": [rows["references"][row] for row in chosen], "per_query": True}
    result = metric.compute(**some, **arrays, candidates=pools)
    counts = count_ranks(queries[chosen], corpus, some["references"], [pools[row] for row in chosen])
    assert result["per_query"]["recall@1"] == per_query(counts, "recall@1").tolist()
    assert result["per_query"]["mrr"] == per_query(counts, "mrr").tolist()
    by_scores = [row[pool] for row, pool in zip(score_block(queries, corpus), pools, strict=True)]
    assert metric.compute(**some, scores=by_scores, candidates=pools) == result


def test_intervals_and_truncation(metric, arrays, rows):
    options = {"samples": 500, "seed": 7}
    result = metric.compute(**rows, **arrays, truncate_dim=3, confidence=0.9, per_query=True, **options)
    counts = count_ranks(*arrays.values(), rows["references"], truncate_dim=3)
    values, intervals = result["per_query"], result["intervals"]
    assert values["mrr"] == per_query(counts, "mrr").tolist()
    assert intervals["mrr"] == bootstrap_interval(values["mrr"], level=0.9, **options)
    assert intervals["mrr"][0] < result["mrr"] < intervals["mrr"][1]
    median = bootstrap_interval(values["median_rank"], level=0.9, statistic="median", **options)
    assert intervals["median_rank"] == median
    assert intervals.keys() == values.keys()


def test_errors_name_the_argument(arrays, rows):
    fresh = evaluate.load(str(FOLDER), keep_in_memory=True)
    scores, lists = score_block(*arrays.values()), {"predictions": [[1]], "references": [[1]]}
    for options, message in (
        (rows, "predictions: row numbers without embeddings or scores"),
        (rows | {"corpus_embeddings": scores}, "query_embeddings, corpus_embeddings: got one without the other"),
        (rows | arrays | {"scores": scores}, "query_embeddings, corpus_embeddings: got one"),
        (rows | {"scores": scores, "truncate_dim": 3}, "truncate_dim: not accepted"),
        (arrays | lists, "predictions: lists of ids with embeddings"),
        (lists | {"candidates": [[1]]}, "candidates: not accepted"),
        (rows | arrays | {"predictions": range(1, 13)}, r"predictions: a row outside 0\.\.11"),
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


def test_the_space_scores_files(tmp_path, arrays, rows, monkeypatch):
    space = tmp_path / "app"  # a Space's folder has another name
    shutil.copytree(FOLDER, space)
    monkeypatch.setattr(app, "__file__", str(space / "app.py"))
    paths = [str(tmp_path / f"{name}.npy") for name in arrays]
    for path, array in zip(paths, arrays.values(), strict=True):
        np.save(path, array)
    answers = json.dumps(rows["references"])
    result = app.score(*paths, answers, 0)
    counts = count_ranks(*arrays.values(), rows["references"])
    assert result["recall@5"] == pytest.approx(per_query(counts, "recall@5").mean())
    assert len(result["intervals"]["recall@5"]) == 2
    assert app.score(*paths, answers, 2)["mrr"] != result["mrr"]
    with pytest.raises(ValueError, match="references: query 0 has no rows"):
        app.score(*paths, "[[]]")


def test_the_space_is_described():
    card = (FOLDER / "README.md").read_text()
    for line in ("sdk: gradio", "app_file: app.py", "# How to Use", "# Output Values", "# Limitations and Bias"):
        assert f"{line}\n" in card
    listed = {line.partition(">")[0] for line in (FOLDER / "requirements.txt").read_text().split()}
    assert listed == {"evaluate", "datasets", "numpy"}
    pytest.importorskip("gradio")
    assert app.build().title
