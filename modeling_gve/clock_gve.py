"""Which frames of a video are taken, and at what times.

Shape legend: N frames of the video, F frames taken, K keyframes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

SAMPLINGS = ("uniform", "fps", "keyframes")

TOLERANCE = 1e-6
"""Seconds by which a time may differ from a frame's own and still mean it."""


def uniform_indices(total: int, count: int) -> np.ndarray:
    """Indices of `count` frames spread evenly over `total`, first and last included.

    Args:
        total: Frames there are.
        count: Frames wanted; more than `total` repeats some.

    Returns:
        (count,), int64, never decreasing.
    """
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
            raise ValueError(f"sampling: got {self.kind!r}; accepted are {SAMPLINGS}; the default is 'uniform'")
        if (self.fps is not None) != (self.kind == "fps") or (self.fps is not None and not 0 < self.fps < math.inf):
            raise ValueError(
                f"fps: got {self.fps} with sampling={self.kind!r}; accepted is a rate above 0 with sampling='fps' "
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
                f"timestamps: got {list(self.timestamps)}; accepted are one or more times from 0 on; correct them"
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


@dataclass
class Clock:
    """Times of decoded frames, from presentation times where the file has them.

    Attributes:
        base: Seconds a tick.
        period: Seconds a frame, for files without ticks.
        ticks: N presentation times.
        last: Ticks that the last frame is shown, or 0.
    """

    base: Fraction
    period: Fraction
    ticks: Sequence[int | None] | np.ndarray
    last: int = 0

    def seconds(self) -> tuple[np.ndarray, float]:
        """(N,) seconds from the first frame, and the whole duration."""
        total = len(self.ticks)
        if any(tick is None for tick in self.ticks):
            return np.arange(total) * float(self.period), float(total * self.period)
        first, end = int(self.ticks[0]), int(self.ticks[-1])
        span = (end - first) * self.base
        step = self.last * self.base or (span / (total - 1) if end > first else Fraction(0))
        elapsed = np.asarray(self.ticks, np.int64) - first
        return elapsed * self.base.numerator / self.base.denominator, float(span + step)
