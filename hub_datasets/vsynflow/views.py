"""What of a video the decontamination gate shows to an encoder: evenly spread frames, without black bars.

Shapes: F frames.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from gve.hub_datasets.vsynflow.stills import MOST_PIXELS, fit, read_stills, read_times, without_bars

SPANS = ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))
"""Of a test video, so that a clip of it is found as well: all of it, which is also shown mirrored, and its halves."""


def frames_of(place: Mapping[str, Any], count: int) -> list[Image.Image]:
    """Frames of a video.

    Args:
        place: The `video` of a record.
        count: F.

    Raises:
        FileNotFoundError: If the file is gone.
        ValueError: If no frame of it can be decoded.
    """
    return _spans(place, count, SPANS[:1])[0]


def views_of(place: Mapping[str, Any], count: int) -> list[list[Image.Image]]:
    """A test video as copies of it may look: whole, mirrored, and its halves; decoded once.

    Args:
        place: The `video` of a record.
        count: F of each view.

    Raises:
        FileNotFoundError: If the file is gone.
        ValueError: If no frame of it can be decoded.
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
    stills = dict(zip(places.tolist(), read_stills(record, times[places]), strict=True))
    found = []
    for numbers in wanted:
        pixels = without_bars(np.stack([stills[number].pixels for number in numbers.tolist()]))
        found.append([fit(np.ascontiguousarray(frame), MOST_PIXELS) for frame in pixels])
    return found
