"""Alignment scores by hand, and two embedders that must agree when they are one."""

import pytest
import torch

from gve.trainers.collator import PairCollator
from gve.trainers.prober import LiveEncoder, OutsideEncoder, Prober, task_scores

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
