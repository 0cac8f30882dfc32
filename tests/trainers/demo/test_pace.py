from types import SimpleNamespace

import pytest
import torch

from gve.encoding import cores
from gve.trainers.demo import pace


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: now.seconds)
    return now


def test_deadline_stops_only_when_the_time_is_up_before_the_last_step(clock):
    lines, control = [], SimpleNamespace(should_training_stop=False)
    deadline = pace.Deadline(10, lines.append)
    deadline.on_train_begin(None, None, None)
    for passed, step, stops in ((9, 3, False), (2, 9, False), (0, 3, True)):  # of 9 steps and 10 seconds
        clock.seconds += passed
        deadline.on_step_end(None, SimpleNamespace(global_step=step, max_steps=9), control)
        assert control.should_training_stop == stops and len(lines) == stops
    assert "step 3 of 9" in lines[0]


def test_rate_falls_with_the_steps_or_with_the_time(clock):
    optimizer, deadline = torch.optim.SGD([torch.zeros(1)], lr=1.0), pace.Deadline(1000, print)
    deadline.on_train_begin(None, None, None)
    rate = pace.falling_rate(optimizer, 100, deadline, warmup=10).lr_lambdas[0]
    assert [rate(step) for step in (0, 50, 100)] == pytest.approx([0.1, 0.5, 0])
    late = pace.falling_rate(optimizer, 100, deadline, warmup=10, plateau=0.6, least=0.05).lr_lambdas[0]
    assert [late(step) for step in (60, 80, 100)] == pytest.approx([1, 0.525, 0.05])
    for passed, expected in ((750, 0.1464), (500, 0.0)):
        clock.seconds += passed
        assert rate(50) == pytest.approx(expected, abs=1e-4)


def test_a_step_is_timed_with_the_threads_that_it_will_run_with(clock, monkeypatch):
    """Beside a program that holds one of two cores; steps of 1.7 s, shorter than the time between two looks."""
    monkeypatch.setattr(cores.CoreShare, "seen", None)
    monkeypatch.setattr(cores, "usable_cpus", lambda: 2)
    monkeypatch.setattr(cores, "read_usage", lambda: cores.Usage(clock.seconds, 2 * clock.seconds, clock.seconds))
    threads, before = [], torch.get_num_threads()
    torch.set_num_threads(2)

    def step(number):
        threads.append(torch.get_num_threads())
        clock.seconds += 1.7

    try:
        assert pace.steady_seconds(step, 3, torch.device("cpu")) < 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [2, 2, 2, 2, 1, 1, 1]
