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
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How encoding is overlapped with preparing.

    Attributes:
        workers: Threads that prepare; None chooses by the machine, 0 prepares in the calling thread.
        batch_tokens: Tokens of a batch at most, padding included; a dearer input has a batch of its own.
        held_bytes: Bytes of prepared inputs at most that the model has not seen; one batch is always allowed.
    """

    workers: int | None = None
    batch_tokens: int = 1 << 16
    held_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers: got {self.workers}; accepted are None and 0 on; 0 is without threads")
        for name in ("batch_tokens", "held_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; accepted are 1 and more; the default is large")


@dataclass(slots=True)
class EncodeStatistics:
    """Where the time of encoding went; several calls add up.

    Attributes:
        rows: Inputs embedded.
        media: Those of them with an image or a video.
        batches: Forward passes.
        seconds: From the first header read to the last vector.
        waiting: Seconds in which the model had to wait for its next batch; planning counts.
        model: Seconds in the model, copies to and from its device included.
        tokens: Places of all batches, (B, T) each.
        padded: Those of them that hold padding.
        most_held: Bytes of prepared inputs, at the most, that waited for the model.
        cached: Videos that came from the frame cache.
    """

    rows: int = 0
    media: int = 0
    batches: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    model: float = 0.0
    tokens: int = 0
    padded: int = 0
    most_held: int = 0
    cached: int = 0

    def __str__(self) -> str:
        """As the commands tell it."""
        rate = self.rows / self.seconds if self.seconds else 0.0
        parts = [f"{self.rows} inputs in {self.seconds:.1f} s ({rate:.1f} a second)"]
        parts += [f"{self.model:.1f} s in the model", f"{self.waiting:.1f} s waiting for inputs"]
        parts += [f"padding {self.padding:.0%}", f"at most {self.most_held / 1e6:.0f} MB waiting"]
        return ", ".join([*parts, *([f"{self.cached} videos from the cache"] if self.cached else [])])

    @property
    def padding(self) -> float:
        """Share of the places that hold padding."""
        return self.padded / self.tokens if self.tokens else 0.0

    @property
    def idle(self) -> float:
        """Share of the time in which the model waited."""
        return self.waiting / self.seconds if self.seconds else 0.0

    def add(self, mask: torch.Tensor, *, media: int) -> None:
        """Count a batch.

        Args:
            mask: (B, T), its attention mask.
            media: Its rows with an image or a video.
        """
        self.rows += mask.shape[0]
        self.media += media
        self.batches += 1
        self.tokens += mask.numel()
        self.padded += mask.numel() - int(mask.sum())

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to an attribute.

        Args:
            name: "seconds", "waiting" or "model".

        Yields:
            Nothing.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


def cut_batches(tokens: Sequence[int], *, rows: int, limit: int) -> list[range]:
    """Runs of inputs that make a batch each.

    Args:
        tokens: Tokens of each input.
        rows: Inputs of a batch at most.
        limit: Tokens of a batch at most: its inputs times the longest of them.

    Returns:
        Ranges of places, one after another; all inputs are in one.
    """
    out, start, longest = [], 0, 0
    for place, count in enumerate(tokens):
        longest = max(longest, count)
        if place > start and (place - start == rows or (place - start + 1) * longest > limit):
            out.append(range(start, place))
            start, longest = place, count
    return [*out, range(start, len(tokens))] if len(tokens) else []


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Crew(NamedTuple):
    """Who prepares.

    Attributes:
        threads: Threads beside the calling one.
        beside: Those of them that may start something while the model runs.
        helps: Whether the calling thread prepares too, instead of waiting.
    """

    threads: int
    beside: int
    helps: bool


def crew_for(device: torch.device, workers: int | None) -> Crew:
    """Who prepares for a model on a device.

    A model on the CPU computes with its own threads in the processors that preparing needs: then the calling thread
    prepares instead of waiting, and while the model runs at most one thread more than there are processors is busy.

    Args:
        device: Where the model runs.
        workers: Threads, or None to choose.

    Returns:
        The threads and what they may do.
    """
    cores = processors()
    if device.type != "cpu":
        threads = cores if workers is None else workers
        return Crew(threads, threads, helps=threads == 0)
    threads = max(1, cores - 1) if workers is None else workers
    return Crew(threads, min(threads, max(1, cores - torch.get_num_threads())), helps=True)


class Task(NamedTuple, Generic[In]):
    """Something to prepare.

    Attributes:
        value: What the work gets.
        size: Bytes that its result takes.
    """

    value: In
    size: int


@dataclass(slots=True)
class _State(Generic[Out]):
    """What the threads share; only touched under the lock."""

    started: int = 0
    wanted: int = 0
    taken: int = 0
    active: int = 0
    held: int = 0
    most_held: int = 0
    stopped: bool = False
    model_runs: bool = False
    done: dict[int, tuple[Out | None, BaseException | None]] = field(default_factory=dict)


class Ahead(Generic[In, Out]):
    """Results of some work in the order of its tasks, made in threads a bounded way ahead.

    A task is started when its bytes fit beside those held, or when it is asked for: so it never waits for ever. Used as
    a context manager, which starts the threads; leaving it ends them, each after the task it is at.

    Args:
        work: Makes a result; what it raises, `take` raises.
        tasks: What to make, in order.
        crew: Who works.
        held_bytes: Bytes of results at most that have not been given back.
    """

    def __init__(
        self, work: Callable[[In], Out], tasks: Sequence[Task[In]], *, crew: Crew, held_bytes: float = math.inf
    ) -> None:
        self.work, self.tasks, self.crew, self.held_bytes = work, tasks, crew, held_bytes
        self.state: _State[Out] = _State()
        self.changed = threading.Condition()
        count = min(crew.threads, len(tasks))
        names = (f"gve-prepare-{number}" for number in range(count))
        self.threads = [threading.Thread(target=self._serve, name=name, daemon=True) for name in names]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.state.stopped = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()

    def take(self, count: int) -> list[Out]:
        """The next results; waits for them, or makes them.

        Args:
            count: How many.

        Returns:
            Results in the order of the tasks.

        Raises:
            BaseException: What the work raised for the first of them that failed.
        """
        state = self.state
        with self.changed:
            first, state.wanted = state.taken, state.taken + count
            self.changed.notify_all()
        while True:
            with self.changed:
                if all(place in state.done for place in range(first, first + count)):
                    state.taken += count
                    found = [state.done.pop(place) for place in range(first, first + count)]
                    break
                place = self._start() if self.crew.helps or not self.threads else None
                if place is None:
                    self.changed.wait()
                    continue
            self._do(place)
        for _, error in found:
            if error is not None:
                raise error
        return [result for result, _ in found]

    def give_back(self, size: int) -> None:
        """Say that results are no longer held.

        Args:
            size: Their bytes.
        """
        with self.changed:
            self.state.held -= size
            self.changed.notify_all()

    @contextmanager
    def model_running(self) -> Iterator[None]:
        """Leave the processors to the model meanwhile.

        Yields:
            Nothing.
        """
        self.state.model_runs = True
        try:
            yield
        finally:
            with self.changed:
                self.state.model_runs = False
                self.changed.notify_all()

    def _serve(self) -> None:
        """What a thread does until all is started or it is told to stop."""
        while True:
            with self.changed:
                while self._full() or (place := self._start()) is None:
                    if self.state.stopped or self.state.started == len(self.tasks):
                        return
                    self.changed.wait()
                self.state.active += 1
            self._do(place)
            with self.changed:
                self.state.active -= 1
                self.changed.notify_all()

    def _full(self) -> bool:
        """Whether as many threads are at work as may be now."""
        return self.state.active >= (self.crew.beside if self.state.model_runs else self.crew.threads)

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


def pinned(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch from which copies to a device run beside the computation.

    Args:
        batch: Tensors on the CPU, and other things.
        device: Where they will go.

    Returns:
        The batch, its tensors in pinned memory for a CUDA device.
    """
    if device.type != "cuda":
        return batch
    return {name: value.pin_memory() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Copy a batch.

    Args:
        batch: Tensors, pinned for a CUDA device, and other things.
        device: Where to.

    Returns:
        The batch on the device.
    """
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
