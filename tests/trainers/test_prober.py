"""Alignment scores by hand, and two embedders that must agree when they are one."""

import numpy as np
import pytest
import torch

from gve.trainers.collator import PairCollator
from gve.trainers.prober import LiveEncoder, OutsideEncoder, Prober, share, task_scores

QUERIES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
TARGETS = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
# cosines: 1 .8 0 / 0 .6 1 / .6 .96 .8


def test_scores_by_hand():
    scores = task_scores(QUERIES, TARGETS)
    assert scores.score == pytest.approx((1 + 0.6 + 0.8) / 3)
    assert scores.centred == pytest.approx(scores.score - (0.8 + 0 + 0 + 1 + 0.6 + 0.96) / 6)
    assert scores.accuracy == pytest.approx(1 / 3)


def test_true_matches_are_no_rivals():
    matches = torch.zeros(3, 3, dtype=torch.bool)
    matches[1, 2] = matches[2, 1] = True
    scores = task_scores(QUERIES, TARGETS, matches)
    assert scores.accuracy == 1.0
    assert scores.centred == pytest.approx(scores.score - (0.8 + 0 + 0 + 0.6) / 4)


def test_a_collapsed_model_has_r_of_one_and_centred_r_of_zero():
    same = torch.ones(5, 1)
    scores = task_scores(same, same)
    assert (scores.score, scores.centred, scores.accuracy) == (1.0, 0.0, 0.0)


def test_live_and_outside_encoders_agree(embedder, tasks):
    prober = Prober(tasks, pairs=5, progress=False)
    live = prober(LiveEncoder(embedder, PairCollator(embedder.processor), batch_size=2))
    outside = prober(OutsideEncoder(embedder, batch_size=2))
    assert list(live) == list(tasks)
    for task in tasks:
        assert live[task].score == pytest.approx(outside[task].score, abs=1e-5)
        assert live[task].centred == pytest.approx(outside[task].centred, abs=1e-5)


def test_probing_leaves_no_trace(embedder, tasks):
    embedder.train()
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in embedder.state_dict().items()}
    Prober(tasks, pairs=3, progress=False)(LiveEncoder(embedder, PairCollator(embedder.processor)))
    assert embedder.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in embedder.state_dict().items())


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


@pytest.mark.parametrize(
    ("queries", "documents", "message"),
    [
        ((4,), (4, 1), r"float32 vectors of shape \(\d, 4, 1\) for \d rows from the prober Given"),
        ((4,), (5,), "4 dimensions for the queries of t2t and 5 for its targets"),
    ],
)
def test_vectors_of_another_shape_are_refused(tasks, queries, documents, message):
    prober = Prober({"t2t": tasks["t2t"]}, pairs=4, progress=False)
    given = Given(*(lambda count, shape=shape: np.ones((count, *shape), np.float32) for shape in (queries, documents)))
    with pytest.raises(ValueError, match=f"prober: got {message}"):
        prober(OutsideEncoder(given))


def test_too_few_vectors_are_refused(tasks):
    given = Given(lambda count: np.ones((count, 3)), lambda count: np.ones((count - 1, 3)))
    with pytest.raises(ValueError, match=r"float64 vectors of shape \(3, 3\) for 4 rows from the prober Given"):
        Prober({"t2t": tasks["t2t"]}, pairs=4, progress=False)(OutsideEncoder(given))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prober_that_gives_no_numbers_is_refused(tasks, value):
    def broken(count):
        vectors = np.ones((count, 3), np.float32)
        vectors[1, 2] = value
        return vectors

    given = Given(lambda count: np.ones((count, 3), np.float32), broken)
    with pytest.raises(ValueError, match="prober: got NaN or infinity in 1 of 4 vectors of t2t from the prober Given"):
        Prober({"t2t": tasks["t2t"]}, pairs=4, progress=False)(OutsideEncoder(given))


def test_the_model_in_training_is_refused_too(tasks):
    def encode(rows):
        return torch.ones(len(rows), 2), torch.full((len(rows), 2), torch.nan)

    with pytest.raises(ValueError, match="vectors of t2t from the model in training"):
        Prober({"t2t": tasks["t2t"]}, pairs=4, progress=False)(encode)


def test_a_prober_may_have_any_width(tasks):
    given = Given(*[lambda count: np.eye(4, 7, dtype=np.float32)[:count]] * 2)
    rows = tasks["t2t"].filter(lambda row: row["instruction"] == "Find the video.")
    assert Prober({"t2t": rows}, pairs=4, progress=False)(OutsideEncoder(given))["t2t"].score == pytest.approx(1.0)
