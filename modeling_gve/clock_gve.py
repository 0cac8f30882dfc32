"""Which frames of a video are taken, and at what times.

Shape legend: N frames of the video, F frames taken, K keyframes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from .media_gve import shown

Shown = TypeVar("Shown")

SAMPLINGS = ("uniform", "fps", "keyframes")

TOLERANCE = 1e-6
"""Seconds by which a time may differ from a frame's own and still mean it."""


def uniform_indices(total: int, count: int) -> np.ndarray:
    """(count,) int64 places spread evenly over `total` frames, first and last included; some repeat if there are fewer."""
    return np.linspace(0, total - 1, count).round().astype(np.int64)


@dataclass(frozen=True, slots=True)
class Sampling:
    """A rule that picks frames.

    Attributes:
        count: Frames to take; with "fps" at most so many, with `timestamps` ignored.
        kind: One of `SAMPLINGS`.
        fps: Frames a second, for the kind "fps".
        timestamps: Times in seconds whose frames are taken, instead of a kind.
        start: Seconds at which the sampled part begins.
        end: Seconds at which it ends.
    """

    count: int
    kind: str = "uniform"
    fps: float | None = None
    timestamps: tuple[float, ...] | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"num_frames: got {self.count}; accepted are 1 and more; the default is 8")
        if self.kind not in SAMPLINGS:
            raise ValueError(f"sampling: got {shown(self.kind)}; accepted are {SAMPLINGS}; the default is 'uniform'")
        if (self.fps is not None) != (self.kind == "fps") or (self.fps is not None and not 0 < self.fps < math.inf):
            raise ValueError(
                f"fps: got {self.fps} with sampling={shown(self.kind)}; accepted is a rate above 0 with sampling='fps' "
                "and None otherwise; pass both or neither"
            )
        self._check_times()

    def _check_times(self) -> None:
        start, end = self.start or 0.0, math.inf if self.end is None else self.end
        if not 0 <= start < end:
            raise ValueError(
                f"start: got {self.start} with end={self.end}; accepted is 0 <= start < end; swap or leave them out"
            )
        if self.timestamps is None:
            return
        if self.kind != "uniform" or self.start is not None or self.end is not None:
            raise ValueError("timestamps: got them with another rule; accepted are they alone; leave the other out")
        if not self.timestamps or not all(0 <= time < math.inf for time in self.timestamps):
            raise ValueError(
                f"timestamps: got {shown(list(self.timestamps))}; accepted are one or more times from 0 on; correct them"
            )

    @property
    def by_count(self) -> bool:
        """Whether the number of frames decides alone, and no time is needed."""
        return self.kind == "uniform" and self.timestamps is None and self.start is None and self.end is None

    def indices(self, times: np.ndarray, duration: float, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Indices of the frames to take.

        Args:
            times: (N,) seconds from the first frame, increasing.
            duration: Seconds from the first frame's start to the last one's end.
            keys: K indices of keyframes.

        Returns:
            (F,), int64.

        Raises:
            ValueError: If a time asked for lies beyond the end.
        """
        if self.by_count:
            return uniform_indices(len(times), self.count)
        for name, time in (("start", self.start), *(("timestamps", time) for time in self.timestamps or ())):
            if time is not None and time > max(duration, times[-1]) + TOLERANCE:
                raise ValueError(
                    f"{name}: got {time:g} s for a video of {duration:g} s; accepted are times in it; shorten it"
                )
        if self.timestamps is not None:
            return _shown_at(times, np.asarray(self.timestamps, np.float64))
        return self._part(times, duration, np.asarray(keys, np.int64))

    def _part(self, times: np.ndarray, duration: float, keys: np.ndarray) -> np.ndarray:
        start = self.start or 0.0
        end = duration if self.end is None else min(self.end, duration)
        first = int(_shown_at(times, np.asarray([start]))[0])
        last = max(int(np.searchsorted(times, end - TOLERANCE, side="left")) - 1, first)
        if self.kind == "uniform":
            return first + uniform_indices(last - first + 1, self.count)
        if self.kind == "fps":
            steps = max(math.ceil((end - start) * self.fps - TOLERANCE), 1)
            # never a step each: a damaged file may claim any length
            taken = uniform_indices(steps, self.count) if steps > self.count else np.arange(steps)
            return _shown_at(times, start + taken / self.fps)
        inside = keys[(keys >= first) & (keys <= last)]
        inside = inside if len(inside) else np.asarray([first])
        return inside[uniform_indices(len(inside), self.count)]


def _shown_at(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Index of the frame on the screen at each moment."""
    return np.clip(np.searchsorted(times, moments + TOLERANCE, side="right") - 1, 0, len(times) - 1)


@dataclass(frozen=True, slots=True)
class Clock:
    """One continuous time for the frames of a video, from ticks in presentation order.

    A frame is shown as long after the one before it as their ticks differ. Where a tick is missing or does not increase
    (the clock restarted, or two recordings were joined), or where it leaps by more than `leap` in a container whose
    clock may wrap or restart (MPEG-TS, MPEG-PS, FLV), the clock goes on by the usual duration of a frame. In any other
    container a long step is a picture that is held, as in slide shows, and is believed.

    Attributes:
        base: Seconds a tick.
        usual: Ticks that a frame usually takes.
        leap: The longest step that is believed, in ticks.
    """

    base: Fraction
    usual: int
    leap: float = math.inf

    def elapse(self, frames: Iterable[tuple[int | None, Shown]]) -> Iterator[tuple[int, Shown]]:
        """Frames that come one by one with the tick of each: ticks from the first frame instead, always increasing."""
        elapsed, before = 0, None
        for tick, frame in frames:
            if before is None:
                before = tick or 0
            else:
                step = self.usual if tick is None else tick - before
                step = step if 0 < step <= self.leap else self.usual
                elapsed += step
                before = before + step if tick is None else tick
            yield elapsed, frame

    def continuous(self, ticks: Sequence[int | None] | np.ndarray) -> tuple[np.ndarray, bool]:
        """(N,) ticks from the first frame, as `elapse` gives them, and whether none had to be mended."""
        if not isinstance(ticks, np.ndarray) and None in ticks:
            return np.asarray([elapsed for elapsed, _ in self.elapse((tick, None) for tick in ticks)], np.int64), False
        steps = np.diff(np.asarray(ticks, np.int64))
        broken = (steps <= 0) | (steps > self.leap)
        steps[broken] = self.usual
        return np.concatenate([[0], np.cumsum(steps)]), not broken.any()

    def seconds(self, elapsed: np.ndarray, last: int = 0) -> tuple[np.ndarray, float]:
        """(N,) seconds from the first frame, and the whole duration, the last frame shown for `last` ticks."""
        span = int(elapsed[-1])
        step = last or (Fraction(span, len(elapsed) - 1) if span else self.usual)
        return elapsed * self.base.numerator / self.base.denominator, float((span + step) * self.base)
