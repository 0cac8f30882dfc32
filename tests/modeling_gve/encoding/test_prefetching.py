"""The threads that prepare: order, bounds, errors, and that none is left behind."""

import os
import signal
import threading
import time

import pytest
import torch

from gve.encoding.prefetching import (
    EncodeStatistics,
    PipelineOptions,
    Prefetcher,
    Task,
    Workers,
    cut_batches,
    workers_for,
)

TWO = Workers(2, 2, caller_works=False)


def prepare_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gve-prepare")]


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert not prepare_threads()


def prefetch(work, count, *, size=1, workers=TWO, **options):
    prefetcher = Prefetcher(work, workers=workers, **options)
    assert prefetcher.add([Task(number, size) for number in range(count)]) == range(count)
    return prefetcher


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize(
    "workers",
    [Workers(0, 0, caller_works=True), Workers(1, 1, caller_works=True), TWO, Workers(4, 1, caller_works=True)],
)
def test_results_come_in_order(workers):
    late = threading.Event()

    def work(number):
        if number == 0 and workers.threads > 1:
            late.wait(10)  # the others overtake it
        elif number == 2:
            late.set()
        return number * 10

    with prefetch(work, 9, workers=workers) as prefetcher:
        assert [prefetcher.take(range(*ends)) for ends in ((0, 1), (1, 5), (5, 9))] == [
            [0],
            [10, 20, 30, 40],
            [50, 60, 70, 80],
        ]


def test_the_first_error_in_order_is_raised():
    failed = threading.Event()

    def work(number):
        if number == 3:
            failed.set()
            raise ValueError("three")
        if number == 1:
            failed.wait(10)
            raise KeyError("one")
        return number

    with prefetch(work, 4) as prefetcher:
        assert prefetcher.take(range(1)) == [0]
        failed.set()
        with pytest.raises(KeyError, match="one"):
            prefetcher.take(range(1, 4))


def test_a_slow_model_stops_the_threads():
    """Ten of thirty bytes fit: at most so many are held whatever the model does, and all results arrive."""
    started = []
    with prefetch(started.append, 10, size=3, held_bytes=10) as prefetcher:
        until(lambda: len(prefetcher.state.done) == 3)
        time.sleep(0.05)
        assert sorted(started) == [0, 1, 2] and prefetcher.state.held == 9  # a fourth would make it 12
        for place in range(10):
            prefetcher.take(range(place, place + 1))
            assert prefetcher.state.held <= 10
            prefetcher.release(range(place, place + 1))
    assert sorted(started) == list(range(10)) and prefetcher.state.most_held <= 10


def test_what_is_asked_for_is_made_whatever_it_costs():
    with prefetch(str, 6, size=100, held_bytes=10) as prefetcher:
        assert prefetcher.take(range(4)) == ["0", "1", "2", "3"]
        prefetcher.release(range(4))
        assert prefetcher.take(range(4, 6)) == ["4", "5"]


def test_few_threads_work_while_the_model_runs():
    gate, running, most = threading.Semaphore(0), [], []

    def work(number):
        running.append(number)
        most.append(len(running))
        gate.acquire(timeout=10)
        running.remove(number)

    with prefetch(work, 8, workers=Workers(3, 1, caller_works=False)) as prefetcher:
        until(lambda: len(running) == 3)
        with prefetcher.model_running():
            gate.release(3)
            until(lambda: len(prefetcher.state.done) == 3 and len(running) == 1)
            most.clear()
            gate.release(2)
            until(lambda: len(prefetcher.state.done) == 5 and len(running) == 1)
            assert max(most) == 1
        until(lambda: len(running) == 3)
        gate.release(8)
        prefetcher.take(range(8))


def test_leaving_early_ends_the_threads_with_the_task_they_are_at():
    started = []

    def work(number):
        started.append(number)
        time.sleep(0.02)

    with pytest.raises(RuntimeError, match="model"), prefetch(work, 500) as prefetcher:
        prefetcher.take(range(2))
        raise RuntimeError("model")
    assert not prepare_threads() and len(started) < 100


@pytest.fixture
def interruptible():
    """Control-C as at a terminal: a process in the background of a shell is started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_wait(interruptible):
    """Control-C reaches the calling thread while it waits for others, or works itself."""
    gate = threading.Event()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    threading.Timer(0.2, gate.set).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), prefetch(lambda _: gate.wait(10), 1) as prefetcher:
        prefetcher.take(range(1))
    assert time.monotonic() - begin < 5 and not prepare_threads()

    def work(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), prefetch(work, 1, workers=Workers(0, 0, caller_works=True)) as prefetcher:
        prefetcher.take(range(1))


@pytest.mark.parametrize(
    ("tokens", "rows", "limit", "cuts"),
    [
        ([], 4, 100, []),
        ([9, 8, 7, 6, 5], 2, 100, [(0, 2), (2, 4), (4, 5)]),
        ([50, 40, 10, 10], 4, 100, [(0, 2), (2, 4)]),  # three would be 150 places
        ([500, 10], 4, 100, [(0, 1), (1, 2)]),  # too dear, and so by itself
        ([10, 40, 40], 4, 100, [(0, 2), (2, 3)]),  # the longest counts, wherever it stands
    ],
)
def test_batches_are_cut_by_rows_and_by_tokens(tokens, rows, limit, cuts):
    assert cut_batches(tokens, rows=rows, limit=limit) == [range(*cut) for cut in cuts]


def test_who_prepares(monkeypatch):
    monkeypatch.setattr("gve.encoding.prefetching.usable_cpus", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert workers_for(torch.device("cpu"), None) == Workers(7, 2, caller_works=True)
    assert workers_for(torch.device("cpu"), 1) == Workers(1, 1, caller_works=True)
    assert workers_for(torch.device("cpu"), 0) == Workers(0, 0, caller_works=True)
    assert workers_for(torch.device("cuda"), None) == Workers(6, 6, caller_works=False)
    assert workers_for(torch.device("cuda"), 0) == Workers(0, 0, caller_works=True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert workers_for(torch.device("cpu"), None).during_model == 1


def test_options_are_checked():
    for name, value in (("workers", -1), ("batch_tokens", 0), ("held_bytes", 0)):
        with pytest.raises(ValueError, match=f"{name}: got {value}; accepted are"):
            PipelineOptions(**{name: value})


def test_statistics_add_up():
    spent = EncodeStatistics()
    assert spent.padding == spent.idle == 0
    with spent.time("seconds"):
        spent.add([torch.tensor([[1, 1]]), torch.tensor([[1, 1, 1]])], media=1)
        spent.add([torch.tensor([[1, 1]])], media=0)
    assert (spent.rows, spent.media, spent.batches, spent.tokens, spent.padded) == (3, 1, 2, 8, 1)
    assert spent.padding == 1 / 8 and spent.seconds > 0
    assert "3 inputs in" in str(spent) and "padding 12%" in str(spent)
