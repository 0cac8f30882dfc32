"""Frames from video files with PyAV: the wanted ones alone, in presentation order, with their true times.

Shape legend: F frames, H height, W width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np

from .container_gve import Container
from .convert_gve import Converter, SizeRule, frame_rgb, resize_frames, stored_orientation
from .index_gve import Reading, Sampling, UnreliableError, by_index, uniform_indices
from .scan_gve import by_scan
from .source_gve import Budget, Limits, Opened, VideoSource, open_source, source_name, unreadable
from .stream_gve import (
    FrameStream,
    FullDecoding,
    decode_all,
    decode_in_order,
    frame_times,
    open_animation,
    read_animation,
)

__all__ = [
    "FrameStream",
    "Frames",
    "Limits",
    "VideoInfo",
    "VideoSource",
    "frame_rgb",
    "frame_times",
    "read_video",
    "resize_frames",
    "source_name",
    "uniform_indices",
    "video_info",
]


@dataclass(frozen=True, slots=True)
class Frames:
    """Sampled frames of a video.

    Attributes:
        frames: (F, H, W, 3), uint8 RGB.
        timestamps: F times in seconds, 0 at the first frame of the video.
        duration: Seconds from the start of the first frame to the end of the last; 0 when unknown.
        indices: F places of the frames in the video, or None where they are not known.
        strategy: How they were found: "index", "scan", "seek", "sequential", or "" for frames made elsewhere.
        damaged: Whether broken data was met on the way; what lies outside the decoded groups is not looked at, and
            some codecs hide their errors.
        decoded: Packets given to the decoder.
    """

    frames: np.ndarray
    timestamps: list[float]
    duration: float
    indices: list[int] | None = None
    strategy: str = ""
    damaged: bool = False
    decoded: int = 0


class VideoInfo(NamedTuple):
    """What the headers of a video say."""

    total: int | None  # frames, or None if unknown and no rate is known
    exact: bool  # whether `total` is a count and not a guess
    fps: float | None
    duration: float | None  # seconds, or None; a guess where the clock may restart (MPEG-TS, MPEG-PS, FLV)
    width: int  # pixels of the picture as it is shown
    height: int
    rotation: int  # degrees counter-clockwise by which the stored picture is turned for showing
    codec: str
    container: str
    pixel_aspect: float  # width of a pixel over its height; frames are never stretched by it
    mirrored: bool = False  # left to right after that turn, as selfies are


def video_info(source: VideoSource, *, limits: Limits | None = None) -> VideoInfo:
    """Read a video's headers in about a millisecond, no frame decoded; `read_video` lists arguments and errors."""
    limits = limits or Limits()
    with open_source(source, limits) as opened:
        budget = Budget(opened.name, limits)
        if opened.webp:
            with open_animation(opened, budget) as (image, places):
                return VideoInfo(len(places), True, None, None, *image.size, 0, "webp", "webp", 1.0)
        with Container(opened, budget, quick=True) as container:
            found = container.stream
            duration = _duration(container)
            fps = float(found.average_rate) if found.average_rate else None
            total, exact = _count(container, duration, fps)
            sides = (found.width, found.height)
            shown = stored_orientation(opened, container.container.format.name, found.id)
            if not all(sides):
                raise unreadable(opened.name, "no size of its frames in its headers")
            return VideoInfo(
                total,
                exact,
                fps,
                duration,
                *(sides[::-1] if shown.swapped else sides),
                rotation=shown.degrees,
                codec=container.context.codec.canonical_name,
                container=container.container.format.name,
                pixel_aspect=float(found.sample_aspect_ratio or 1),
                mirrored=shown.mirrored,
            )


def _duration(container: Container) -> float | None:
    if container.stream.duration:
        return float(container.stream.duration * container.base)
    whole = container.container.duration
    return whole / av.time_base if whole and whole > 0 else None


def _count(container: Container, duration: float | None, fps: float | None) -> tuple[int | None, bool]:
    stream = container.stream
    entries = stream.index_entries
    if stream.frames and "mp4" in container.container.format.name and len(entries) == stream.frames:
        return stream.frames, not (entries[0].is_discard or entries[len(entries) - 1].is_discard)
    if stream.frames:
        return stream.frames, False
    return (max(round(duration * fps), 1), False) if duration and fps else (None, False)


def read_video(
    source: VideoSource,
    num_frames: int = 8,
    size: tuple[int, int] | SizeRule | None = None,
    *,
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
    start: float | None = None,
    end: float | None = None,
    resize: str = "exact",
    limits: Limits | None = None,
) -> Frames:
    """Read frames of a video, by default spread evenly over it (paper, section 4.1: 8 uniform frames).

    They equal the frames of a full decoding, whatever the header claims: missing or wrong counts, variable frame rates
    and edit lists do not matter. Only what the frames need is decoded. A video with too few frames repeats some.

    Args:
        source: A path, bytes, a binary file object, {"bytes", "path"}, or a `data:` or `file:` address.
        num_frames: Frames to take; with `fps`, at most so many.
        size: (height, width), a rule that gives it from the upright (height, width), or None for the video's own.
        fps: Take what is on the screen so many times a second, instead of spreading the frames evenly.
        timestamps: Seconds from the first frame: take what is on the screen then, and nothing else.
        start: Seconds at which the sampled window begins.
        end: Seconds at which it ends.
        resize: "exact" resizes the full RGB picture, as a model needs it. "fast" resizes while converting colours: half
            the cost, about one level brighter, good for measuring and for copies to look at.
        limits: Bounds on what the file may cost.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is not a video, has no frame that can be decoded, is truncated or exceeds its limits, or
            if the arguments contradict one another.
    """
    moments = None if timestamps is None else tuple(float(time) for time in timestamps)
    rule = Sampling(num_frames, fps, moments, start, end)
    if isinstance(size, tuple | list) and min(size) < 1:
        raise ValueError(f"size: got {tuple(size)}; accepted is (height, width) of at least 1 pixel; correct it")
    shape = size if size is None or callable(size) else lambda *_: tuple(size)
    count = num_frames if moments is None else len(moments)
    limits = limits or Limits()
    with open_source(source, limits) as opened:
        budget = Budget(opened.name, limits)
        found = _read(opened, budget, rule, lambda: Converter(shape, resize, count, budget))
    times, places = found.times.tolist(), found.indices.tolist()
    return Frames(np.stack(found.frames), times, found.duration, places, found.strategy, found.damaged, found.decoded)


def _read(opened: Opened, budget: Budget, sampling: Sampling, converter: Callable[[], Converter]) -> Reading:
    """Try the ways of reading, the cheapest first."""
    if opened.animation:
        return read_animation(opened, budget, sampling, converter)
    ways = [(by_scan, True), (by_scan, False)]
    if sampling.by_count and opened.indexed:
        ways.insert(0, (by_index, True))
    probed = False
    for way, quick in ways:
        if probed and not quick:
            continue
        with Container(opened, budget, quick=quick) as container:
            container.check_complete()
            probed = not container.quick
            try:
                return way(container, sampling, converter())
            except UnreliableError:
                continue
    return _decode_in_order(opened, budget, sampling, converter)


def _decode_in_order(
    opened: Opened, budget: Budget, sampling: Sampling, converter: Callable[[], Converter]
) -> Reading:
    def fresh() -> Container:
        return Container(opened, budget, quick=False)

    def read(wanted: set[int]) -> FullDecoding:
        with fresh() as container:
            return decode_all(container, wanted, converter())

    with fresh() as container:
        shown = sum(not packet.is_discard for packet in container.packets())
    return decode_in_order(opened.name, read, shown, sampling)
