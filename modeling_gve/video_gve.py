"""Frames from video files with PyAV: the wanted ones alone, in presentation order, with their true times.

Shape legend: F frames, H height, W width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np

from .clock_gve import Sampling, uniform_indices
from .container_gve import Container
from .convert_gve import Converter, SizeRule, frame_rgb, resize_frames, size_rule, stored_orientation
from .index_gve import Reading, UnreliableError, by_index
from .scan_gve import by_scan
from .source_gve import Budget, Limits, Opened, VideoSource, open_source, source_name, unreadable
from .stream_gve import FrameStream, Row, decode_row, frame_times, in_a_row, open_animation, read_animation

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
    """What the headers of a video say.

    Attributes:
        total: Frames, or None where they say nothing and no rate is known.
        exact: Whether `total` is a count and not a guess.
        fps: Mean frames a second, or None.
        duration: Seconds, or None; a guess where the clock may restart (MPEG-TS, MPEG-PS, FLV).
        width: Width in pixels of the picture as it is shown.
        height: Height in pixels of it.
        rotation: Degrees counter-clockwise by which the stored picture is turned for showing.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container.
        pixel_aspect: Width of a pixel over its height; frames are never stretched by it.
        mirrored: Whether it is mirrored left to right after that turn, as selfies are.
    """

    total: int | None
    exact: bool
    fps: float | None
    duration: float | None
    width: int
    height: int
    rotation: int
    codec: str
    container: str
    pixel_aspect: float
    mirrored: bool = False


def video_info(source: VideoSource, *, limits: Limits | None = None, stream: int | None = None) -> VideoInfo:
    """What a video's headers say, without decoding a frame: about a millisecond.

    Args:
        source: A path, bytes, a binary file object or {"bytes", "path"}.
        limits: Bounds on the file.
        stream: Which video stream, counted from 0; by default the first that is no cover picture.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is no video, has no video stream or no size, or exceeds its limits.
    """
    limits = limits or Limits()
    with open_source(source, limits) as opened:
        budget = Budget(opened.name, limits)
        if opened.webp:
            with open_animation(opened, budget) as (image, places):
                return VideoInfo(len(places), True, None, None, *image.size, 0, "webp", "webp", 1.0)
        with Container(opened, budget, quick=True, stream=stream) as container:
            found = container.stream
            # this moves the place in the file under the container, of which nothing more is read
            shown = stored_orientation(opened, container.container.format.name, found.id)
            duration = _duration(container)
            fps = float(found.average_rate) if found.average_rate else None
            total, exact = _count(container, duration, fps)
            sides = (found.width, found.height)
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
    sampling: str = "uniform",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
    start: float | None = None,
    end: float | None = None,
    resize: str = "exact",
    max_size: int | None = None,
    limits: Limits | None = None,
    stream: int | None = None,
) -> Frames:
    """Read frames of a video, by default spread evenly over it (paper, section 4.1: 8 uniform frames).

    They are those that a decoding of the whole file would give, whatever its header claims: missing or wrong counts,
    variable frame rates and edit lists give the right ones. Only what they need is decoded. A video with fewer frames
    than asked gives some repeatedly.

    Args:
        source: A path, bytes, a binary file object, {"bytes", "path"}, or a `data:` or `file:` address.
        num_frames: Frames wanted; with `sampling="fps"` the most wanted.
        size: (height, width), a rule that gives it from the upright (height, width), or None for the video's own.
        sampling: "uniform"; "fps", what is on the screen `fps` times a second; or "keyframes", uniform over the
            keyframes, which are the cheapest to decode.
        fps: Frames a second.
        timestamps: Seconds from the first frame: what is on the screen then, and no other rule.
        start: Seconds at which the sampled part begins.
        end: Seconds at which it ends.
        resize: "exact" resizes the full RGB picture; "fast" resizes while converting colours.
        max_size: Most pixels a frame: the largest size of whole visual tokens, as Qwen2.5-VL chooses it.
        limits: Bounds on what the file may cost.
        stream: Which video stream, counted from 0; by default the first that is no cover picture.

    Returns:
        `num_frames` frames with their times; with "fps" at most so many, with `timestamps` one a time.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is no video, has no video stream or no frame that can be decoded, is truncated, or
            exceeds its limits, or if the arguments contradict one another.
    """
    moments = None if timestamps is None else tuple(float(time) for time in timestamps)
    rule = Sampling(num_frames, sampling, fps, moments, start, end)
    found = _read_source(source, rule, size_rule(size, max_size), resize, limits or Limits(), stream)
    times, places = found.times.tolist(), found.indices.tolist()
    return Frames(np.stack(found.frames), times, found.duration, places, found.strategy, found.damaged, found.decoded)


def _read_source(
    source: VideoSource, sampling: Sampling, shape: SizeRule | None, resize: str, limits: Limits, stream: int | None
) -> Reading:
    count = sampling.count if sampling.timestamps is None else len(sampling.timestamps)
    with open_source(source, limits) as opened:
        budget = Budget(opened.name, limits)
        return _read(opened, budget, sampling, lambda: Converter(shape, resize, count, budget), stream)


def _read(
    opened: Opened, budget: Budget, sampling: Sampling, converter: Callable[[], Converter], stream: int | None
) -> Reading:
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
        with Container(opened, budget, quick=quick, stream=stream) as container:
            container.check_complete()
            probed = not container.quick
            try:
                return way(container, sampling, converter())
            except UnreliableError:
                continue
    return _in_a_row(opened, budget, sampling, converter, stream)


def _in_a_row(
    opened: Opened, budget: Budget, sampling: Sampling, converter: Callable[[], Converter], stream: int | None
) -> Reading:
    def fresh() -> Container:
        return Container(opened, budget, quick=False, stream=stream)

    def read(wanted: set[int]) -> Row:
        with fresh() as container:
            return decode_row(container, wanted, converter())

    with fresh() as container:
        shown = sum(not packet.is_discard for packet in container.packets())
    return in_a_row(opened.name, read, shown, sampling)
