"""Runs of a study in parallel processes, within a number of minutes."""

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

HIDE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Machine:
    """What a study may use; none of it changes a result, but for the rounding of another device."""

    parallel: int = 2  # runs at a time, with one thread each
    device: str = "auto"  # of the runs: cpu hides the GPU from them
    ends: float = math.inf  # `time.monotonic` when the time is up


def run_jobs(
    jobs: Sequence[tuple[Any, ...]],
    machine: Machine,
    *,
    after: Callable[[], Any] | None = None,
    every: int = 1,
    lead: int = 0,
    title: str = "runs",
) -> list[Any]:
    """Results, in order, of functions with their arguments, each in a process of one thread.

    A job that takes as long as the longest so far would not end in time is not begun: its result, and those of all
    after it, are None.

    Args:
        after: Called in this process when a round of so many jobs (`every`) is done, with all before them.
        lead: Jobs before the first round.
    """
    results, done, longest = [None] * len(jobs), [False] * len(jobs), 0.0
    left, rounds, running = iter(enumerate(jobs)), 0, {}
    context = multiprocessing.get_context("spawn")
    with (
        _visible(machine.device),
        ProcessPoolExecutor(machine.parallel, mp_context=context, initializer=_one_thread) as pool,
        tqdm(total=len(jobs), desc=title, unit="job") as bar,
    ):
        while True:
            while len(running) < machine.parallel and time.monotonic() + longest < machine.ends:
                number, job = next(left, (-1, ()))
                if not job:
                    break
                running[pool.submit(*job)] = number, time.monotonic()
            if not running:
                return results
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, begun = running.pop(future)
                results[number], done[number] = future.result(), True
                longest = max(longest, time.monotonic() - begun)
                bar.update()
            whole = done.index(False) if not all(done) else len(done)
            before, rounds = rounds, max(0, whole - lead) // every
            if after and rounds > before:
                after()


def _one_thread() -> None:
    """Two parallel runs with one thread each are faster than one with two."""
    import torch  # a second to import

    torch.set_num_threads(1)


@contextmanager
def _visible(device: str) -> Iterator[None]:
    """Hides GPUs from processes that begin within; this one keeps what it has opened."""
    before = os.environ.get(HIDE)
    if device == "cpu":
        os.environ[HIDE] = ""
    try:
        yield
    finally:
        if device == "cpu":
            os.environ.pop(HIDE) if before is None else os.environ.update({HIDE: before})
