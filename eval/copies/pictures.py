"""Pictures of files compared by their pixels: whether they agree, and which part of others they show.

Shapes: F frames, S pixels of a side.
"""

from itertools import product

import numpy as np
from PIL import Image

from gve.eval.copies.matching import Copy
from gve.eval.copies.tracks import Track, View
from gve.hub_datasets.vsynflow.stills import without_bars
from gve.image_gve import open_image
from gve.video_gve import read_video

_SIDE, _FRAMES = 64, 3
_SHARES, _FINER = (1.0, 0.9, 0.8, 0.7, 0.6), (0.05, 0.025)
_BLOCK, _MOST_LEVELS = 8, 10.0

Stretch = tuple[float | None, float | None]


def read_greys(track: Track, stretch: Stretch) -> np.ndarray:
    """(F, S, S) grey frames of a stretch, without bars; OSError or ValueError if they cannot be read."""
    if track.kind == "image":
        frames = np.asarray(open_image(track.path).convert("RGB"))[None]
    else:
        frames = read_video(track.path, _FRAMES, (128, 128), start=stretch[0], end=stretch[1], resize="fast").frames
    greys = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])
    return np.stack([_resized(frame, (_SIDE, _SIDE)) for frame in without_bars(greys)])


def agree(first: Track, second: Track, copy: Copy) -> bool:
    """Whether two copies show the same everywhere: two takes of one scene have near hashes, but differ in places."""
    span = copy.spans[0] if copy.spans else (None, None, None, None)
    stretches = (span[:2], span[2:]) if copy.spans and first.kind == "video" else ((None, None), (None, None))
    try:
        one, other = (read_greys(track, when) for track, when in zip((first, second), stretches, strict=True))
    except (OSError, ValueError):
        return False
    blocks = [
        greys.reshape(len(greys), _SIDE // _BLOCK, _BLOCK, _SIDE // _BLOCK, _BLOCK).mean(axis=(2, 4))
        for greys in (one, other)
    ]
    one, other = (means - means.mean(axis=(1, 2), keepdims=True) for means in blocks)  # one may be brighter
    return bool(np.abs(one - other).max() <= _MOST_LEVELS)


def find_part(small: np.ndarray, large: np.ndarray) -> tuple[float, View]:
    """Where pictures show a part of others, maybe mirrored and stretched, and how like it is, -1 to 1; (F, S, S) both."""
    best = (-1.0, View())
    for mirrored in (False, True):
        for high, wide in product(_SHARES, repeat=2):
            best = max(best, _placed(small, large, (high, wide), mirrored=mirrored))
    for step in _FINER:
        left, top, right, bottom, mirrored = best[1]
        for high, wide in product((-step, 0.0, step), repeat=2):
            shares = min(bottom - top + high, 1.0), min(right - left + wide, 1.0)
            best = max(best, _placed(small, large, shares, mirrored=mirrored))
    return best


def _placed(
    small: np.ndarray, large: np.ndarray, shares: tuple[float, float], *, mirrored: bool
) -> tuple[float, View]:
    """The best place of pictures that show such shares of the height and width of others."""
    height, width = (round(share * _SIDE) for share in shares)
    part = np.stack([_resized(frame[:, ::-1] if mirrored else frame, (width, height)) for frame in small])
    likeness = _correlations(part, large).mean(axis=0)
    top, left = np.unravel_index(likeness.argmax(), likeness.shape)
    sides = (float(side) / _SIDE for side in (left, top, left + width, top + height))
    return float(likeness.max()), View(*sides, mirrored)


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BOX))


def _correlations(part: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Correlation of (F, h, w) with every place of (F, S, S): (F, S - h + 1, S - w + 1)."""
    height, width = part.shape[1:]
    part, large = part.astype(np.float64), large.astype(np.float64)
    part -= part.mean(axis=(1, 2), keepdims=True)
    spectrum = np.fft.rfft2(large) * np.conj(np.fft.rfft2(part, s=large.shape[1:]))
    common = np.fft.irfft2(spectrum, s=large.shape[1:])[:, : _SIDE - height + 1, : _SIDE - width + 1]
    mean = _box_sums(large, height, width) / (height * width)
    spread = _box_sums(large**2, height, width) - mean**2 * height * width
    power = np.square(part).sum(axis=(1, 2))[:, None, None] * np.maximum(spread, 1e-9)
    return common / np.sqrt(np.maximum(power, 1e-9))


def _box_sums(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    sums = np.pad(frames.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    return (
        sums[:, height:, width:] - sums[:, :-height, width:] - sums[:, height:, :-width] + sums[:, :-height, :-width]
    )
