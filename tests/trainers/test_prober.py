"""Alignment scores by hand, and two embedders that must agree when they are one."""

import numpy as np
import pytest
import torch

from gve.trainers.encoders import OutsideEncoder
from gve.trainers.prober import Prober, task_scores
from gve.trainers.processes import share

QUERIES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
TARGETS = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
# cosines: 1 .8 0 / 0 .6 1 / .6 .96 .8


def test_scores_by_hand():
    scores = task_scores(QUERIES, TARGETS)
    assert scores.score == pytest.approx((1 + 0.6 + 0.8) / 3)
    assert scores.centred == pytest.approx(scores.score - (0.8 + 0 + 0 + 1 + 0.6 + 0.96) / 6)
    assert scores.accuracy == pytest.approx(1 / 3)

    same = torch.ones(5, 1)  # a collapsed model
    scores = task_scores(same, same)
    assert (scores.score, scores.centred, scores.accuracy) == (1.0, 0.0, 0.0)


def test_true_matches_are_no_rivals():
    matches = torch.zeros(3, 3, dtype=torch.bool)
    matches[1, 2] = matches[2, 1] = True
    scores = task_scores(QUERIES, TARGETS, matches)
    assert scores.accuracy == 1.0
    assert scores.centred == pytest.approx(scores.score - (0.8 + 0 + 0 + 0.6) / 4)


def test_the_draw_is_fixed_and_bounded(tasks):
    first, again = Prober(tasks, pairs=7, seed=1), Prober(tasks, pairs=7, seed=1)
    assert first.picks == again.picks != Prober(tasks, pairs=7, seed=2).picks
    assert all(len(set(picks)) == 7 for picks in first.picks.values())
    assert all(len(picks) == 12 for picks in Prober(tasks, pairs=99).picks.values())


def test_shares_are_equal_and_cover_all_rows():
    assert [share([3, 5, 8, 9, 11], rank, 2) for rank in range(2)] == [[3, 5, 8], [9, 11, 11]]
    assert [share([7], rank, 3) for rank in range(3)] == [[7]] * 3
    assert share([1, 2], 0, 1) == [1, 2]


class Given:
    """A prober that answers with whatever it was made with."""

    def __init__(self, queries, documents):
        self.queries, self.documents = queries, documents

    def encode_query(self, inputs, **kwargs):
        return self.queries(len(inputs))

    def encode_document(self, inputs, **kwargs):
        return self.documents(len(inputs))


def numbers(*shape, value=1.0):
    """What gives vectors of a shape, of which the second one holds a value."""

    def give(count):
        vectors = np.ones((count, *shape), np.float32)
        vectors[1:2, ..., -1] = value
        return vectors

    return give


def test_what_a_prober_may_not_give(tasks):
    for queries, documents, message in (
        (numbers(4), numbers(4, 1), r"prober Given: encoder: .*returned shape \(4, 4, 1\)"),
        (numbers(3), lambda count: np.ones((count - 1, 3)), r"prober Given: encoder: .*returned shape \(3, 3\)"),
        (numbers(4), numbers(5), "prober: got 4 dimensions for the queries of t2t and 5 for its targets"),
        (
            numbers(3),
            numbers(3, value=np.nan),
            r"prober Given: t2t document row 1 \(id 't2t-\d'\): .* nan or infinity",
        ),
        (numbers(3), numbers(3, value=np.inf), "prober Given: t2t document row 1 .* nan or infinity"),
        (numbers(3), lambda count: np.zeros((count, 3)), "prober Given: t2t document row 0 .* zeros"),
    ):
        with pytest.raises(ValueError, match=message):
            Prober({"t2t": tasks["t2t"]}, pairs=4, progress=False)(OutsideEncoder(Given(queries, documents)))


def test_a_prober_may_have_any_width(tasks):
    given = Given(*[lambda count: np.eye(4, 7, dtype=np.float32)[:count]] * 2)
    rows = tasks["t2t"].filter(lambda row: row["instruction"] == "Find the video.")
    assert Prober({"t2t": rows}, pairs=4, progress=False)(OutsideEncoder(given))["t2t"].score == pytest.approx(1.0)
