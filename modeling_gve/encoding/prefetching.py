"""Preparing inputs in threads while the model runs: batches of like cost, a bounded way ahead, in order.

Shape legend: B rows of a batch, T tokens.

Threads and not processes: PyAV and the tokenizer release the interpreter's lock, and nothing has to be copied. Each file
is decoded by one thread alone, because FFmpeg's own threads deadlock when many files are open.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Self, TypeVar

import torch

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How preparing overlaps with encoding."""

    workers: int | None = None  # threads that prepare; None chooses by the machine, 0 prepares in the calling thread
    batch_tokens: int = 1 << 16  # most tokens of a batch, padding included; a larger input is a batch of its own
    held_bytes: int = 1 << 30  # most bytes of prepared inputs waiting for the model; one batch is always allowed

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers: got {self.workers}; accepted are None and 0 on; 0 is without threads")
        for name in ("batch_tokens", "held_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; accepted are 1 and more; the default is large")


@dataclass(slots=True)
class EncodeStatistics:
    """Where the time of encoding went; several calls add up."""

    rows: int = 0  # inputs embedded
    media: int = 0  # inputs with an image or a video
    batches: int = 0  # forward passes
    seconds: float = 0.0  # from the first header read to the last vector
    waiting: float = 0.0  # seconds the model waited for its next batch, planning included; not while a device works
    model: float = 0.0  # seconds in the model, its device's work and copies to and from it included
    tokens: int = 0  # token positions of all batches, (B, T) each
    padded: int = 0  # token positions that hold padding
    most_held: int = 0  # most bytes of prepared inputs that waited for the model at one time
    cached: int = 0  # videos served by the frame cache

    def __str__(self) -> str:
        """As the commands print it."""
        rate = self.rows / self.seconds if self.seconds else 0.0
        parts = [f"{self.rows} inputs in {self.seconds:.1f} s ({rate:.1f} a second)"]
        parts += [f"{self.model:.1f} s in the model", f"{self.waiting:.1f} s waiting for inputs"]
        parts += [f"padding {self.padding:.0%}", f"at most {self.most_held / 1e6:.0f} MB waiting"]
        return ", ".join([*parts, *([f"{self.cached} videos from the cache"] if self.cached else [])])

    @property
    def padding(self) -> float:
        """Share of the token positions that hold padding."""
        return self.padded / self.tokens if self.tokens else 0.0

    @property
    def idle(self) -> float:
        """Share of the time the model waited."""
        return self.waiting / self.seconds if self.seconds else 0.0

    def add(self, masks: Sequence[torch.Tensor], *, media: int) -> None:
        """Count a batch by the attention masks of its parts, and its rows with an image or a video."""
        rows, width = sum(len(mask) for mask in masks), max(mask.shape[1] for mask in masks)
        self.rows += rows
        self.media += media
        self.batches += 1
        self.tokens += rows * width
        self.padded += rows * width - sum(int(mask.sum()) for mask in masks)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to "seconds", "waiting" or "model"."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


def cut_batches(tokens: Sequence[int], *, rows: int, limit: int) -> list[range]:
    """Cut a list into consecutive batches of at most `rows` inputs and `limit` tokens, padding included."""
    out, start, longest = [], 0, 0
    for place, count in enumerate(tokens):
        longest = max(longest, count)
        if place > start and (place - start == rows or (place - start + 1) * longest > limit):
            out.append(range(start, place))
            start, longest = place, count
    return [*out, range(start, len(tokens))] if len(tokens) else []


def usable_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Workers(NamedTuple):
    """Threads that prepare."""

    threads: int  # threads besides the calling one
    during_model: int  # how many of them may start a task while the model runs
    caller_works: bool  # whether the calling thread prepares too instead of waiting


