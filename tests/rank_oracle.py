"""A slow oracle: writes out every order of the tied candidates and scores each from the metric's definition."""

import itertools
import math

import numpy as np

METRICS = (
    *("recall@1", "recall@2", "recall@10", "hit@1", "hit@2", "hit@10", "precision@1", "precision@3", "ndcg@2"),
    *("ndcg@10", "map", "map@2", "mrr", "mrr@2"),
)
RANKS = ("mean_rank", "median_rank")


def score_order(order, positives, metric):
    """A metric of one strict order of candidates."""
    kind, _, depth = metric.partition("@")
    k = int(depth or len(order))
    ranks = [rank for rank, candidate in enumerate(order, start=1) if candidate in positives]
    found = [rank for rank in ranks if rank <= k]
    if metric in RANKS:
        return ranks[0]
    if kind == "mrr":
        return 1 / found[0] if found else 0
    if kind == "map":
        return sum(place / rank for place, rank in enumerate(found, start=1)) / len(positives)
    if kind == "recall":
        return len(found) / len(positives)
    if kind == "hit":
        return float(bool(found))
    if kind == "precision":
        return len(found) / k
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(positives), k) + 1))
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
