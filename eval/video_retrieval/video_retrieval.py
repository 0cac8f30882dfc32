"""The evaluate metric `video_retrieval`: a thin adapter over the counting in ranking.py."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .ranking import Counts, count_ranks, summarise
from .ranking import per_query as query_scores

_DESCRIPTION = (
    "Exact retrieval metrics from embeddings: expected value under ties, several positives, candidate pools."
)
_INPUTS = """
Args:
    predictions: Query row numbers (int); which rows of `query_embeddings` are scored, in which order.
    references: For each of them the list of corpus rows (int) that answer it.
    query_embeddings: (Q, D) floats, by keyword.
    corpus_embeddings: (N, D) floats, by keyword.
    candidates: Q lists of corpus rows, one for each row of `query_embeddings`; None ranks the whole corpus.
    ks: Depths of recall@k and precision@k.
    per_query: Also return each metric's list of values, in the order of `predictions`.
Returns:
    recall@k, precision@k, ndcg@10, mrr, median_rank, tied_queries (share of queries with a tied positive), num_queries.
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
    """Recall, precision, nDCG, MRR and median rank; small integers pass through Arrow, arrays by keyword."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.List(datasets.Value("int64"))}
            ),
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[Sequence[int]],
        query_embeddings: Any = None,
        corpus_embeddings: Any = None,
        candidates: Sequence[Sequence[int]] | None = None,
        ks: Sequence[int] = (1, 5, 10),
        per_query: bool = False,
    ) -> dict[str, Any]:
        if query_embeddings is None or corpus_embeddings is None:
            raise ValueError(
                "query_embeddings, corpus_embeddings: got None; both arrays are needed; pass them by name"
            )
        rows = np.asarray(predictions, dtype=np.int64)
        queries = np.asarray(query_embeddings)
        if rows.min() < 0 or rows.max() >= len(queries):
            raise ValueError(f"predictions: a row outside 0..{len(queries) - 1}; give row numbers of query_embeddings")
        if candidates is not None:
            if len(candidates) != len(queries):
                raise ValueError(
                    f"candidates: {len(candidates)} lists for {len(queries)} rows of query_embeddings; "
                    "give one list a row"
                )
            candidates = [candidates[row] for row in rows.tolist()]
        counts = count_ranks(queries[rows], np.asarray(corpus_embeddings), references, candidates)
        return _report(counts, ks, per_query)


def _report(counts: Counts, ks: Sequence[int], with_queries: bool) -> dict[str, Any]:
    """Every metric's value, and the values behind it where asked for."""
    names = [f"{kind}@{k}" for kind in ("recall", "precision") for k in ks] + ["ndcg@10", "mrr", "median_rank"]
    scores = {name: query_scores(counts, name) for name in names}
    report: dict[str, Any] = {name: summarise(name, values) for name, values in scores.items()}
    report["tied_queries"] = len(np.unique(counts.owner[counts.tied > 1])) / len(counts.num_positives)
    report["num_queries"] = len(counts.num_positives)
    if with_queries:
        report["per_query"] = {name: values.tolist() for name, values in scores.items()}
    return report
