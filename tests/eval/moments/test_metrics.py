"""The metrics of moment retrieval against QVHighlights' own evaluator, a slow oracle, and cases by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gve.eval.moments.metrics import METRICS, THRESHOLDS, average_precisions, overlaps, score_query

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "qvhighlights.json").read_text())


def scores_of(query):
    return score_query([window[:2] for window in query["pred_relevant_windows"]], query["relevant_windows"])


def slow_precision(predicted, truth, threshold):
    """Average precision from its definition, one prediction at a time."""
    left, right = list(truth), []
    for start, end in predicted:
        shared = [max(0.0, min(end, b) - max(start, a)) for a, b in left]
        ious = [part / (end - start + b - a - part) for part, (a, b) in zip(shared, left, strict=True)]
        best = max(range(len(left)), key=lambda place: (ious[place], place), default=None)
        right.append(best is not None and ious[best] >= threshold)
        if right[-1]:
            left.pop(best)
    precisions = [sum(right[: rank + 1]) / (rank + 1) for rank in range(len(right))]
    return sum(max(precisions[rank:]) for rank in range(len(right)) if right[rank]) / len(truth)


def test_numbers_are_those_of_the_public_evaluator():
    found = [scores_of(query) for query in GOLDEN["queries"]]
    means = {name: round(100 * float(np.mean([one[name] for one in found])), 2) for name in METRICS}
    told = {f"R1@{x}": GOLDEN["MR-R1"][x] for x in ("0.5", "0.7")}
    told |= {f"mAP@{x}": GOLDEN["MR-mAP"][x] for x in ("0.5", "0.75")} | {"mAP": GOLDEN["MR-mAP"]["average"]}
    assert {name: means[name] for name in told} == told
    for query, one in zip(GOLDEN["queries"], found, strict=True):
        for name in ("mAP", "mAP@0.5", "R1@0.7"):
            assert 100 * one[name] == pytest.approx(query[name], abs=0.00501), (query["qid"], name)


@given(st.data())
def test_average_precision_is_that_of_the_slow_oracle(data):
    seconds = st.integers(0, 40).map(float)
    moments = st.lists(
        st.tuples(seconds, st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])), min_size=1
    )
    predicted, truth = data.draw(moments), data.draw(moments)
    expected = [slow_precision(predicted, truth, threshold) for threshold in THRESHOLDS]
    assert average_precisions(predicted, truth) == pytest.approx(expected)


def test_by_hand():
    truth = [(0.0, 10.0), (20.0, 30.0)]
    assert overlaps([(5, 15)], truth).tolist() == [[pytest.approx(1 / 3), 0.0]]
    assert score_query(truth, truth) == dict.fromkeys(METRICS, 1.0)
    half = score_query([(0, 5), (50, 60), (20, 30)], truth)  # right at 0.5, wrong, right
    assert half == {
        "R1@0.3": 1.0,
        "R1@0.5": 1.0,
        "R1@0.7": 0.0,
        "mAP@0.5": pytest.approx((1 + 2 / 3) / 2),
        "mAP@0.75": pytest.approx((1 / 3) / 2),
        "mAP": pytest.approx(((1 + 2 / 3) / 2 + 9 * (1 / 3) / 2) / 10),
    }
    again = score_query([(0, 10), (0, 10)], truth)  # a moment is found once
    assert again["mAP"] == 0.5
    assert score_query([(0, 1)] * 10 + truth, truth)["mAP"] == 0.0  # only ten count
    assert score_query([], truth) == dict.fromkeys(METRICS, 0.0)
