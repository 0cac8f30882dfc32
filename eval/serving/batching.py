"""Batches across requests: one thread runs the model, on inputs of like length, short ones between long ones.

Shapes: B inputs of a batch, D width.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gve.eval.encoders import Encoder

logger = logging.getLogger(__name__)

SHORT = 256
"""Tokens of the longest input that counts as short: it waits for at most one batch of longer ones."""

_LEAST = 64  # shorter inputs are padded to one length


class Key(NamedTuple):
    """What the inputs of a batch have in common."""

    role: str
    instruction: str | None


class Group(NamedTuple):
    """Inputs that may share a batch; `tokens` is a power of two, to which they are padded at most."""

    long: bool
    key: Key
    tokens: int


@dataclass(eq=False)
class Job:
    """An input on its way to its vector (D,)."""

    item: Any
    tokens: int
    key: Key
    future: Future[np.ndarray] = field(default_factory=Future)
    born: float = field(default_factory=time.monotonic)

    @property
    def group(self) -> Group:
        """The inputs it may share a batch with."""
        return Group(self.tokens > SHORT, self.key, max(_LEAST, 1 << (self.tokens - 1).bit_length()))


class Batcher:
    """Runs the encoder in a thread of its own.

    The oldest input goes first, with others of its group, as many as fit into `batch_tokens`. Where short and long inputs
    wait, their batches take turns.

    Args:
        latency: Seconds that a batch which is not full waits for inputs that are being read.
        observe: Called after each batch with its inputs and its seconds.
    """

    def __init__(
        self, encoder: Encoder, *, batch_tokens: int, latency: float, observe: Callable[[Sequence[Job], float], None]
    ) -> None:
        self.encoder, self.batch_tokens, self.latency, self.observe = encoder, batch_tokens, latency, observe
        self.groups: dict[Group, deque[Job]] = {}
        self.changed = threading.Condition()
        self.reading = 0  # requests whose inputs are not here yet
        self.closed = False
        self.last_long = False
        self.rate = 0.0  # tokens a second, of late
        self.thread = threading.Thread(target=self._run, name="gve-batcher", daemon=True)

    def add(self, jobs: Sequence[Job]) -> None:
        """Take inputs; their futures get vectors or errors, or are cancelled."""
        with self.changed:
            if self.closed:
                raise RuntimeError("the server is shutting down")
            for job in jobs:
                self.groups.setdefault(job.group, deque()).append(job)
            self.changed.notify_all()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Say that inputs are being read, for which batches may wait."""
        with self.changed:
            self.reading += 1
        try:
            yield
        finally:
            with self.changed:
                self.reading -= 1
                self.changed.notify_all()

    def seconds_behind(self) -> float:
        """How long what waits will take."""
        with self.changed:
            waiting = sum(group.tokens * len(jobs) for group, jobs in self.groups.items())
            return waiting / self.rate if self.rate else 1.0

    def close(self) -> None:
        """Finish what was taken, then end."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.thread.join()

    def _run(self) -> None:
        while batch := self._next():
            jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if jobs:
                start = time.monotonic()
                self._answer(jobs)
                spent = time.monotonic() - start
                rate = sum(job.tokens for job in jobs) / max(spent, 1e-6)
                self.rate = 0.9 * self.rate + 0.1 * rate if self.rate else rate
                self.observe(jobs, spent)

    def _next(self) -> list[Job]:
        """Wait for the next batch; empty at the end."""
        with self.changed:
            while True:
                if not self.groups:
                    if self.closed:
                        return []
                    self.changed.wait()
                    continue
                group = self._choose()
                jobs, most = self.groups[group], max(1, self.batch_tokens // group.tokens)
                left = jobs[0].born + self.latency - time.monotonic()
                if len(jobs) >= most or left <= 0 or not self.reading or self.closed:
                    self.last_long = group.long
                    batch = [jobs.popleft() for _ in range(min(most, len(jobs)))]
                    if not jobs:
                        del self.groups[group]
                    return batch
                self.changed.wait(left)

    def _choose(self) -> Group:
        """The group of the oldest input, after a batch of long inputs that of the oldest short one, and vice versa."""
        turn = [group for group in self.groups if group.long != self.last_long] or list(self.groups)
        return min(turn, key=lambda group: self.groups[group][0].born)

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Give each input its vector; where a batch fails its halves are tried, so that one input fails alone."""
        try:
            vectors = self._encode(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            middle = len(jobs) // 2
            self._answer(jobs[:middle])
            self._answer(jobs[middle:])
            return
        for job, vector in zip(jobs, vectors, strict=True):
            job.future.set_result(vector)

    def _encode(self, jobs: Sequence[Job]) -> np.ndarray:
        """Vectors (B, D)."""
        role, instruction = jobs[0].key
        encode = self.encoder.encode_query if role == "query" else self.encoder.encode_document
        options = {"batch_size": len(jobs), "show_progress_bar": False, "convert_to_numpy": True}
        options |= {} if instruction is None else {"prompt": instruction}
        vectors = np.asarray(encode([job.item for job in jobs], **options), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(jobs) or not np.isfinite(vectors).all():
            raise RuntimeError(
                f"the encoder returned {vectors.shape} for {len(jobs)} inputs, or nan. Check the model."
            )
        return vectors