def workers_for(device: torch.device, workers: int | None) -> Workers:
    """The worker threads for a model on a device; `workers` of None chooses their number.

    A model on the CPU computes in the processors that preparing needs. There the calling thread prepares instead of
    waiting, and while the model runs at most one thread more than there are processors is busy.
    """
    cores = usable_cpus()
    if device.type != "cpu":
        threads = max(1, cores * 3 // 4) if workers is None else workers  # the rest launch the model's work
        return Workers(threads, threads, caller_works=threads == 0)
    threads = max(1, cores - 1) if workers is None else workers
    return Workers(threads, min(threads, max(1, cores - torch.get_num_threads())), caller_works=True)


class Task(NamedTuple, Generic[In]):
    """Something to prepare; its result takes `size` bytes."""

    value: In
    size: int


@dataclass(slots=True)
class _State(Generic[Out]):
    """What the threads share; touched only under the lock."""

    started: int = 0
    wanted: int = 0
    active: int = 0
    held: int = 0
    most_held: int = 0
    stopped: bool = False
    model_runs: bool = False
    done: dict[int, tuple[Out | None, BaseException | None]] = field(default_factory=dict)


class Prefetcher(Generic[In, Out]):
    """Runs tasks in worker threads, in order and a bounded way ahead.

    A task starts when its bytes fit besides those held, or when somebody waits for it or a later one, so it cannot
    stall. Use it as a context manager; on leaving, each thread ends after its current task.
    """

    def __init__(self, work: Callable[[In], Out], *, workers: Workers, held_bytes: float = math.inf) -> None:
        self.work, self.workers, self.held_bytes = work, workers, held_bytes
        self.tasks: list[Task[In]] = []
        self.state: _State[Out] = _State()
        self.changed = threading.Condition()
        self.threads: list[threading.Thread] = []

    def add(self, tasks: Sequence[Task[In]]) -> range:
        """Append tasks, and start threads for them; their places."""
        with self.changed:
            first = len(self.tasks)
            self.tasks += tasks
            self.changed.notify_all()
        while len(self.threads) < min(self.workers.threads, len(self.tasks)):
            name = f"gve-prepare-{len(self.threads)}"
            self.threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
            self.threads[-1].start()
        return range(first, len(self.tasks))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.state.stopped = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()

    def ready(self, places: range) -> bool:
        """Whether the results at these places can be taken without waiting."""
        with self.changed:
            return all(place in self.state.done for place in places)

    def take(self, places: range) -> list[Out]:
        """Wait for the results at these places, or make them; raises what the first failed task raised."""
        state = self.state
        with self.changed:
            state.wanted = max(state.wanted, places.stop)
            self.changed.notify_all()
        while True:
            with self.changed:
                if all(place in state.done for place in places):
                    found = [state.done.pop(place) for place in places]
                    break
                place = self._start() if self.workers.caller_works or not self.threads else None
                if place is None:
                    self.changed.wait()
                    continue
            self._do(place)
        for _, error in found:
            if error is not None:
                raise error
        return [result for result, _ in found]

    def release(self, places: range) -> None:
        """Give back the bytes of results that were taken and are no longer held."""
        with self.changed:
            self.state.held -= sum(self.tasks[place].size for place in places)
            self.changed.notify_all()

    @contextmanager
    def model_running(self) -> Iterator[None]:
        """Leave the processors to the model for the length of the block."""
        self.state.model_runs = True
        try:
            yield
        finally:
            with self.changed:
                self.state.model_runs = False
                self.changed.notify_all()

    def _serve(self) -> None:
        """Loop of a worker thread, until the prefetcher stops."""
        while True:
            with self.changed:
                while self._full() or (place := self._start()) is None:
                    if self.state.stopped:
                        return
                    self.changed.wait()
                self.state.active += 1
            self._do(place)
            with self.changed:
                self.state.active -= 1
                self.changed.notify_all()

    def _full(self) -> bool:
        """Whether as many threads are busy as may be now."""
        return self.state.active >= (self.workers.during_model if self.state.model_runs else self.workers.threads)

    def _start(self) -> int | None:
        """Take the next task, if it may be started; under the lock."""
        state = self.state
        place = state.started
        if state.stopped or place == len(self.tasks):
            return None
        size = self.tasks[place].size
        if place >= state.wanted and state.held + size > self.held_bytes:
            return None
        state.started += 1
        state.held += size
        state.most_held = max(state.most_held, state.held)
        return place

    def _do(self, place: int) -> None:
        result, error = None, None
        try:
            result = self.work(self.tasks[place].value)
        except Exception as caught:
            error = caught
        finally:  # an interrupt of the calling thread goes on from here
            with self.changed:
                self.state.done[place] = (result, error)
                self.changed.notify_all()
