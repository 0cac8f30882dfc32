"""Scores of sets from their vectors, and of abilities and averages, each against chance.

Shapes: Q queries, N corpus rows, D width, R replicates of a bootstrap.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gve.eval.averages import AVERAGE_NAMES, aggregate, aggregate_replicates, set_weights
from gve.eval.video_retrieval.intervals import interval, replicates
from gve.eval.video_retrieval.metrics import (
    chance_error,
    chance_level,
    per_query,
    standard_error,
    tied_queries,
)
from gve.eval.video_retrieval.ranking import Counts, count_ranks
from gve.hub_datasets.classification import CLASSIFICATION
from gve.hub_datasets.uvrb import SETS, EvaluationSet
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

SAMPLES = 2000
_GROUPED = ("CRB-S", "CRB-T")
_SEEDS = {name: (0, place) for place, name in enumerate((*SETS, *CLASSIFICATION))}


def score_set(
    data: EvaluationSet, queries: np.ndarray, corpus: np.ndarray, reranked: Counts | None = None
) -> dict[str, Any]:
    """One set's entry of a report from queries (Q, D) and corpus (N, D), with the score of each query.

    Args:
        reranked: Ranks after a second stage, instead of the vectors' own; then nothing is scored in groups.
    """
    task = data.task
    counts = count_ranks(queries, corpus, data.positives, data.pools) if reranked is None else reranked
    scores = per_query(counts, task.metric)
    entry: dict[str, Any] = {"metric": task.metric, "abilities": list(task.abilities), "instruction": task.instruction}
    entry |= _against_chance(scores, task.metric, data.num_candidates, data.num_positives)
    entry["interval"] = list(interval(set_replicates(task.name, scores)))
    candidates = np.unique(data.num_candidates)
    entry["num_candidates"] = int(candidates[0]) if len(candidates) == 1 else float(data.num_candidates.mean())
    entry["tied_queries"] = tied_queries(counts)
    entry["further"] = _further(counts, task.metric)
    entry["in_group"] = None
    if task.name in _GROUPED and reranked is None:
        entry["in_group"] = _score_in_group(data, queries, corpus)
    entry["queries_digest"] = hashlib.blake2b("\n".join(data.query_ids).encode(), digest_size=8).hexdigest()
    entry["per_query"] = [round(float(score), 6) for score in scores]
    return entry


def set_replicates(name: str, scores: np.ndarray) -> np.ndarray:
    """Bootstrap replicates (R,) of a set's scores (Q,); every set has random numbers of its own."""
    return replicates(scores, samples=SAMPLES, seed=_SEEDS[name])


def summarise(entries: Mapping[str, Mapping[str, Any]], *, rule: str = "paper") -> dict[str, Any]:
    """Abilities and averages of a report from `score_set` entries; None where a set is missing."""
    scores = aggregate({name: entry["score"] for name, entry in entries.items()}, rule=rule)
    chances = aggregate({name: entry["chance"] for name, entry in entries.items()}, rule=rule)
    drawn = aggregate_replicates(
        {name: set_replicates(name, np.array(entry["per_query"])) for name, entry in entries.items()}, rule=rule
    )
    summary: dict[str, dict[str, Any] | None] = {}
    for name, score in scores.items():
        chance, draws = chances[name], drawn[name]
        if score is None or chance is None or draws is None:
            summary[name] = None
            continue
        weights = set_weights(name, rule=rule)
        error, spread = (
            math.sqrt(sum((weight * entries[one][key]) ** 2 for one, weight in weights.items()))
            for key in ("standard_error", "chance_error")
        )
        summary[name] = against_chance(score, chance, error, spread) | {"interval": list(interval(draws))}
    return {
        "abilities": {name: summary[name] for name in ABILITY_NAMES},
        "averages": {name: summary[name] for name in AVERAGE_NAMES},
    }


def against_chance(score: float, chance: float, error: float, spread: float) -> dict[str, Any]:
    """A score beside the expected one of a random order, and the standard errors of both."""
    above = score > chance + 2 * max(error, spread)
    errors = {"standard_error": error, "chance_error": spread}
    return {"score": score, "chance": chance, **errors, "above_chance": above}


def _further(counts: Any, metric: str) -> dict[str, float]:
    """Other metrics of the same ranking, to compare with other benchmarks."""
    names = [name for name in ("recall@1", "recall@5", "recall@10", "ndcg@10", "mrr") if name != metric]
    values = {name: float(per_query(counts, name).mean()) for name in names}
    return values | {"median_rank": float(np.median(per_query(counts, "median_rank")))}


def _against_chance(
    scores: np.ndarray, metric: str, num_candidates: np.ndarray, num_positives: np.ndarray
) -> dict[str, Any]:
    chance = chance_level(metric, num_candidates, num_positives)
    spread = chance_error(metric, num_candidates, num_positives)
    found = against_chance(float(scores.mean()), chance, standard_error(scores), spread)
    return found | {"num_queries": len(scores)}


def _score_in_group(data: EvaluationSet, queries: np.ndarray, corpus: np.ndarray) -> dict[str, Any] | None:
    """Precision at 1 among the members of the query's own group, where corpus ids read `<group>/<member>`.

    The members differ in one respect only, so chance here means that the model misses that respect.
    """
    names = [identity.rpartition("/")[0] for identity in data.corpus_ids]
    if not all(names):
        return None
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)
    pools = [members[names[rows[0]]] for rows in data.positives]
    positives = [rows[np.isin(rows, pool)] for rows, pool in zip(data.positives, pools, strict=True)]
    kept = [query for query, pool in enumerate(pools) if len(pool) > 1]
    if not kept:
        return None
    pools, positives = [pools[query] for query in kept], [positives[query] for query in kept]
    counts = count_ranks(queries[kept], corpus, positives, pools)
    entry = {"metric": "precision@1"}
    entry |= _against_chance(
        per_query(counts, "precision@1"), "precision@1", counts.num_candidates, counts.num_positives
    )
    entry["group_size"] = float(counts.num_candidates.mean())
    return entry
