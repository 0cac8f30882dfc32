"""Frames from video files with PyAV: the wanted ones alone, in presentation order, with their true times.

Shape legend: F frames, H height, W width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .clock_gve import Sampling, uniform_indices
from .container_gve import Container, VideoInfo, video_info
from .convert_gve import Converter, SizeRule, frame_rgb, resize_frames, size_rule
from .index_gve import Reading, UnreliableError, by_index
from .scan_gve import by_scan
from .source_gve import Budget, Limits, Opened, VideoSource, open_source, source_name
from .stream_gve import FrameStream, Row, decode_row, frame_times, in_a_row, read_animation

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
        source: A path, bytes, a binary file object or {"bytes", "path"}.
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
