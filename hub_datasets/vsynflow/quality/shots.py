"""Scene cuts and the clips between them, after the content and adaptive detectors of PySceneDetect.

Shapes: F frames, H height, W width. A frame's content value is the mean change of hue, saturation and brightness; a cut
is where it stands out from its neighbours.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

ADAPTIVE_RATIO, LEAST_CONTENT, WINDOW = 3.0, 15.0, 2
"""PySceneDetect's AdaptiveDetector: its defaults."""
LEAST_SHOT = 0.5


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


def content_value(before: np.ndarray, after: np.ndarray) -> float:
    """How much changed between two frames in HSV, (H, W, 3)."""
    return float(np.abs(after - before).mean())


def find_cuts(values: Sequence[float], times: Sequence[float]) -> list[float]:
    """Times of the cuts.

    Args:
        values: F - 1 content values, the first between frames 0 and 1.
        times: F times in seconds.

    Returns:
        Times of the frames that begin a new shot, without the first; no shot is shorter than LEAST_SHOT.
    """
    cuts: list[float] = []
    previous = times[0] if times else 0.0
    for index, value in enumerate(values):
        around = [*values[max(index - WINDOW, 0) : index], *values[index + 1 : index + 1 + WINDOW]]
        usual = float(np.mean(around)) if around else 0.0
        stands_out = value >= LEAST_CONTENT and value >= ADAPTIVE_RATIO * max(usual, 1e-5)
        if stands_out and times[index + 1] - previous >= LEAST_SHOT:
            previous = times[index + 1]
            cuts.append(previous)
    return cuts


def clip_spans(
    cuts: Sequence[float],
    duration: float,
    *,
    least: float = 2.0,
    most: float = 10.0,
    margin: float = 0.5,
    share: float = 0.5,
) -> list[tuple[float, float]]:
    """Spans for clips, none across a cut.

    Args:
        cuts: Times of the cuts, in seconds.
        duration: Seconds of the video.
        least: Seconds of the shortest clip.
        most: Seconds of the longest clip.
        margin: Seconds left out at both ends of a shot.
        share: Largest part of the video that a clip may be.

    Returns:
        (start, end) in seconds, at most one a shot, from its middle.
    """
    edges, longest = [0.0, *cuts, duration], min(most, share * duration)
    spans = []
    for start, end in pairwise(edges):
        room = min(end - start - 2 * margin, longest)
        if room >= least:
            middle = (start + end) / 2
            spans.append((middle - room / 2, middle + room / 2))
    return spans
