"""Pieces of a batch: the cheapest ones, by brute force, and never above their limits."""

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gve.trainers.gradcache.tower import MOST_PADDING, chunk_media, chunk_rows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def allowed(piece, limit):
    padded = len(piece) * max(piece)
    return len(piece) == 1 or (padded <= limit and padded * (1 - MOST_PADDING) <= sum(piece))


def cost(pieces, extra):
    return sum(len(piece) * max(piece) + extra for piece in pieces)


@given(LENGTHS, st.integers(1, 200), st.integers(0, 80))
def test_no_partition_into_runs_is_cheaper(lengths, limit, extra):
    got = chunk_rows(lengths, limit=limit, extra=extra)
    assert sorted(np.concatenate(got).tolist()) == list(range(len(lengths)))
    made = [[lengths[row] for row in piece] for piece in got]
    assert all(allowed(piece, limit) for piece in made)
    ordered = sorted(lengths)
    best = np.inf
    for count in range(len(ordered)):
        for cuts in combinations(range(1, len(ordered)), count):
            edges = [0, *cuts, len(ordered)]
            pieces = [ordered[start:end] for start, end in pairwise(edges)]
            if all(allowed(piece, limit) for piece in pieces):
                best = min(best, cost(pieces, extra))
    assert cost(made, extra) == best


def test_a_large_batch_wastes_less_than_a_tenth():
    lengths = np.random.default_rng(0).integers(20, 900, 512)
    pieces = chunk_rows(lengths, limit=4096, extra=64)
    padded = sum(len(piece) * lengths[piece].max() for piece in pieces)
    assert 1 - lengths.sum() / padded < 0.1


@given(st.lists(st.floats(0.1, 50), max_size=12), st.floats(1, 100))
def test_media_keep_their_order_and_the_limit(costs, limit):
    runs = chunk_media(costs, limit=limit)
    assert [place for run in runs for place in run] == list(range(len(costs)))
    assert all(len(run) == 1 or sum(costs[place] for place in run) <= limit + 1e-9 for run in runs)


def test_without_a_limit_media_run_at_once():
    assert chunk_media([1.0] * 5, limit=float("inf")) == [[0, 1, 2, 3, 4]]
    assert chunk_media([], limit=1.0) == []
