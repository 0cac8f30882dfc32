"""Batches across requests: who shares one, who goes first, what one bad input costs."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from gve.eval.encoders import FunctionEncoder
from gve.eval.serving.batching import SHORT, Batcher, Job, Key

PLAIN = Key("document", None)


class Recorder:
    """An encoder that waits to be let go, and notes its batches."""

    def __init__(self, bad=()):
        self.batches, self.bad, self.go = [], bad, threading.Event()

    def __call__(self, inputs, prompt):
        self.go.wait(10)
        self.batches.append((prompt, inputs))
        if set(inputs) & set(self.bad):
            raise ValueError(f"inputs[0]: {self.bad}")
        return np.ones((len(inputs), 2))


def run(batcher, jobs):
    """Add jobs while the first waits in the model, then let all go."""
    batcher.thread.start()
    batcher.add([Job("first", 1, PLAIN)])
    while batcher.groups:
        time.sleep(0.001)
    for job in jobs:
        batcher.add([job])
    batcher.encoder.function.go.set()
    batcher.close()
    return batcher.encoder.function.batches[1:]


def make(bad=(), batch_tokens=4096, latency=0.0, observe=lambda *_: None):
    encoder = FunctionEncoder(Recorder(bad))
    return Batcher(encoder, batch_tokens=batch_tokens, latency=latency, observe=observe)


def test_a_short_text_waits_for_one_long_batch_at_most():
    jobs = [Job(f"long {number}", 4000, PLAIN) for number in range(5)]
    jobs += [Job(f"text {number}", 10 + number, PLAIN) for number in range(3)]
    jobs += [Job("picture", SHORT, PLAIN)]
    assert [inputs for _, inputs in run(make(), jobs)] == [
        ["long 0"],
        ["text 0", "text 1", "text 2"],
        ["long 1"],
        ["picture"],
        ["long 2"],
        ["long 3"],
        ["long 4"],
    ]


def test_batches_hold_one_key_and_so_many_tokens():
    keys = [PLAIN, Key("query", "Find it."), *[PLAIN] * 4]
    jobs = [Job("asked" if key.instruction else f"a {place}", 60, key) for place, key in enumerate(keys)]
    found = run(make(batch_tokens=3 * 64), jobs)
    assert found == [
        (None, ["a 0", "a 2", "a 3"]),
        ("Find it.", ["asked"]),
        (None, ["a 4", "a 5"]),
    ]


def test_a_bad_input_fails_alone_and_cancelled_ones_do_not_run():
    jobs = [Job(f"a {number}", 10, PLAIN) for number in range(8)]
    jobs[3].future.cancel()
    batches = run(make(bad=("a 5",)), jobs)
    assert "a 3" not in [item for _, inputs in batches for item in inputs]
    with pytest.raises(ValueError, match="a 5"):
        jobs[5].future.result()
    assert all(jobs[place].future.result().tolist() == [1, 1] for place in (0, 1, 2, 4, 6, 7))


@contextmanager
def started(latency):
    """A batcher whose encoder answers at once, and the sizes of its batches."""
    spent = []
    batcher = make(latency=latency, observe=lambda jobs, _: spent.append(len(jobs)))
    batcher.encoder.function.go.set()
    batcher.thread.start()
    yield batcher, spent
    batcher.close()


def test_a_batch_waits_for_what_is_being_read():
    with started(latency=600.0) as (batcher, spent):
        with batcher.expecting():
            first, second = Job("a", 1, PLAIN), Job("b", 1, PLAIN)
            batcher.add([first])
            time.sleep(0.05)
            batcher.add([second])
        second.future.result(60)  # what was awaited is here, long before the latency is over
    assert spent == [2]


def test_a_batch_waits_no_longer_than_the_latency():
    with started(latency=0.3) as (batcher, spent), batcher.expecting():
        late = Job("c", 1, PLAIN)
        start = time.monotonic()
        batcher.add([late])
        late.future.result(60)  # while more is still being read
        assert time.monotonic() - start > 0.2
    assert spent == [1]


def test_vectors_that_are_no_numbers_are_refused():
    batcher = Batcher(
        FunctionEncoder(lambda inputs, _: np.full((len(inputs), 2), np.nan)),
        batch_tokens=64,
        latency=0.0,
        observe=lambda *_: None,
    )
    batcher.thread.start()
    job = Job("a", 1, PLAIN)
    batcher.add([job])
    with pytest.raises(RuntimeError, match="nan"):
        job.future.result(5)
    batcher.close()
    assert batcher.seconds_behind() == 0
    with pytest.raises(RuntimeError, match="shutting down"):
        batcher.add([Job("b", 1, PLAIN)])
