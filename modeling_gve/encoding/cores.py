"""What a CPU gives: as many of torch's threads as other programs leave cores, and how fast it is in half precision.

OpenMP's threads wait for one another by spinning. Where another program holds a core, the thread that shares it with
that program keeps all others waiting at every operation: with a busy loop on one of two cores, two threads do a third of
their steps, and one thread nearly as many as alone (`tests/bench/company.py`).
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import ClassVar, NamedTuple, Self

import psutil
import torch

from gve.encoding.prefetching import usable_cpus

INTERVAL = 2.0
"""Seconds between two looks: long enough that the system's clock ticks of 10 ms do not count."""
LASTING = 10.0
"""Seconds for which what was seen holds for the work that comes next, such as the next call of `encode`."""


class Usage(NamedTuple):
    """Seconds since some moment: by the clock, that the usable cores were busy, and that this process kept them so."""

    clock: float
    busy: float
    own: float


class CoreShare:
    """Adjusts torch's threads to the cores that other programs leave, for a model on the CPU.

    For a model on another device it is one: there the threads that prepare inputs share the cores, each for itself.
    The number at the start is the most, and comes back at the end of a `with` statement. What was seen is remembered, so
    that many short pieces of work are as well off as a long one.

    Args:
        read: Gives the usage so far; another one than the system's is for tests.
        interval: Seconds between two looks.
    """

    seen: ClassVar[tuple[Usage, int] | None] = None
    """The last usage that this process read, and the threads chosen by it."""

    def __init__(
        self, device: torch.device, *, read: Callable[[], Usage] | None = None, interval: float = INTERVAL
    ) -> None:
        self.read = read or read_usage
        self.interval = interval
        self.given = torch.get_num_threads()
        self.most = self.given if device.type == "cpu" else 1
        self.begun = time.monotonic()
        self.last: Usage | None = None  # reading takes milliseconds, which short work does not spend
        if self.seen is not None and self.most > 1 and self.begun - self.seen[0].clock < LASTING:
            self.last, threads = self.seen
            torch.set_num_threads(min(self.most, threads))
        elif self.most < self.given:
            torch.set_num_threads(self.most)

    def adjust(self) -> int:
        """Look, if it is time, and set the threads; returns their number. Costs a microsecond where it is not time."""
        since = self.begun if self.last is None else self.last.clock
        if self.most == 1 or time.monotonic() - since < self.interval:
            return torch.get_num_threads()
        now = self.read()
        if self.last is None:
            self.last, CoreShare.seen = now, (now, self.most)
            return self.most
        seconds = now.clock - self.last.clock
        others = max(0.0, (now.busy - self.last.busy) - (now.own - self.last.own)) / seconds
        self.last = now
        threads = min(self.most, max(1, int(usable_cpus() - others + 0.5)))
        CoreShare.seen = now, threads
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        return threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.last is not None or self.most < self.given:
            torch.set_num_threads(self.given)


def read_usage() -> Usage:
    """The system's figures; processes that this one started count as its own."""
    times = psutil.cpu_times(percpu=True)
    busy = 0.0
    usable = os.sched_getaffinity(0) if sys.platform == "linux" else range(len(times))
    for core in usable:
        each = times[core]._asdict()
        # guests are in user and nice already
        busy += sum(value for name, value in each.items() if name not in ("idle", "iowait", "guest", "guest_nice"))
    process = psutil.Process()
    own = sum(process.cpu_times()[:4])  # with those of its processes that have ended
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            own += sum(child.cpu_times()[:4])
    return Usage(time.monotonic(), busy, own)


@lru_cache
def half_speed(dtype: torch.dtype) -> float:
    """Products of a half precision on this CPU in the time of one in float32; without units for it a tenth."""
    seconds = []
    for kind in (torch.float32, dtype):
        left, right = torch.ones(1024, 256, dtype=kind), torch.ones(256, 512, dtype=kind)
        left @ right  # the first one is slower
        spent = []
        for _ in range(3):
            begun = time.perf_counter()
            left @ right
            spent.append(time.perf_counter() - begun)
        seconds.append(min(spent))
    return seconds[0] / seconds[1]
