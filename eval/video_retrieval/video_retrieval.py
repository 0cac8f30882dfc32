"""The evaluate metric `video_retrieval`: a thin adapter over ranking.py, metrics.py and intervals.py."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from .intervals import bootstrap_interval
from .metrics import per_query as query_scores
from .metrics import summarise, tied_queries
from .ranking import Counts, as_array, count_ranked, count_ranks, count_scores

_DESCRIPTION = (
    "Exact retrieval metrics from embeddings, scores or ranked ids: expected value under ties, several positives, "
    "candidate pools, bootstrap confidence intervals."
)
_INPUTS = """
Args:
    predictions: Query row numbers (int): which rows of `query_embeddings` or `scores` are scored, in which order. Or,
        without either, a list of ids (int or str) for each query, best first.
    references: For each query the list of corpus rows (int) that answer it; with ranked ids, of ids.
    query_embeddings: (Q, D) floats, by keyword: an array, or a tensor of any floating type on any device.
    corpus_embeddings: (N, D) floats, by keyword.
    truncate_dim: Score with so many leading dimensions, brought back to unit length.
    scores: (Q, N) numbers instead of embeddings; with `candidates`, one row of scores for each query's candidates.
    candidates: Q lists of corpus rows, one for each row of the embeddings or scores; None ranks the whole corpus.
    num_candidates: With ranked ids that are cut off, the size of the corpus; None: the rest was never found.
    ks: Depths of recall@k, hit@k, precision@k and ndcg@k.
    per_query: Also return each metric's list of values, in the order of `predictions`.
    confidence: Also return bootstrap intervals of this level, such as 0.95.
    samples: Resamplings behind them.
    seed: Of the resampling.
Returns:
    recall@k, hit@k, precision@k, ndcg@k, ndcg@10, map, mrr, mean_rank, median_rank, tied_queries (share of queries
    whose positive ties with a candidate that is none), num_queries.
"""
_CITATION = """\
@misc{gve2025,
    note={General Video Embedder and the UVRB benchmark},
    eprint={2510.27571},
    archivePrefix={arXiv},
    year={2025}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class VideoRetrieval(evaluate.Metric):
    """Rank metrics; small lists pass through Arrow, arrays by keyword."""

    def _info(self) -> evaluate.MetricInfo:
        ids = [datasets.List(datasets.Value(kind)) for kind in ("string", "int64")]
        rows = {"predictions": datasets.Value("int64"), "references": datasets.List(datasets.Value("int64"))}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features(rows),
                *(datasets.Features({"predictions": kind, "references": kind}) for kind in ids),
            ],
        )

    def _compute(
        self,
        predictions: Sequence[Any],
        references: Sequence[Sequence[Any]],
        query_embeddings: Any = None,
        corpus_embeddings: Any = None,
        truncate_dim: int | None = None,
        scores: Any = None,
        candidates: Sequence[Sequence[int]] | None = None,
        num_candidates: int | None = None,
        ks: Sequence[int] = (1, 5, 10),
        per_query: bool = False,
        confidence: float | None = None,
        samples: int = 2000,
        seed: int = 0,
    ) -> dict[str, Any]:
        embeddings = (query_embeddings, corpus_embeddings)
        _check_source(predictions, embeddings, scores, {"candidates": candidates, "truncate_dim": truncate_dim})
        if scores is not None:
            rows = _rows(predictions, len(scores), "scores")
            pools = _chosen(candidates, rows, len(scores))
            counts = count_scores([scores[row] for row in rows], references, pools)
        elif query_embeddings is not None:
            queries = as_array(query_embeddings)
            rows = _rows(predictions, len(queries), "query_embeddings")
            pools = _chosen(candidates, rows, len(queries))
            counts = count_ranks(queries[rows], corpus_embeddings, references, pools, truncate_dim=truncate_dim)
        else:
            counts = count_ranked(predictions, references, num_candidates=num_candidates)
        return _report(counts, ks, per_query, confidence, {"samples": samples, "seed": seed})


def _check_source(
    predictions: Sequence[Any], embeddings: tuple[Any, Any], scores: Any, row_options: dict[str, Any]
) -> None:
    """Exactly one of embeddings, scores and ranked ids decides."""
    given = [array is not None for array in embeddings]
    listed = isinstance(predictions[0], list | tuple)
    if any(given) and (scores is not None or not all(given)):
        raise ValueError(
            "query_embeddings, corpus_embeddings: got one without the other, or scores beside them. Give "
            "both arrays, or scores alone."
        )
    if listed is (any(given) or scores is not None):
        raise ValueError(
            f"predictions: {'lists of ids' if listed else 'row numbers'} {'with' if listed else 'without'} embeddings "
            "or scores; give row numbers with arrays, passed by name, or ranked ids alone"
        )
    used = [name for name, value in row_options.items() if value is not None]
    if used and not (all(given) or (scores is not None and used == ["candidates"])):
        raise ValueError(f"{', '.join(used)}: not accepted with these inputs; truncate_dim needs embeddings")


def _rows(predictions: Sequence[int], num_queries: int, name: str) -> list[int]:
    """The chosen query rows."""
    rows = [int(row) for row in predictions]
    if min(rows) < 0 or max(rows) >= num_queries:
        raise ValueError(f"predictions: a row outside 0..{num_queries - 1}; give row numbers of {name}")
    return rows


def _chosen(
    candidates: Sequence[Sequence[int]] | None, rows: list[int], num_queries: int
) -> list[Sequence[int]] | None:
    """The pools of the chosen rows."""
    if candidates is None:
        return None
    if len(candidates) != num_queries:
        raise ValueError(f"candidates: {len(candidates)} lists for {num_queries} rows of queries; give one list a row")
    return [candidates[row] for row in rows]


def _report(
    counts: Counts, ks: Sequence[int], with_queries: bool, confidence: float | None, options: dict[str, int]
) -> dict[str, Any]:
    """Every metric's value, and the values and intervals behind it where asked for."""
    names = [f"{kind}@{k}" for kind in ("recall", "hit", "precision", "ndcg") for k in ks]
    names += [name for name in ("ndcg@10", "map", "mrr", "mean_rank", "median_rank") if name not in names]
    scores = {name: query_scores(counts, name) for name in names}
    report: dict[str, Any] = {name: summarise(name, values) for name, values in scores.items()}
    report["tied_queries"] = tied_queries(counts)
    report["num_queries"] = len(counts.num_positives)
    if confidence is not None:
        report["intervals"] = {
            name: bootstrap_interval(
                values, level=confidence, statistic="median" if name == "median_rank" else "mean", **options
            )
            for name, values in scores.items()
        }
    if with_queries:
        report["per_query"] = {name: values.tolist() for name, values in scores.items()}
    return report
