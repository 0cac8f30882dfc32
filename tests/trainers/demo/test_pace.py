from types import SimpleNamespace

import pytest
import torch

from gve.trainers.demo import pace
from gve.trainers.demo.pace import Deadline, falling_rate


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: now.seconds)
    return now


def start(seconds, lines):
    deadline = Deadline(seconds, lines.append)
    deadline.on_train_begin(None, None, None)
    return deadline


def test_deadline_stops_only_when_the_time_is_up_before_the_last_step(clock):
    lines = []
    deadline, control = start(10, lines), SimpleNamespace(should_training_stop=False)
    for passed, step, stops in ((9, 3, False), (2, 9, False), (0, 3, True)):  # of 9 steps and 10 seconds
        clock.seconds += passed
        deadline.on_step_end(None, SimpleNamespace(global_step=step, max_steps=9), control)
        assert control.should_training_stop == stops and len(lines) == stops
    assert "step 3 of 9" in lines[0]


def test_rate_falls_with_the_steps_or_with_the_time(clock):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    deadline = start(1000, [])
    rate = falling_rate(optimizer, 100, deadline, warmup=10).lr_lambdas[0]
    assert [rate(step) for step in (0, 50, 100)] == pytest.approx([0.1, 0.5, 0])
    late = falling_rate(optimizer, 100, deadline, warmup=10, plateau=0.6, least=0.05).lr_lambdas[0]
    assert [late(step) for step in (60, 80, 100)] == pytest.approx([1, 0.525, 0.05])
    clock.seconds += 750
    assert rate(50) == pytest.approx(0.1464, abs=1e-4)
    clock.seconds += 500
    assert rate(50) == pytest.approx(0)
