"""Single frames of a record's video: sampling, sharpness, JPEG files, clips, and what the gate's encoder sees.

Shapes: F frames, H and W in pixels; frames are uint8 RGB, times are seconds from the video's first frame.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from gve.hub_datasets.vsynflow.records import open_place
from gve.video_gve import VideoSource, frame_times, read_video
from gve.video_writer import encode_mp4

MOST_PIXELS = 200 * 28 * 28  # 200 visual tokens of 28 x 28 pixels for the captioner (paper, section A.7)
MOST_CLIP_PIXELS = 854 * 480  # of a frame of a clip; a model sees fewer, and encoding is what a clip costs
_RATE_LIMIT = 30
_CLIP_CRF = 18
# a row or column is picture where `_SHARE` of it is brighter than `_BRIGHT` in some frame; a video with less than
# `_LEAST` of picture is left whole
_BRIGHT, _SHARE, _LEAST = 24, 0.05, 0.25
SPANS = ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))  # the gate knows the whole and its halves, and so finds clips too


class Still(NamedTuple):
    """A frame, (H, W, 3), and its time."""

    time: float
    pixels: np.ndarray


def read_times(record: Mapping[str, Any]) -> np.ndarray:
    """Times of all frames of a record's video, (F,), ascending; nothing is decoded."""
    return frame_times(open_place(record["video"]))


def read_stills(record: Mapping[str, Any], times: Sequence[float] | np.ndarray) -> list[Still]:
    """The upright frames at ascending times in seconds; past the end the last frame repeats.

    Raises:
        FileNotFoundError: If the file is gone.
        ValueError: If it is no video, or no frame of it can be decoded.
    """
    source = open_place(record["video"])
    return _stills(source, np.minimum(times, frame_times(source)[-1]))


def sample_stills(record: Mapping[str, Any], count: int) -> list[Still]:
    """Frames at the middles of `count` equal parts of the video. See `read_stills` for errors."""
    source = open_place(record["video"])
    times = frame_times(source)
    places = ((np.arange(count) + 0.5) / count * len(times)).astype(int)
    return _stills(source, times[places])


def _stills(source: VideoSource, times: np.ndarray) -> list[Still]:
    found = read_video(source, timestamps=times.tolist())
    return [Still(time, pixels) for time, pixels in zip(found.timestamps, found.frames, strict=True)]


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luma, (H, W) float32 in 0 to 255."""
    return np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)


def sharpness(pixels: np.ndarray) -> float:
    """Variance of the luma's Laplacian; low for a blurred frame."""
    luma = grey(pixels)
    inner = luma[1:-1, 1:-1]
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(edges.var())


def fit(pixels: np.ndarray, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """A picture of the same shape with at most so many pixels."""
    image = Image.fromarray(pixels)
    scale = (most_pixels / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def jpeg(pixels: np.ndarray, *, most_pixels: int = MOST_PIXELS, quality: int = 90) -> bytes:
    """A JPEG file of a frame, scaled down if it has too many pixels."""
    buffer = io.BytesIO()
    fit(pixels, most_pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def without_bars(frames: np.ndarray) -> np.ndarray:
    """Cut off bars that stay black in all frames, (F, H, W) or (F, H, W, 3) uint8."""
    bright = frames.reshape(*frames.shape[:3], -1).max(axis=(0, 3)) > _BRIGHT  # (H, W)
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > _SHARE) for axis in (1, 0))
    if len(rows) < _LEAST * frames.shape[1] or len(columns) < _LEAST * frames.shape[2]:
        return frames
    return frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def cut_clip(record: Mapping[str, Any], start: float, end: float) -> bytes:
    """Encode the frames from `start` up to `end` seconds as an MP4 file; the same call gives the same bytes.

    Raises:
        FileNotFoundError: If the file is gone.
        ValueError: If it cannot be decoded, or has fewer than two frames in the span.
    """
    source = open_place(record["video"])
    times = frame_times(source)
    inside = times[(times >= start - 1e-6) & (times < end - 1e-6)]
    if len(inside) < 2:
        raise ValueError(f"start, end: got {start} and {end} s, which hold {len(inside)} frames. A clip needs two.")
    rate = min(_RATE_LIMIT, max(1, round((len(inside) - 1) / (inside[-1] - inside[0]))))
    count = max(2, round((end - start) * rate))
    wanted = start + (end - start) / count * (np.arange(count) + 0.5)
    stills = _stills(source, np.minimum(wanted, times[-1]))
    return encode_mp4([still.pixels for still in stills], rate, crf=_CLIP_CRF, max_pixels=MOST_CLIP_PIXELS)


def frames_of(place: Mapping[str, Any], count: int) -> list[Image.Image]:
    """F evenly spread frames of a record's `video` for the gate's encoder, without black bars."""
    return _spans(place, count, SPANS[:1])[0]


def views_of(place: Mapping[str, Any], count: int) -> list[list[Image.Image]]:
    """A test video as copies of it may look: whole, mirrored, and its halves, F frames each; decoded once."""
    whole, *halves = _spans(place, count, SPANS)
    return [whole, [ImageOps.mirror(frame) for frame in whole], *halves]


def _spans(place: Mapping[str, Any], count: int, spans: Sequence[tuple[float, float]]) -> list[list[Image.Image]]:
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
