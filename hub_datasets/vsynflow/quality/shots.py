"""Scene cuts: which frame begins a new shot.

Shapes: F frames, H height, W width. A frame's content value is the mean change of hue, saturation and brightness. It
stands out at a cut, as in PySceneDetect's adaptive detector; but hue and saturation of dark pixels are noise that
jumps at every key frame, so a cut must change red, green and blue as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WINDOW = 2  # a cut stands out from so many frames before and after; PySceneDetect's default


@dataclass(frozen=True)
class SceneRules:
    """How cuts are found."""

    ratio: float = 3.0  # content value over its neighbours'
    least_content: float = 15.0  # content value of a cut
    least_change: float = 10.0  # mean change of red, green and blue, 0 to 255
    least_shot: float = 0.5  # seconds


class CutDetector:
    """Collects the content values of small frames, and judges them when all are in."""

    def __init__(self, rules: SceneRules) -> None:
        self._rules = rules
        self._contents: list[float] = []
        self._changes: list[float] = []
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def see(self, small: np.ndarray) -> None:
        """Compare a small frame, (H, W, 3) uint8 RGB, with the one before."""
        hsv, rgb = to_hsv(small), small.astype(np.float32)
        if self._last is not None:
            self._contents.append(mean_change(self._last[0], hsv))
            self._changes.append(mean_change(self._last[1], rgb))
        self._last = (hsv, rgb)

    def cuts(self, times: Sequence[float]) -> list[float]:
        """Times of the frames that begin a new shot, given the times of all F frames."""
        return find_cuts(self._contents, self._changes, times, self._rules)


def to_hsv(rgb: np.ndarray) -> np.ndarray:
    """Hue (0-179), saturation and value (0-255) as OpenCV counts them; (..., 3) uint8 to (..., 3) float32."""
    values = rgb.astype(np.float32)
    value, low = values.max(axis=-1), values.min(axis=-1)
    spread = value - low
    safe = np.where(spread == 0, 1, spread)
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    hue = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = np.where(spread == 0, 0, (hue * 30) % 180)
    saturation = np.where(value == 0, 0, 255 * spread / np.where(value == 0, 1, value))
    return np.stack([hue, saturation, value], axis=-1)


def mean_change(before: np.ndarray, after: np.ndarray) -> float:
    """How much changed between two frames, (H, W, 3); of HSV frames, the content value."""
    return float(np.abs(after - before).mean())


def find_cuts(
    contents: Sequence[float], changes: Sequence[float], times: Sequence[float], rules: SceneRules
) -> list[float]:
    """Times of the frames that begin a new shot, without the first, by F - 1 contents and changes and F times."""
    found = []
    for index, value in enumerate(contents):
        around = [*contents[max(index - WINDOW, 0) : index], *contents[index + 1 : index + 1 + WINDOW]]
        usual = float(np.mean(around)) if around else 0.0
        stands_out = value >= rules.least_content and value >= rules.ratio * max(usual, 1e-5)
        if stands_out and changes[index] >= rules.least_change:
            found.append(times[index + 1])
    return _apart(found, times, rules.least_shot)


def _apart(found: Any, times: Sequence[float], least: float) -> list[float]:
    """The ascending times that come long enough after the one before, or after the start."""
    cuts: list[float] = []
    previous = times[0] if times else 0.0
    for time in found:
        if time - previous >= least:
            previous = time
            cuts.append(time)
    return cuts
