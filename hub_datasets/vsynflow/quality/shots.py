"""Scene cuts: which frame begins a new shot, by a detector of our own or by PySceneDetect.

Shapes: F frames, H height, W width. A frame's content value is the mean change of hue, saturation and brightness; a cut
is where it stands out from its neighbours, after the adaptive detector of PySceneDetect. Hue and saturation of dark
pixels are noise that jumps at every key frame, so that our own detector asks for a change of colours as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

DETECTORS = ("own", "pyscenedetect")
WINDOW = 2
"""Frames before and after, which a cut stands out from; PySceneDetect's default."""
_LIBRARY_SIDE = 256
"""PySceneDetect's scene manager gives its detectors frames of about this width."""


@dataclass(frozen=True)
class SceneRules:
    """How cuts are found.

    Attributes:
        detector: One of DETECTORS.
        ratio: Times its neighbours' content value that a cut has.
        least_content: Its least content value.
        least_change: Its least mean change of red, green and blue, 0 to 255; the detector of our own only.
        least_shot: Seconds of the shortest shot.

    Raises:
        ValueError: For an unknown detector.
    """

    detector: str = "own"
    ratio: float = 3.0
    least_content: float = 15.0
    least_change: float = 10.0
    least_shot: float = 0.5

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ValueError(f"scenes.detector: got {self.detector!r}; {', '.join(DETECTORS)} are accepted")


class Detector(Protocol):
    """What is shown every frame of a video, in order."""

    def see(self, frame: Any, small: np.ndarray) -> None:
        """Take in a frame of PyAV, and the same one small, (H, W, 3) uint8 RGB."""
        ...

    def cuts(self, times: Sequence[float]) -> list[float]:
        """Times of the frames that begin a new shot, of the times of all F frames."""
        ...


def make_detector(rules: SceneRules) -> Detector:
    """The detector that the rules name.

    Raises:
        ImportError: If PySceneDetect is asked for and not installed.
    """
    return OwnDetector(rules) if rules.detector == "own" else LibraryDetector(rules)


class OwnDetector:
    """Content values of small frames, judged when all are there."""

    def __init__(self, rules: SceneRules) -> None:
        self._rules = rules
        self._contents: list[float] = []
        self._changes: list[float] = []
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def see(self, frame: Any, small: np.ndarray) -> None:
        """Compare it with the frame before."""
        hsv, rgb = to_hsv(small), small.astype(np.float32)
        if self._last is not None:
            self._contents.append(mean_change(self._last[0], hsv))
            self._changes.append(mean_change(self._last[1], rgb))
        self._last = (hsv, rgb)

    def cuts(self, times: Sequence[float]) -> list[float]:
        """Apply the rules."""
        return find_cuts(self._contents, self._changes, times, self._rules)


class LibraryDetector:
    """PySceneDetect's AdaptiveDetector, shown the frames that are decoded anyway.

    It is told numbers of frames in place of times, so that a varying frame rate does not confuse it, and the length of
    a shot is looked at here.
    """

    def __init__(self, rules: SceneRules) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        self._rules, self._timecode, self._count = rules, FrameTimecode, 0
        self._detector = AdaptiveDetector(
            adaptive_threshold=rules.ratio, min_scene_len=0, window_width=WINDOW, min_content_val=rules.least_content
        )
        self._found: list[int] = []

    def see(self, frame: Any, small: np.ndarray) -> None:
        """Show it at the size that the library itself would."""
        scale = min(1.0, _LIBRARY_SIDE / max(frame.width, frame.height))
        width, height = max(round(frame.width * scale), 1), max(round(frame.height * scale), 1)
        image = frame.reformat(width, height, format="bgr24", interpolation="BILINEAR").to_ndarray()
        found = self._detector.process_frame(self._timecode(self._count, fps=1.0), image)
        self._found += [timecode.frame_num for timecode in found]
        self._count += 1

    def cuts(self, times: Sequence[float]) -> list[float]:
        """Leave out those that are too near to the one before."""
        return _apart((times[number] for number in self._found), times, self._rules.least_shot)


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
    """How much changed between two frames, (H, W, 3): the content value where they are HSV."""
    return float(np.abs(after - before).mean())


def find_cuts(
    contents: Sequence[float], changes: Sequence[float], times: Sequence[float], rules: SceneRules
) -> list[float]:
    """Times of the cuts.

    Args:
        contents: F - 1 content values, the first between frames 0 and 1.
        changes: F - 1 mean changes of the colours.
        times: F times in seconds.
        rules: The limits.

    Returns:
        Times of the frames that begin a new shot, without the first.
    """
    found = []
    for index, value in enumerate(contents):
        around = [*contents[max(index - WINDOW, 0) : index], *contents[index + 1 : index + 1 + WINDOW]]
        usual = float(np.mean(around)) if around else 0.0
        stands_out = value >= rules.least_content and value >= rules.ratio * max(usual, 1e-5)
        if stands_out and changes[index] >= rules.least_change:
            found.append(times[index + 1])
    return _apart(found, times, rules.least_shot)


def _apart(found: Any, times: Sequence[float], least: float) -> list[float]:
    """Those of the ascending times that come long enough after the one before, the video's start included."""
    cuts: list[float] = []
    previous = times[0] if times else 0.0
    for time in found:
        if time - previous >= least:
            previous = time
            cuts.append(time)
    return cuts
