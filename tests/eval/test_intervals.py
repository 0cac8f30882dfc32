"""Bootstrap intervals against closed forms, and pairing."""

import numpy as np
import pytest
import torch

from gve.eval.compare import compare_reports
from gve.eval.video_retrieval import intervals
from gve.eval.video_retrieval.intervals import bootstrap_interval, interval, replicates


def compared(first, second):
    """The only row of a comparison of two reports with these scores by query."""
    common = {"metric": "m", "queries_digest": "d"}
    reports = [{"sets": {"MSRVTT": common | {"score": np.mean(one), "per_query": one}}} for one in (first, second)]
    (row,) = compare_reports(*reports)
    return row


def test_replicates_have_the_mean_and_error_of_the_sample(monkeypatch):
    scores = np.random.default_rng(0).random(300) ** 2
    drawn = replicates(scores, samples=4000, seed=1)
    assert drawn.shape == (4000,)
    assert drawn.mean() == pytest.approx(scores.mean(), abs=1e-3)
    assert drawn.std() == pytest.approx(scores.std() / np.sqrt(300), rel=0.05)
    assert not np.array_equal(drawn, replicates(scores, samples=4000, seed=(1, 1)))
    monkeypatch.setattr(intervals, "_CELLS", 700)
    np.testing.assert_array_equal(drawn, replicates(scores, samples=4000, seed=1))  # blocks change nothing


def test_interval_of_a_share_is_binomial():
    low, high = bootstrap_interval([1.0] * 30 + [0.0] * 70, samples=5000)
    reach = 1.96 * np.sqrt(0.3 * 0.7 / 100)
    assert (low, high) == (pytest.approx(0.3 - reach, abs=0.011), pytest.approx(0.3 + reach, abs=0.011))
    narrow = bootstrap_interval([1.0] * 30 + [0.0] * 70, samples=5000, level=0.5)
    assert low < narrow[0] < 0.3 < narrow[1] < high
    assert bootstrap_interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    assert bootstrap_interval(torch.tensor([0.25]).bfloat16()) == (0.25, 0.25)
    assert bootstrap_interval([1.0] * 60 + [np.inf] * 40, statistic="median") == (1.0, 1.0)
    assert bootstrap_interval(np.arange(101.0), statistic="median", samples=3000)[0] == pytest.approx(35, abs=8)


def test_pairing_sees_what_separate_intervals_do_not():
    first = (np.random.default_rng(3).random(400) < 0.5).astype(float)
    second = first.copy()
    second[np.flatnonzero(first == 0)[:16]] = 1  # better on 16 queries, worse on none
    result, back = compared(first, second), compared(second, first)
    assert result["difference"] == pytest.approx(0.04)
    assert 0 < result["interval"][0] < 0.04 < result["interval"][1]
    assert result["p_value"] < 0.01
    assert bootstrap_interval(first)[1] > bootstrap_interval(second)[0]
    assert (back["difference"], back["interval"][0]) == pytest.approx((-result["difference"], -result["interval"][1]))


def test_equal_runs_do_not_differ():
    scores = np.random.default_rng(4).random(50)
    same = compared(scores, scores)
    assert (same["difference"], same["interval"], same["p_value"]) == (0, [0, 0], 1)
    assert compared(np.zeros(50), np.ones(50))["p_value"] == pytest.approx(1 / 2001)  # never nothing
    rng = np.random.default_rng(6)
    values = [compared(np.zeros(80), rng.standard_normal(80))["p_value"] for _ in range(100)]
    assert np.mean(np.array(values) < 0.1) == pytest.approx(0.1, abs=0.09)  # uniform
    assert np.mean(values) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replicates([]), r"scores: shape \(0,\)"),
        (lambda: replicates([[1.0]]), r"scores: shape \(1, 1\)"),
        (lambda: replicates([1.0, np.nan]), "none nan"),
        (lambda: replicates([1.0], samples=0), "samples: 0; must be at least 1"),
        (lambda: replicates([1.0], statistic="mode"), "statistic: 'mode'"),
        (lambda: interval(np.ones(3), level=95), "level: 95; must be a share between 0 and 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
