import sys

import numpy as np
import pytest
import torch

from gve.trainers.mining.nearest import ExactIndex, FaissIndex, make_index, nearest

DEPTH = 7


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make(kind, queries=23, targets=90, width=24, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((targets, width))
    if kind == "ties":
        rows = rows[rng.integers(6, size=targets)]
    elif kind == "collapsed":
        rows = np.ones(width) + 1e-7 * rows
    return unit(rng.standard_normal((queries, width))), unit(rows)


def slow_oracle(queries, targets, excluded, depth):
    """Every exact score, sorted by score and then by number."""
    scores, numbers = [], []
    for query, hidden in zip(queries, excluded, strict=True):
        exact = (targets.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        left = [number for number in range(len(targets)) if number not in set(hidden.tolist())]
        best = sorted(left, key=lambda number: (-exact[number], number))[:depth]
        scores.append([*exact[best], *[-np.inf] * (depth - len(best))])
        numbers.append([*best, *[-1] * (depth - len(best))])
    return np.array(scores, np.float32), np.array(numbers)


def exclusions(queries, targets, seed=1):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 12, len(queries))
    sizes[0], sizes[1] = len(targets), len(targets) - 3  # none and few are left
    return [np.sort(rng.choice(len(targets), size, replace=False)) for size in sizes]


@pytest.mark.parametrize("kind", ["random", "ties", "collapsed"])
@pytest.mark.parametrize("index", ["exact", "blocks", "faiss"])
def test_the_best_targets_are_the_oracle_s(kind, index):
    queries, targets = make(kind)
    excluded = exclusions(queries, targets)
    if index == "faiss":
        pytest.importorskip("faiss")
    made = ExactIndex(targets, cells=200) if index == "blocks" else make_index(index, targets)
    scores, numbers = nearest(made, queries, excluded, DEPTH)
    expected_scores, expected = slow_oracle(queries, targets, excluded, DEPTH)
    assert np.array_equal(numbers, expected)
    assert np.array_equal(scores, expected_scores)


def test_more_is_asked_for_where_rounding_leaves_it_open(monkeypatch):
    """An index that hands out the best in float32 of little precision still ends in the exact order."""
    queries, targets = make("collapsed", targets=300)
    asked = []

    class Watched(ExactIndex):
        def top(self, queries, excluded, count):
            asked.append((len(queries), count))
            return super().top(queries, excluded, count)

    excluded = [np.empty(0, np.int64)] * len(queries)
    found = nearest(Watched(targets), queries, excluded, DEPTH)
    assert asked[0] == (len(queries), DEPTH + 16) and asked[-1][1] > len(targets)
    assert np.array_equal(found[1], slow_oracle(queries, targets, excluded, DEPTH)[1])


def test_scores_held_at_once_are_bounded_and_of_full_precision_and_the_setting_stays(monkeypatch):
    queries, targets = make("random", queries=8, targets=4000)
    seen, setting, matmul = [], torch.backends.cuda.matmul, torch.Tensor.__matmul__

    def watched(a, b):
        seen.append((len(a) * b.shape[1], setting.fp32_precision))
        return matmul(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    before, setting.fp32_precision = setting.fp32_precision, "tf32"
    try:
        nearest(ExactIndex(targets, cells=1000), queries, [np.empty(0, np.int64)] * 8, DEPTH)
        assert setting.fp32_precision == "tf32"
    finally:
        setting.fp32_precision = before
    sizes, precisions = zip(*seen, strict=True)
    assert max(sizes) <= 1000 and sum(sizes) >= 8 * 4000 and set(precisions) == {"ieee"}


def test_faiss_cells_pass_over_few_and_never_give_what_is_excluded():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 16))
    targets = unit(centres[rng.integers(40, size=2000)] + 0.3 * rng.standard_normal((2000, 16)))
    queries = unit(targets[:50] + 0.05 * rng.standard_normal((50, 16)))
    excluded = [np.array([number]) for number in range(50)]
    index = FaissIndex(targets, flat_targets=100)
    assert not index.exact
    _, numbers = nearest(index, queries, excluded, DEPTH)
    _, expected = slow_oracle(queries, targets, excluded, DEPTH)
    assert not (numbers == np.arange(50)[:, None]).any()
    hits = [len(np.intersect1d(found, wanted)) for found, wanted in zip(numbers, expected, strict=True)]
    assert np.mean(hits) > 0.7 * DEPTH


def test_an_unknown_index_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="index: got 'hnsw'; exact, faiss are accepted"):
        make_index("hnsw", np.ones((1, 1), np.float32))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'gve\[faiss\]'"):
        make_index("faiss", np.ones((1, 1), np.float32))
