"""Time limits of parts: a deadline that loops ask, and a signal for the loop that does not."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

GRACE = 10.0
"""Seconds that a part may overrun before a signal ends it: a single call to the device is not cut short."""


class OverrunError(RuntimeError):
    """A part took longer than it may."""


class Deadline:
    """The end of the part that runs."""

    def __init__(self) -> None:
        self.end = float("inf")

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    def check(self) -> None:
        if self.over:
            raise OverrunError("cut: its time was over")

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Let a block take this long."""

        def ring(*_: object) -> None:
            raise OverrunError("cut by a signal: its time was over")

        previous, self.end = signal.signal(signal.SIGALRM, ring), time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            self.end = float("inf")
