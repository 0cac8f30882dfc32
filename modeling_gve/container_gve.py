"""One open container with its video stream, and what its headers say; nothing here decodes more than it must."""

import math
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
import PIL.Image
from av.stream import Discard, Disposition

from .clock_gve import Clock
from .convert_gve import Orientation
from .source_gve import Budget, Limits, Opened, VideoSource, open_source, over_limit, unreadable

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,ogg,asf,h264,hevc,vvc,av1,obu,ivf,m4v,mjpeg,"
    "nut,rm,dv,mxf,yuv4mpegpipe,gif,apng,gif_pipe,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,mp3,wav,flac,aac,swf"
)
"""Demuxers of self-contained files; those of playlists, scripts, pattern names and devices open other files."""

QUICK = {"skip_frame": "all", "analyzeduration": "1"}
"""Opening decodes no frame to guess what the container says anyway."""

WITHOUT_ORDER = ("avi", "asf", "h264", "hevc", "vvc", "cavsvideo")
"""Demuxers of containers that store when a frame is decoded, or nothing; FFmpeg then invents when it is shown."""

REORDERED = frozenset({"h264", "hevc", "vvc", "vc1", "wmv3", "cavs"})
"""Codecs with frames shown in another order than decoded, which FFmpeg cannot tell from the packets."""

PACKED = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:Build|b)\d+p")
"""How MPEG-4 streams of DivX and XviD say that a packet holds two frames, and an empty one follows."""

RESTARTING = ("mpegts", "mpeg", "flv")
"""Demuxers of containers whose clock may wrap, or restart in a recording that was cut."""

LEAP_SECONDS, LEAP_FRAMES = 10, 100
"""A step of the clock above both is a discontinuity there, as FFmpeg has it (-dts_delta_threshold)."""

WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read the transparency which WebM keeps beside the picture; FFmpeg's own, which are quicker, drop it."""

READS_BY_FRAME = ("mp4", "matroska")
"""Demuxers whose every packet is a whole frame, both fields of an interlaced one included."""


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
        self.ended_badly = self.packed = False
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
        self.base = Fraction(self.stream.time_base or Fraction(1, 25))
        """Seconds a tick."""
        self.context = _decoder(self.stream)
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
        file, options = source.demuxed()
        options |= {
            "format_whitelist": DEMUXERS,
            "max_streams": str(limits.max_streams + 1),
            "max_pixels": str(limits.max_pixels),
        }
        try:
            self.container = av.open(file, options=options | (QUICK if self.quick else {}), timeout=limits.timeout)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise unreadable(self.name, f"not a video, or cut off before its index ({reason})") from error
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
    def without_order(self) -> bool:
        """Whether packets do not tell the order in which their frames are shown; known once the first was read."""
        untold = self.container.format.name in WITHOUT_ORDER and self.context.codec.canonical_name in REORDERED
        return untold or self.packed

    @property
    def may_lack_delays(self) -> bool:
        """Whether frames that all seem to be shown when they are decoded are not: some writers of MP4 leave that out."""
        reordered = self.context.codec.canonical_name in REORDERED and self.stream.codec_context.has_b_frames
        return bool(reordered) and "mp4" in self.container.format.name

    @property
    def clock(self) -> Clock:
        """Its clock; the usual duration of a frame is known only where it was opened with probing."""
        usual = max(round(self.period / self.base), 1)
        if self.container.format.name not in RESTARTING:
            return Clock(self.base, usual)
        return Clock(self.base, usual, max(round(LEAP_SECONDS / self.base), LEAP_FRAMES * usual))

    @property
    def period(self) -> Fraction:
        """Seconds a frame, for files without presentation times."""
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        return 1 / Fraction(rate)

    def check_complete(self) -> None:
        """Refuse, with a ValueError, a file that ends before the last frame of its index."""
        entries = self.stream.index_entries
        if not entries:
            return
        end = max(entry.pos + entry.size for entry in (entries[0], entries[len(entries) - 1]))
        if end > self.size:
            raise unreadable(self.name, f"truncated, {end} bytes in its index but {self.size} in the file")

    def falls_short(self, end: float, step: float) -> bool:
        """Whether less was found than the headers promise; not every container promises anything.

        Args:
            end: Seconds at which the last frame ends, from the container's own zero.
            step: Seconds a frame.
        """
        name, promised = self.container.format.name, 0.0
        if "matroska" in name:
            promised = _clock_seconds(self.stream.metadata.get("DURATION", ""))
        elif name == "flv" and len(self.container.streams) == 1:
            promised = (self.container.duration or 0) / av.time_base
        elif name == "avi":
            promised = float(self.stream.frames * self.base)  # chunks of no bytes are counted, and last a tick too
        return self.unfinished or self.ended_badly or promised - end > max(0.25, 3 * step)

    def packets(self, *, flush: bool = False) -> Iterator[av.Packet]:
        """Packets of the stream, and an empty one to `flush` the decoder; damage ends them and sets `ended_badly`."""
        packets, first = self.container.demux(self.stream), True
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):  # PyAV's last step fails where a stream appeared on the way
                break
            except av.error.FFmpegError:
                self.ended_badly = True
                break
            if packet.size:
                if first and self.context.codec.canonical_name == "mpeg4":
                    self.packed |= bool(PACKED.search((self.context.extradata or b"") + bytes(packet)))
                first = False
                self.budget.spend()
                yield packet
        if flush:
            yield av.Packet(0)


