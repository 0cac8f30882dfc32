"""One open container with its video stream: its packets, its clock, and how far its headers can be trusted.

Shape legend: N frames of the video.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import av
import numpy as np
from av.stream import Discard, Disposition

from .source_gve import Budget, Opened, over_limit, unreadable

Shown = TypeVar("Shown")

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,ogg,asf,h264,hevc,vvc,av1,obu,ivf,m4v,mjpeg,"
    "nut,rm,dv,mxf,yuv4mpegpipe,gif,apng,mp3,wav,flac,aac,swf"
)
"""Demuxers of self-contained files; demuxers of playlists, scripts, patterns and devices would open other files."""

QUICK = {"skip_frame": "all", "analyzeduration": "1"}
"""Opening decodes no frame to guess what the container says anyway."""

WITHOUT_ORDER = ("avi", "asf", "h264", "hevc", "vvc", "cavsvideo")
"""Demuxers of containers that store when a frame is decoded, or nothing; FFmpeg then invents when it is shown."""

REORDERED = frozenset({"h264", "hevc", "vvc", "vc1", "wmv3", "cavs"})
"""Codecs that show frames in another order than they decode them; packets alone do not give it."""

PACKED = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:Build|b)\d+p")
"""How MPEG-4 streams of DivX and XviD say that a packet holds two frames, and an empty one follows."""

RESTARTING = ("mpegts", "mpeg", "flv")
"""Demuxers of containers whose clock may wrap, or restart in a recording that was cut."""

LEAP_SECONDS, LEAP_FRAMES = 10, 100
"""A step of the clock above both is a discontinuity there, as FFmpeg has it (-dts_delta_threshold)."""

WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read the transparency WebM stores apart from the picture; FFmpeg's faster ones drop it."""

READS_BY_FRAME = ("mp4", "matroska")
"""Demuxers whose every packet is a whole frame, both fields of an interlaced one included."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One continuous time for the frames of a video, from ticks in presentation order.

    A frame lasts as long as the ticks to the next one say. The clock advances by `usual` ticks where a tick is missing
    or does not increase (the clock restarted, or two recordings were joined), or leaps by more than `leap` ticks in a
    container whose clock may wrap or restart (MPEG-TS, MPEG-PS, FLV). In other containers a long step is a held
    picture, as in slide shows, and is believed. `base` is seconds a tick.
    """

    base: Fraction
    usual: int
    leap: float = math.inf

    def elapse(self, frames: Iterable[tuple[int | None, Shown]]) -> Iterator[tuple[int, Shown]]:
        """Frames that come one by one with the tick of each: ticks from the first frame instead, always increasing."""
        elapsed, before = 0, None
        for tick, frame in frames:
            if before is None:
                before = tick or 0
            else:
                step = self.usual if tick is None else tick - before
                step = step if 0 < step <= self.leap else self.usual
                elapsed += step
                before = before + step if tick is None else tick
            yield elapsed, frame

    def continuous(self, ticks: Sequence[int | None] | np.ndarray) -> tuple[np.ndarray, bool]:
        """(N,) ticks from the first frame, as `elapse` gives them, and whether none had to be mended."""
        if not isinstance(ticks, np.ndarray) and None in ticks:
            return np.asarray([elapsed for elapsed, _ in self.elapse((tick, None) for tick in ticks)], np.int64), False
        steps = np.diff(np.asarray(ticks, np.int64))
        broken = (steps <= 0) | (steps > self.leap)
        steps[broken] = self.usual
        return np.concatenate([[0], np.cumsum(steps)]), not broken.any()

    def seconds(self, elapsed: np.ndarray, last: int = 0) -> tuple[np.ndarray, float]:
        """(N,) seconds from the first frame, and the whole duration, the last frame shown for `last` ticks."""
        span = int(elapsed[-1])
        step = last or (Fraction(span, len(elapsed) - 1) if span else self.usual)
        return elapsed * self.base.numerator / self.base.denominator, float((span + step) * self.base)


class Container:
    """A container and its first real video stream; never shared between threads.

    With `quick` it opens without probing, where the container allows that.
    """

    def __init__(self, source: Opened, budget: Budget, *, quick: bool) -> None:
        self.name = source.name
        self.size = source.size
        self.budget = budget
        self.ended_badly = self.packed = False
        budget.packets = 0
        self.quick = quick and source.timed
        self.unfinished = _segment_end(source.head) > source.size
        self._open(source)
        if self.quick and (self.stream is None or not (self.stream.width and self.stream.height)):
            self.close()
            self.quick = False
            self._open(source)
        if self.stream is None:
            self.close()
            raise unreadable(self.name, "no video stream in it")
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

    def _open(self, source: Opened) -> None:
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
        real = (s for s in self.container.streams.video if s.codec_context is not None)
        self.stream = next((s for s in real if not s.disposition & Disposition.attached_pic), None)

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
        rate = Fraction(self.stream.average_rate or self.stream.guessed_rate or 25)
        usual = max(round(1 / (rate * self.base)), 1)
        if self.container.format.name not in RESTARTING:
            return Clock(self.base, usual)
        return Clock(self.base, usual, max(round(LEAP_SECONDS / self.base), LEAP_FRAMES * usual))

    def check_complete(self) -> None:
        """Refuse, with a ValueError, a file that ends before the last frame of its index."""
        entries = self.stream.index_entries
        if not entries:
            return
        end = max(entry.pos + entry.size for entry in (entries[0], entries[len(entries) - 1]))
        if end > self.size:
            raise unreadable(self.name, f"truncated, {end} bytes in its index but {self.size} in the file")

    def falls_short(self, end: float, step: float) -> bool:
        """Whether the file holds less than its headers promise; not every container promises anything."""
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
