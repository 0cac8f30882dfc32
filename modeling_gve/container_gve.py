"""One open container with its video stream, and what its headers say; nothing here decodes more than it must."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
import PIL.Image
from av.stream import Discard, Disposition

from .limits_gve import Budget, Limits, over_limit, unreadable
from .rotation_gve import stored_rotation
from .source_gve import Opened, VideoSource, open_source

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,ogg,asf,h264,hevc,vvc,av1,obu,ivf,m4v,mjpeg,"
    "nut,rm,dv,mxf,yuv4mpegpipe,gif,apng,gif_pipe,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,mp3,wav,flac,aac"
)
"""Demuxers of self-contained files; those of playlists, scripts, pattern names and devices open other files."""

QUICK = {"skip_frame": "all", "analyzeduration": "1"}
"""Opening decodes no frame to guess what the container says anyway."""

READS_BY_FRAME = ("mp4", "matroska")
"""Demuxers whose every packet is a whole frame, both fields of an interlaced one included."""


class VideoInfo(NamedTuple):
    """What the headers of a video say.

    Attributes:
        total: Frames, or None where they say nothing and no rate is known.
        exact: Whether `total` is a count and not a guess.
        fps: Mean frames a second, or None.
        duration: Seconds, or None.
        width: Width in pixels after rotation.
        height: Height in pixels after rotation.
        rotation: Degrees counter-clockwise by which the stored picture is turned for showing.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container.
        pixel_aspect: Width of a pixel over its height; frames are never stretched by it.
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


class Container:
    """A container and its first real video stream, or the one asked for; never shared between threads.

    Args:
        source: An opened source.
        budget: What reading it may spend.
        quick: Whether to open without probing, where the container allows it.
        stream: Which video stream, counted from 0.

    Raises:
        ValueError: If it is no video, has no such stream, or its frames are too large.
    """

    def __init__(self, source: Opened, budget: Budget, *, quick: bool, stream: int | None = None) -> None:
        self.name = source.name
        self.size = source.size
        self.budget = budget
        self.ended_badly = False
        budget.packets = 0
        self.quick = quick and source.timed
        self.unfinished = _segment_end(source.head) > source.size
        self._open(source, stream)
        if self.quick and (self.stream is None or not (self.stream.width and self.stream.height)):
            self.close()
            self.quick = False
            self._open(source, stream)
        if self.stream is None:
            self.close()
            raise unreadable(self.name, "no video stream in it" if stream is None else f"no video stream {stream}")
        self.context = self.stream.codec_context
        # more threads deadlock when many videos are decoded at once; parallelism belongs across videos
        self.context.thread_type = "NONE"
        self.context.thread_count = 1
        self.context.options = {"max_pixels": str(budget.limits.max_pixels)}
        budget.frame(self.stream.width or 0, self.stream.height or 0)
        for other in self.container.streams:
            if other is not self.stream:
                other.discard = Discard.all

    def _open(self, source: Opened, number: int | None) -> None:
        limits = self.budget.limits
        options = {
            "format_whitelist": DEMUXERS,
            "protocol_whitelist": "file",
            "max_streams": str(limits.max_streams + 1),
            "max_pixels": str(limits.max_pixels),
        }
        try:
            self.container = av.open(
                source.rewound(), options=options | (QUICK if self.quick else {}), timeout=limits.timeout
            )
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise unreadable(self.name, f"not a video, or cut off before its index ({error})") from error
        if len(self.container.streams) > limits.max_streams:
            self.close()
            raise over_limit(self.name, f"more than {limits.max_streams} streams", "max_streams")
        streams = [
            s
            for s in self.container.streams.video
            if s.codec_context is not None and not s.disposition & Disposition.attached_pic
        ]
        place = number or 0
        self.stream = streams[place] if 0 <= place < len(streams) else None

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self.container.close()

    @property
    def by_frame(self) -> bool:
        """Whether every packet is a whole frame."""
        return any(name in self.container.format.name for name in READS_BY_FRAME)

    @property
    def period(self) -> Fraction:
        """Seconds a frame, for files without presentation times."""
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        return 1 / Fraction(rate)

    @property
    def base(self) -> Fraction:
        """Seconds a tick."""
        return Fraction(self.stream.time_base or Fraction(1, 25))

    def check_complete(self) -> None:
        """Refuse a file that ends before the last frame of its index.

        Raises:
            ValueError: If it does.
        """
        entries = self.stream.index_entries
        if not entries:
            return
        end = max(entry.pos + entry.size for entry in (entries[0], entries[len(entries) - 1]))
        if end > self.size:
            raise unreadable(self.name, f"truncated, {end} bytes in its index but {self.size} in the file")

    def falls_short(self, end: float, step: float, packets: int) -> bool:
        """Whether less was found than the headers promise.

        Args:
            end: Seconds at which the last frame ends, from the container's own zero.
            step: Seconds a frame.
            packets: Packets found.

        Returns:
            True if the file lacks its end; not every container promises one.
        """
        name, promised = self.container.format.name, 0.0
        if "matroska" in name:
            promised = _clock_seconds(self.stream.metadata.get("DURATION", ""))
        elif name == "flv" and len(self.container.streams) == 1:
            promised = (self.container.duration or 0) / av.time_base
        elif name == "avi" and packets < self.stream.frames:
            return True
        return self.unfinished or self.ended_badly or promised - end > max(0.25, 3 * step)

    def packets(self) -> Iterator[av.Packet]:
        """Packets of the stream, without the flushing one; damage ends them and sets `ended_badly`."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):  # PyAV's last step fails where a stream appeared on the way
                return
            except av.error.FFmpegError:
                self.ended_badly = True
                return
            if packet.size:
                self.budget.spend()
                yield packet


def _clock_seconds(text: str) -> float:
    """Seconds of a "HH:MM:SS.fraction" tag; 0 for any other text."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0


