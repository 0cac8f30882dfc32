"""What of a video the decontamination gate shows to an encoder: evenly spread frames, without black bars.

Shapes: F frames, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from gve.hub_datasets.vsynflow.stills import MOST_PIXELS, fit, read_stills, read_times

SPANS = ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))
"""Of a test video, so that a clip of it is found as well: all of it, which is also shown mirrored, and its halves."""
_BRIGHT, _SHARE, _LEAST = 24, 0.05, 0.25
"""A row or column is picture where this share of it is brighter than this in some frame, as for PDQ; a video that has
less than this share of picture is left whole."""


def frames_of(place: Mapping[str, Any], count: int) -> list[Image.Image]:
    """Frames of a video.

    Args:
        place: The `video` of a record.
        count: F.

    Raises:
        av.FFmpegError: If the file cannot be decoded.
        ValueError: If it has no frame.
    """
    return _spans(place, count, SPANS[:1])[0]


def views_of(place: Mapping[str, Any], count: int) -> list[list[Image.Image]]:
    """A test video as copies of it may look: whole, mirrored, and its halves; decoded once.

    Args:
        place: The `video` of a record.
        count: F of each view.

    Raises:
        av.FFmpegError: If the file cannot be decoded.
        ValueError: If it has no frame.
    """
    whole, *halves = _spans(place, count, SPANS)
    return [whole, [ImageOps.mirror(frame) for frame in whole], *halves]


def _spans(place: Mapping[str, Any], count: int, spans: Sequence[tuple[float, float]]) -> list[list[Image.Image]]:
    """Frames at the middles of equal parts of each span."""
    record = {"id": place["path"], "video": place}
    times = read_times(record)
    shares = [start + (np.arange(count) + 0.5) / count * (end - start) for start, end in spans]
    wanted = [(share * len(times)).astype(int) for share in shares]
    places = np.unique(np.concatenate(wanted))
    stills = dict(zip(places.tolist(), read_stills(record, times[places].tolist()), strict=True))
    found = []
    for numbers in wanted:
        pixels = without_bars(np.stack([stills[number].pixels for number in numbers.tolist()]))
        found.append([fit(np.ascontiguousarray(frame), MOST_PIXELS) for frame in pixels])
    return found


def without_bars(frames: np.ndarray) -> np.ndarray:
    """Cut off the bars that stay black in all frames.

    Args:
        frames: (F, H, W, 3) uint8.

    Returns:
        (F, H', W', 3).
    """
    bright = frames.max(axis=(0, 3)) > _BRIGHT  # (H, W)
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > _SHARE) for axis in (1, 0))
    if len(rows) < _LEAST * frames.shape[1] or len(columns) < _LEAST * frames.shape[2]:
        return frames
    return frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
