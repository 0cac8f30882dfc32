from types import SimpleNamespace

import pytest
import torch

from gve.trainers.demo import pace
from gve.trainers.demo.pace import Deadline, TimedTrainer


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: now.seconds)
    return now


def start(seconds, lines):
    deadline = Deadline(seconds, lines.append)
    deadline.on_train_begin(None, None, None)
    return deadline


def test_deadline_stops_only_when_the_time_is_over(clock):
    lines = []
    deadline, control = start(10, lines), SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(global_step=3, max_steps=9)
    clock.seconds += 9
    deadline.on_step_end(None, state, control)
    assert not control.should_training_stop
    clock.seconds += 2
    deadline.on_step_end(None, state, control)
    assert control.should_training_stop
    assert "step 3 of 9" in lines[0]


def test_a_finished_training_is_not_called_late(clock):
    lines = []
    deadline, control = start(10, lines), SimpleNamespace(should_training_stop=False)
    clock.seconds += 20
    deadline.on_step_end(None, SimpleNamespace(global_step=9, max_steps=9), control)
    assert not control.should_training_stop
    assert lines == []


def rate(deadline, step, total=100, warmup=10):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    trainer = SimpleNamespace(
        args=SimpleNamespace(warmup_steps=warmup), deadline=deadline, lr_scheduler=None, optimizer=optimizer
    )
    return TimedTrainer.create_scheduler(trainer, total).lr_lambdas[0](step)


def test_rate_falls_with_the_steps_or_with_the_time(clock):
    deadline = start(1000, [])
    assert rate(deadline, 0) == pytest.approx(0.1)
    assert rate(deadline, 50) == pytest.approx(0.5)
    assert rate(deadline, 100) == pytest.approx(0)
    clock.seconds += 750
    assert rate(deadline, 50) == pytest.approx(0.1464, abs=1e-4)
    clock.seconds += 500
    assert rate(deadline, 50) == pytest.approx(0)