def _segment_end(head: bytes) -> int:
    """Where a Matroska file must end by the size of its segment; 0 for other files and for live recordings."""
    place = head.find(b"\x18\x53\x80\x67") if head.startswith(b"\x1aE\xdf\xa3") else -1
    if place < 0 or len(head) < place + 12:
        return 0
    width = 9 - head[place + 4].bit_length() if head[place + 4] else 9
    size = int.from_bytes(head[place + 4 : place + 4 + width], "big") & ((1 << 7 * width) - 1) if width < 9 else 0
    return 0 if size == (1 << 7 * width) - 1 else place + 4 + width + size


def video_info(source: VideoSource, *, limits: Limits | None = None, stream: int | None = None) -> VideoInfo:
    """What a video's headers say, without decoding a frame: about a millisecond.

    Args:
        source: A path, bytes, a binary file object or {"bytes", "path"}.
        limits: Bounds on the file.
        stream: Which video stream, counted from 0; by default the first that is no cover picture.

    Returns:
        Counts, times and sizes.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is no video, has no video stream or no size, or exceeds its limits.
    """
    limits = limits or Limits()
    with open_source(source, limits) as opened:
        if opened.animated_webp:
            return _webp_info(opened, limits)
        with Container(opened, Budget(opened.name, limits), quick=True, stream=stream) as container:
            found = container.stream
            quarter = stored_rotation(opened, container.container.format.name, found.id)
            duration = _duration(container)
            fps = float(found.average_rate) if found.average_rate else None
            total, exact = _count(found, container, duration, fps)
            sides = (found.width, found.height)
            if not all(sides):
                raise unreadable(opened.name, "no size of its frames in its headers")
            return VideoInfo(
                total,
                exact,
                fps,
                duration,
                *(sides[::-1] if quarter % 2 else sides),
                rotation=quarter * 90,
                codec=container.context.codec.canonical_name,
                container=container.container.format.name,
                pixel_aspect=float(found.sample_aspect_ratio or 1),
            )


def _duration(container: Container) -> float | None:
    if container.stream.duration:
        return float(container.stream.duration * container.base)
    whole = container.container.duration
    return whole / av.time_base if whole and whole > 0 else None


def _count(stream: Any, container: Container, duration: float | None, fps: float | None) -> tuple[int | None, bool]:
    entries = stream.index_entries
    if stream.frames and "mp4" in container.container.format.name and len(entries) == stream.frames:
        return stream.frames, not (entries[0].is_discard or entries[len(entries) - 1].is_discard)
    if stream.frames:
        return stream.frames, False
    return (max(round(duration * fps), 1), False) if duration and fps else (None, False)


def _webp_info(opened: Opened, limits: Limits) -> VideoInfo:
    with PIL.Image.open(opened.rewound(), formats=["WEBP"]) as image:
        Budget(opened.name, limits).frame(*image.size)
        return VideoInfo(image.n_frames, True, None, None, *image.size, 0, "webp", "webp", 1.0)
