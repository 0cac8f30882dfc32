"""Correlations against scipy and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.eval.correlations import correlate, correlation, correlation_matrix, mean_ranks

LEVELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12)


@settings(max_examples=100, deadline=None)
@given(LEVELS)
def test_equals_scipy(pairs):
    stats = pytest.importorskip("scipy.stats")
    first, second = (np.array(column, dtype=float) / 7 for column in zip(*pairs, strict=True))
    np.testing.assert_array_equal(mean_ranks(first), stats.rankdata(first))
    for statistic, theirs in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        ours = correlation(first, second, statistic)
        if len(set(first)) == 1 or len(set(second)) == 1:
            assert ours is None
        else:
            assert ours == pytest.approx(theirs(first, second)[0], abs=1e-12)


def test_by_hand():
    assert correlation([1, 2, 3], [10, 20, 40]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1], "pearson") == pytest.approx(-1)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert mean_ranks(np.array([5.0, 1.0, 5.0])).tolist() == [2.5, 1.0, 2.5]
    assert correlation([1, 2], [1, 2]) is None
    assert correlation([0.1 + 0.2, 0.3, 0.3], [1, 2, 3], "pearson") is None  # constant but for rounding


def test_models_without_a_score_are_left_out():
    scores = {
        "a": {"x": 1.0, "y": 1.0},
        "b": {"x": 2.0, "y": 3.0},
        "c": {"x": 3.0, "y": 2.0},
        "d": {"x": 9.0, "y": None},
        "e": {"y": 9.0},
    }
    assert correlate(scores, "x", "y") == pytest.approx(0.5)
    matrix = correlation_matrix(scores, ["x", "y"], ["y", "z"])
    assert matrix == {"x": {"y": pytest.approx(0.5), "z": None}, "y": {"y": pytest.approx(1.0), "z": None}}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="second: 2 values; the first has 3"):
        correlation([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="statistic: 'kendall'; spearman and pearson"):
        correlation([1, 2, 3], [1, 2, 3], "kendall")
