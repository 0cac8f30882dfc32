"""The second stage of an evaluation: each query's best candidates, reordered by a cross-encoder.

Shapes: Q queries, N corpus rows, D width, K candidates of a query.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from gve.eval.compare import compare_reports
from gve.eval.console import fail
from gve.eval.encode import content_key
from gve.eval.rerank import Reranker
from gve.eval.scores import score_set, summarise
from gve.eval.search import top_k
from gve.eval.store import EmbeddingCache, Store
from gve.eval.video_retrieval.ranking import Counts, count_ranks
from gve.hub_datasets.uvrb import EvaluationSet


def check_reranker(reranker: Reranker, loaded: Sequence[EvaluationSet]) -> None:
    """Refuse sets whose pairs the reranker does not take, before any work; and none at all."""
    if not loaded:
        fail("--rerank: reorders the candidates of --sets, and none is scored. Name some, or leave it out.")
    for data in loaded:
        kinds = {*data.task.query_modalities, data.task.corpus_modality}
        if not reranker.takes(kinds):
            fail(
                f"--rerank: {reranker.name!r} does not take pairs of {' and '.join(sorted(kinds))}, which "
                f"{data.task.name} needs. Use another, or name other --sets."
            )


def second_stage(
    reranker: Reranker,
    report: Mapping[str, Any],
    stages: Iterable[tuple[EvaluationSet, np.ndarray, np.ndarray, str | None]],
    *,
    store: Store | None = None,
) -> dict[str, Any]:
    """The `rerank` part of a report: all scores once more, after the second stage, and what it took.

    Args:
        report: Of the first stage.
        stages: Each set with its vectors of queries (Q, D) and corpus (N, D), and the instruction.
        store: Keeps a score for each pair, so that a killed run goes on.
    """
    store = EmbeddingCache() if store is None else store
    entries, scored, began = {}, 0, time.perf_counter()
    for data, queries, corpus, instruction in stages:
        counts, fresh = rerank_set(reranker, data, queries, corpus, instruction=instruction, store=store)
        entries[data.task.name] = score_set(data, queries, corpus, counts) | {"instruction": instruction}
        scored += fresh
    part = {"model": reranker.name, "top": reranker.top, "num_frames": reranker.num_frames}
    part |= {"pairs": scored, "seconds": round(time.perf_counter() - began, 3)}
    part |= {"sets": entries, **summarise(entries)}
    return part | {"differences": compare_reports(report, part)}


def rerank_set(
    reranker: Reranker,
    data: EvaluationSet,
    queries: np.ndarray,
    corpus: np.ndarray,
    *,
    instruction: str | None,
    store: Store,
) -> tuple[Counts, int]:
    """Ranks of a set's positives once each query's K best candidates are reordered; the others keep their places.

    Args:
        store: Gains a score for each pair.

    Returns:
        The ranks, and how many pairs were scored now.
    """
    counts = count_ranks(queries, corpus, data.positives, data.pools)
    above, tied = counts.above.copy(), counts.tied.copy()
    known, place, scored = dict[int, bytes](), 0, 0
    for number in tqdm(range(len(queries)), desc=f"rerank {data.task.name}", unit="query", delay=2):
        pool = np.arange(len(corpus)) if data.pools is None else data.pools[number]
        part = corpus if data.pools is None else corpus[pool]
        rows = pool[top_k(queries[number : number + 1], part, reranker.top)[0][0]]  # (K,)
        query = data.queries[number]
        own_key = content_key(query, repr(("pair", instruction, reranker.num_frames)).encode())
        known |= {row: content_key(data.corpus[int(row)]) for row in rows if row not in known}
        keys = [hashlib.blake2b(own_key + known[row], digest_size=20).digest() for row in rows]
        fresh = {key: int(row) for key, row in zip(keys, rows, strict=True) if key not in store}
        if fresh:
            found = reranker.scores(query, [data.corpus[row] for row in fresh.values()], instruction=instruction)
            store.add(list(fresh), found[:, None])
            scored += len(fresh)
        scores = store.take(keys)[:, 0]  # (K,)
        for positive in data.positives[number]:
            if positive in rows:
                own = scores[rows == positive][0]
                above[place], tied[place] = (scores > own).sum(), (scores == own).sum()
            elif above[place] < len(rows):  # some that it ties with are among the K
                above[place], tied[place] = len(rows), above[place] + tied[place] - len(rows)
            place += 1
    return replace(counts, above=above, tied=tied), scored
