"""Exact search against sorting, ties by corpus order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.eval import search
from gve.eval.search import top_k


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 15))
def test_equals_a_stable_sort(data, num_rows, k):
    levels = data.draw(st.lists(st.integers(-2, 2), min_size=num_rows, max_size=num_rows))
    corpus = np.array(levels, dtype=np.float32)[:, None]
    rows, scores = top_k(np.array([[1.0], [-1.0]]), corpus, k)
    for row, score, values in zip(rows, scores, (levels, [-level for level in levels]), strict=True):
        wanted = sorted(range(num_rows), key=lambda place: (-values[place], place))[:k]
        assert row.tolist() == wanted
        assert score.tolist() == [values[place] for place in wanted]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    queries, corpus = rng.standard_normal((9, 6)), rng.standard_normal((50, 6))
    rows, scores = top_k(queries, corpus, 7)
    np.testing.assert_array_equal(rows, np.argsort(-(queries @ corpus.T), axis=1)[:, :7])
    monkeypatch.setattr(search, "_SCORE_CELLS", 100)
    again = top_k(queries, corpus, 7)
    np.testing.assert_array_equal(rows, again[0])
    np.testing.assert_array_equal(scores, again[1])
    assert (rows.dtype, scores.dtype, rows.shape) == (np.int64, np.float32, (9, 7))


def test_errors():
    eye = np.eye(3)
    for corpus, k, message in (
        (eye, 0, "k: 0"),
        (eye[:, :2], 1, r"shapes \(3, 3\) and \(3, 2\)"),
        (np.where(eye, np.nan, eye), 1, "nan or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            top_k(eye, corpus, k)
