import logging
import math
from types import SimpleNamespace

import pytest
from short_runs import arguments

from gve.trainers import GVETrainer
from gve.trainers.watching.failures import WINDOW, FailureCallback, chance_accuracy, chance_loss


@pytest.fixture
def args(tmp_path):
    return arguments(tmp_path, per_device_train_batch_size=48, probe_pairs=64)


def play(args, entries, *, epoch=0.0, rows=None):
    """Hand a callback one entry of the log after another."""
    callback = FailureCallback(rows)
    for step, logs in enumerate(entries):
        state = SimpleNamespace(global_step=step + 1, epoch=epoch, max_steps=1000)
        callback.on_log(args, state, None, logs)
    return callback.warned


def test_a_healthy_run_is_left_in_peace(args):
    probe = {"R/t2v": 0.5, "R_centred/t2v": 0.3, "accuracy/t2v": 0.4, "R/v2v": 0.97, "R_centred/v2v": 0.2}
    entries = [
        {"loss/t2v": 3.5 - 0.2 * step, "loss/i2v": 2.0, "score_mean": 0.3, "grad_norm": 1.0 + 0.5 * (step % 3)}
        for step in range(14)
    ]
    assert play(args, [*entries, probe | {"accuracy/v2v": 0.5}], epoch=3.0) == {}


def test_a_constant_loss_at_log_b_is_told_once_and_elsewhere_is_fine(args, caplog):
    chance = chance_loss(args, "t2v")
    with caplog.at_level(logging.WARNING):
        told = play(args, [{"loss/t2v": chance + 0.01 * (step % 2)} for step in range(3 * WINDOW)])
    assert list(told) == ["constant loss"]
    assert "the loss of t2v stays at 3.8" in told["constant loss"] and "learning rate" in told["constant loss"]
    assert len(caplog.records) == 1 and f"step {WINDOW}:" in caplog.text
    assert play(args, [{"loss/t2v": 0.7}] * 3 * WINDOW) == {}
    assert play(args, [{"loss/t2v": chance * (1 - 0.01 * step)} for step in range(WINDOW)]) == {}
    args.warmup_steps = 100
    assert play(args, [{"loss/t2v": chance}] * 3 * WINDOW) == {}


def test_the_level_of_chance_is_equation_1_with_equal_cosines(args):
    assert chance_loss(args, "i2v") == math.log(48)
    assert chance_loss(args, "t2v") == (math.log(49) + math.log(48)) / 2
    args.reference_negatives = ["i2v"]
    assert chance_loss(args, "i2v-synflow") == (math.log(49) + math.log(48)) / 2
    assert chance_accuracy(64) == pytest.approx(1 / 64 + 2 * math.sqrt(63) / 64 / 8)


def test_scores_and_gradients_that_collapse_vanish_or_explode_are_reported(args):
    for name, values, signs in (
        ("score_mean", [0.97] * WINDOW, ["collapsed embeddings"]),
        ("score_mean", [0.97] * (WINDOW - 1) + [0.5], []),
        ("grad_norm", [0.0] * 3, ["no gradient"]),
        ("grad_norm", [1.0, 2.0] * WINDOW + [500.0], ["exploding gradient"]),
        ("grad_norm", [1.0, math.nan], ["exploding gradient"]),
        ("grad_norm", [math.inf], ["exploding gradient"]),
        ("grad_norm", [0.01, 5.0, 0.0, 0.0, 1.0], []),  # a warm-up is no explosion
    ):
        assert list(play(args, [{name: value} for value in values])) == signs


def test_a_probe_at_chance_is_told_after_some_epochs(args):
    probe = {"R/t2v": 0.5, "R_centred/t2v": 0.1, "accuracy/t2v": 0.4, "R/v2v": 0.9, "R_centred/v2v": 0.0}
    entry = probe | {"accuracy/v2v": 1 / 64}
    assert play(args, [entry], epoch=1.0) == {}
    told = play(args, [entry], epoch=2.0)
    assert list(told) == ["accuracy at chance"]
    assert "accuracy of v2v (0.016 of 0.047) is" in told["accuracy at chance"]
    entry |= {"accuracy/v2v": 1 / 8}  # chance for a task of 8 rows, and well above it for one of 64 pairs
    assert play(args, [entry], epoch=3.0, rows={"v2v": 4000}) == {}
    assert list(play(args, [entry], epoch=3.0, rows={"v2v": 8})) == ["accuracy at chance"]


def test_r_near_one_everywhere_is_told(args):
    logs = {}
    for task in ("t2v", "i2v"):
        logs |= {f"R/{task}": 0.97, f"R_centred/{task}": 0.0, f"accuracy/{task}": 0.5}
    assert list(play(args, [logs])) == ["collapsed probe"]
    assert play(args, [logs | {"R_centred/i2v": 0.3}]) == {}


def test_a_planted_run_is_caught(tmp_path, embedder, tasks):
    """With all weights but one norm frozen and a rate of nearly zero the loss cannot move; the log tells of it."""
    failures = FailureCallback()
    still = {"temperature": 10.0, "learning_rate": 1e-12, "schedule": "uniform", "max_steps": WINDOW}
    settings, only = arguments(tmp_path, num_negatives=0, **still), {"t2t": tasks["t2t"]}
    GVETrainer(embedder, settings, only, callbacks=[failures]).train()
    assert "constant loss" in failures.warned
