"""Frames from video files with PyAV: uniform, in presentation order, with their true times.

Shape legend: F frames, H height, W width.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import PIL.ImageSequence
import torch
import torch.nn.functional as F
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

VideoSource = str | PathLike[str] | bytes | io.IOBase | dict[str, Any]
"""A path, encoded bytes, an open binary file, or a `datasets` row {"bytes", "path"}."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Sampled frames of a video.

    Attributes:
        frames: (F, H, W, 3), uint8 RGB.
        timestamps: F times in seconds, 0 at the first frame of the video.
        duration: Seconds from the start of the first frame to the end of the last; 0 when unknown.
    """

    frames: np.ndarray
    timestamps: list[float]
    duration: float


def uniform_indices(total: int, count: int) -> np.ndarray:
    """Indices of `count` frames spread evenly over `total`, first and last included.

    Args:
        total: Frames there are.
        count: Frames wanted; more than `total` repeats some.

    Returns:
        (count,), int64, never decreasing.
    """
    return np.linspace(0, total - 1, count).round().astype(np.int64)


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic, antialiased, in uint8: within one or two grey levels of Pillow's.

    Args:
        frames: (F, H, W, 3), uint8.
        height: New height.
        width: New width.

    Returns:
        (F, height, width, 3), uint8.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    # a channels-last view of uint8 is the memory layout of torch's fast kernel
    planes = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    out = F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(out.permute(0, 2, 3, 1).numpy())


def source_name(source: VideoSource) -> str:
    """A name for messages.

    Args:
        source: Any accepted source.

    Returns:
        The path, or what kind of source it is.
    """
    if isinstance(source, dict):
        return str(source.get("path") or "<bytes>")
    if isinstance(source, (str, PathLike)):
        return fspath(source)
    return "<bytes>" if isinstance(source, bytes) else str(getattr(source, "name", "<file object>"))


def _openable(source: VideoSource) -> str | io.IOBase:
    if isinstance(source, dict):
        if source.get("bytes") is None and source.get("path") is None:
            raise ValueError("video: got {'bytes': None, 'path': None}; one of them must be set; pass the row's file")
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, (str, PathLike)):
        path = fspath(source)
        if not Path(path).is_file():
            raise FileNotFoundError(f"video: no file {path!r}; pass a path that exists, or the file's bytes")
        return path
    if not hasattr(source, "read"):
        raise ValueError(
            f"video: got {type(source).__name__}; accepted are a path, bytes, a binary file object, or "
            "{'bytes', 'path'}; decode anything else to an array first"
        )
    source.seek(0)
    return source


def _unreadable(name: str, reason: str) -> ValueError:
    return ValueError(
        f"video: {name!r}: {reason}; accepted are files that FFmpeg decodes; repair or leave out this one"
    )


class _Stream:
    """One open container and its first real video stream; never shared between threads."""

    def __init__(self, source: VideoSource) -> None:
        self.name = source_name(source)
        opened = _openable(source)
        try:
            self.container = av.open(opened)
        except (av.error.FFmpegError, ValueError) as error:
            raise self.error(f"not a video, or cut off before its index ({error})") from error
        streams = [
            s
            for s in self.container.streams.video
            if s.codec_context is not None and not s.disposition & Disposition.attached_pic
        ]
        if not streams:
            self.container.close()
            raise self.error("no video stream in it")
        self.stream = streams[0]
        # more threads deadlock when many videos are decoded at once; parallelism belongs across videos
        self.stream.thread_type = "NONE"

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def error(self, reason: str) -> ValueError:
        return _unreadable(self.name, reason)

    def check_complete(self) -> None:
        """Refuse a file that ends before the last frame of its index.

        Raises:
            ValueError: If it does.
        """
        entries, size = self.stream.index_entries, self.container.size
        if not entries or size is None or size <= 0:
            return
        end = max(entry.pos + entry.size for entry in (entries[0], entries[len(entries) - 1]))
        if end > size:
            raise self.error(f"truncated, {end} bytes in its index but {size} in the file")

    def packets(self) -> Iterator[av.Packet]:
        """Packets of the stream, without the flushing one; damage ends them."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError):
                return
            if packet.size:
                yield packet

    def frames(self, packets: Iterable[av.Packet]) -> Iterator[av.VideoFrame]:
        """All frames that can be decoded, in presentation order; damaged packets are skipped."""
        for packet in packets:
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                continue
        try:
            yield from self.stream.codec_context.decode(None)
        except (av.error.FFmpegError, EOFError):
            return


@dataclass
class _Clock:
    """Times of the decoded frames, from presentation times where the file has them."""

    base: Fraction
    period: Fraction
    ticks: list[int | None]
    last: int = 0

    def seconds(self) -> tuple[np.ndarray, float]:
        """(frames,) seconds from the first frame, and the whole duration."""
        if None in self.ticks:
            total = len(self.ticks)
            return np.arange(total) * float(self.period), float(total * self.period)
        first, end = self.ticks[0], self.ticks[-1]
        step = self.last * self.base or (Fraction(end - first, len(self.ticks) - 1) * self.base if end > first else 0)
        times = np.asarray([float((tick - first) * self.base) for tick in self.ticks])
        return times, float((end - first) * self.base + step)