def _decoder(stream: Any) -> Any:
    """The stream's own decoder, unless that would drop its transparency."""
    own = stream.codec_context
    name = WITH_ALPHA.get(own.codec.canonical_name) if stream.metadata.get("alpha_mode") == "1" else None
    if name not in av.codecs_available:
        return own
    context = av.CodecContext.create(name, "r")
    context.extradata = own.extradata
    return context


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
            with PIL.Image.open(opened.rewound(), formats=["WEBP"]) as image:
                budget.frame(*image.size)
                return VideoInfo(image.n_frames, True, None, None, *image.size, 0, "webp", "webp", 1.0)
        with Container(opened, budget, quick=True, stream=stream) as container:
            found = container.stream
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


def stored_orientation(opened: Opened, container: str, track: int) -> Orientation:
    """How MP4, MOV and Matroska say that a track is shown.

    Demuxers pass it on to the decoder alone, so that without decoding a frame it must be read again.
    """
    read = {"mov": _mp4_matrix, "matroska": _matroska_matrix}.get(container.split(",")[0])
    return Orientation() if read is None else Orientation.of(*read(opened.rewound(), opened.size, track).ravel())


MATROSKA_HEADER = 1 << 18
"""Bytes at the start of a Matroska file that its track headers are looked for in."""


def _matroska_matrix(file: BinaryIO, size: int, track: int) -> np.ndarray:
    """(2, 2) from the pose of a video track's projection; of several tracks' the first, as one file has one camera."""
    header = file.read(min(size, MATROSKA_HEADER)).partition(b"\x1f\x43\xb6\x75")[0]
    yaw, pitch, roll = (_matroska_float(header, name) for name in (b"\x76\x73", b"\x76\x74", b"\x76\x75"))
    if pitch or abs(yaw) not in (0, 180) or not math.isfinite(roll):
        return np.eye(2)
    angle = math.radians(-roll if yaw else roll)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return matrix * [-1, 1] if yaw else matrix


def _matroska_float(header: bytes, name: bytes) -> float:
    found = re.search(re.escape(name) + rb"(?:\x84(.{4})|\x88(.{8}))", header, re.DOTALL)
    if found is None:
        return 0.0
    return struct.unpack(">f", found[1])[0] if found[1] else struct.unpack(">d", found[2])[0]


BOXES = 4096
"""Boxes looked at before giving up on a malformed file."""


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of content and end of the boxes between two places."""
    for _ in range(BOXES):
        file.seek(place)
        header = file.read(16)
        if place + 8 > end or len(header) < 8:
            return
        size, kind = struct.unpack(">I4s", header[:8])
        start = place + 8
        if size == 1 and len(header) == 16:
            size, start = struct.unpack(">Q", header[8:])[0], place + 16
        stop = end if size == 0 else place + size
        if stop <= place or stop > end:
            return
        yield kind, start, stop
        place = stop


def _mp4_matrix(file: BinaryIO, size: int, track: int) -> np.ndarray:
    """(2, 2), the matrix of a track times that of the whole movie."""
    movie = next((box for box in _boxes(file, 0, size) if box[0] == b"moov"), None)
    whole = np.eye(2)
    for kind, start, stop in _boxes(file, *movie[1:]) if movie else ():
        if kind == b"mvhd":
            whole = _matrix(file, start, (36, 48))
        elif kind == b"trak":
            header = next((place for name, place, _ in _boxes(file, start, stop) if name == b"tkhd"), None)
            if header is not None and _track_number(file, header) == track:
                return _matrix(file, header, (40, 52)) @ whole
    return np.eye(2)


def _track_number(file: BinaryIO, place: int) -> int:
    file.seek(place)
    head = file.read(24)
    return struct.unpack_from(">I", head, 20 if head[:1] == b"\1" else 12)[0] if len(head) == 24 else -1


def _matrix(file: BinaryIO, place: int, offsets: tuple[int, int]) -> np.ndarray:
    """The matrix (2, 2) that stands at one offset in version 0 of a header and at the other in version 1."""
    file.seek(place)
    head = file.read(100)
    offset = offsets[head[:1] == b"\1"]
    if len(head) < offset + 20:
        return np.eye(2)
    a, b, _, c, d = struct.unpack_from(">5i", head, offset)
    return np.array([[a, b], [c, d]], np.float64) / (1 << 16)