def _upright_rgb(frame: av.VideoFrame, reformatter: VideoReformatter, shape: tuple[int, int] | None) -> np.ndarray:
    rgb = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    turns = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy turns
    if turns:
        rgb = np.ascontiguousarray(np.rot90(rgb, turns))
    # a stream may change its frame size; the first sampled frame decides
    return rgb if shape is None else resize_frames(rgb[None], *shape)[0]


def _decode(
    stream: _Stream, packets: Iterable[av.Packet], wanted: set[int], size: tuple[int, int] | None
) -> tuple[dict[int, np.ndarray], _Clock]:
    """Decode every frame, convert the wanted ones."""
    reformatter, kept, shape = VideoReformatter(), {}, size
    rate = stream.stream.average_rate or stream.stream.guessed_rate or Fraction(25)
    clock = _Clock(stream.stream.time_base or Fraction(1, 25), 1 / Fraction(rate), [])
    for index, frame in enumerate(stream.frames(packets)):
        clock.ticks.append(frame.pts)
        clock.last = frame.duration or 0
        if index in wanted:
            kept[index] = _upright_rgb(frame, reformatter, shape)
            shape = kept[index].shape[:2]
    return kept, clock


HELD_BYTES = 256 << 20
"""Encoded bytes kept in memory between counting and decoding; a larger file is read twice."""


def _held_packets(stream: _Stream) -> tuple[list[av.Packet] | None, int]:
    """All packets, or None where they are too many, and how many frames they show."""
    held: list[av.Packet] | None = []
    size = shown = 0
    for packet in stream.packets():
        shown += not packet.is_discard
        size += packet.size
        if size > HELD_BYTES:
            held = None
        if held is not None:
            held.append(packet)
    return held, shown


def read_video(source: VideoSource, num_frames: int = 8, size: tuple[int, int] | None = None) -> Frames:
    """Read frames spread evenly over a video (paper, section 4.1: 8 uniform frames).

    The frames are counted by decoding, not taken from the header, so that missing or wrong counts, variable frame
    rates and edit lists give the right ones. A video with fewer frames than asked gives some of them repeatedly.

    Args:
        source: A path, bytes, a binary file object or {"bytes", "path"}.
        num_frames: Frames wanted.
        size: (height, width) of the frames, or None for the video's own, upright.

    Returns:
        Exactly `num_frames` frames with their times.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is no video, has no video stream or no frame that can be decoded, or is truncated.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames: got {num_frames}; accepted are 1 and more; the default is 8")
    kept, clock = _first_reading(source, num_frames, size)
    if not clock.ticks:
        animation = _read_animation(source, num_frames, size)
        if animation is None:
            raise _unreadable(source_name(source), "no frame in it can be decoded")
        return animation
    indices = uniform_indices(len(clock.ticks), num_frames)
    if not kept.keys() >= set(indices.tolist()):
        kept, clock = _second_reading(source, len(clock.ticks), num_frames, size)
    times, duration = clock.seconds()
    return Frames(np.stack([kept[i] for i in indices.tolist()]), times[indices].tolist(), duration)


def _first_reading(
    source: VideoSource, num_frames: int, size: tuple[int, int] | None
) -> tuple[dict[int, np.ndarray], _Clock]:
    """Decode with the count that the packets promise."""
    with _Stream(source) as stream:
        stream.check_complete()
        held, total = _held_packets(stream)
        if held is not None:
            return _decode(stream, held, set(uniform_indices(total, num_frames).tolist()), size)
    with _Stream(source) as stream:
        return _decode(stream, stream.packets(), set(uniform_indices(total, num_frames).tolist()), size)


def _second_reading(
    source: VideoSource, total: int, num_frames: int, size: tuple[int, int] | None
) -> tuple[dict[int, np.ndarray], _Clock]:
    """Decode with the count that came out of the first reading."""
    with _Stream(source) as stream:
        kept, clock = _decode(stream, stream.packets(), set(uniform_indices(total, num_frames).tolist()), size)
        if len(clock.ticks) != total:
            raise stream.error(f"{total} frames at the first reading, {len(clock.ticks)} at the second")
        return kept, clock


def _read_animation(source: VideoSource, num_frames: int, size: tuple[int, int] | None) -> Frames | None:
    """Animated pictures that FFmpeg opens but does not decode (WebP), through Pillow."""
    try:
        with PIL.Image.open(_openable(source)) as opened:
            pages = [
                (np.asarray(page.convert("RGB")), page.info.get("duration", 0) / 1000)
                for page in PIL.ImageSequence.Iterator(opened)
            ]
    except (PIL.UnidentifiedImageError, OSError, SyntaxError):
        return None
    indices = uniform_indices(len(pages), num_frames)
    frames = np.stack([pages[i][0] for i in indices.tolist()])
    ends = np.cumsum([seconds for _, seconds in pages])
    starts = np.concatenate([[0.0], ends[:-1]])
    return Frames(frames if size is None else resize_frames(frames, *size), starts[indices].tolist(), float(ends[-1]))
