"""Every frame of a video in presentation order: one at a time, or in a row for files that no quicker way reads.

Shape legend: F frames.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import PIL.Image

from .container_gve import Clock, Container
from .convert_gve import Converter, resize_frames
from .image_gve import BROKEN, upright_rgb
from .index_gve import Reading, Sampling, UnreliableError, uniform_indices
from .scan_gve import read_packets
from .source_gve import Budget, Limits, Opened, VideoSource, open_source, unreadable


class FrameStream:
    """All frames of a video, decoded in presentation order, one at a time.

    Use it in a `with` statement and iterate once: each step gives the seconds from the first frame, always increasing,
    and the decoded frame as the file stores it, which `frame_rgb` turns upright. The arguments are those of
    `read_video`.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: On entering, if the file has no video stream; at any step, if it exceeds its limits.
    """

    def __init__(self, source: VideoSource, limits: Limits | None = None) -> None:
        self.source = source
        self.limits = limits or Limits()
        self._tally = Tally()

    def __enter__(self) -> "FrameStream":
        with ExitStack() as exits:
            opened = exits.enter_context(open_source(self.source, self.limits))
            budget = Budget(opened.name, self.limits)
            if opened.animation:
                self._clock = Clock(Fraction(1, 1000), 1)
                self._frames = _animated(exits.enter_context(open_animation(opened, budget)), budget, self._tally)
            else:
                container = exits.enter_context(Container(opened, budget, quick=False))
                self._clock = container.clock
                self._frames = decoded(container, self._tally)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def __iter__(self) -> Iterator[tuple[float, av.VideoFrame]]:
        base = self._clock.base
        for elapsed, frame in self._clock.elapse(self._frames):
            yield elapsed * base.numerator / base.denominator, frame

    @property
    def packets(self) -> int:
        """Packets read so far."""
        return self._tally.packets

    @property
    def errors(self) -> int:
        """Packets among them that did not decode; they are passed over."""
        return self._tally.errors


@dataclass
class Tally:
    """What decoding has met so far; `unordered` if ticks are decoding times, or None, as the file stores no others."""

    packets: int = 0
    errors: int = 0
    damaged: bool = False
    unordered: bool = False


def decoded(container: Container, tally: Tally) -> Iterator[tuple[int | None, av.VideoFrame]]:
    """Every frame that can be decoded of a freshly opened container, with its tick, in presentation order."""
    stamps: deque[int | None] = deque()
    delayed = not container.may_lack_delays
    for packet in container.packets(flush=True):
        if packet.size:
            tally.unordered |= not tally.packets and container.without_order
            tally.packets += 1
            tally.damaged |= packet.is_corrupt
            delayed |= packet.pts != packet.dts
            stamps.append(packet.dts)
        try:
            frames = container.context.decode(packet)
        except EOFError:
            continue
        except av.error.FFmpegError:
            tally.damaged = True
            if packet.size:
                tally.errors += 1
                stamps.pop()
            continue
        for frame in frames:
            tally.damaged |= frame.is_corrupt
            # where only decoding times are stored, the first frame shown has the first of them
            stamp = stamps.popleft() if stamps else None
            tally.unordered |= frame.pts is None
            yield stamp if tally.unordered or not delayed else frame.pts, frame
    tally.damaged |= container.ended_badly


def _animated(animation: tuple[Any, range], budget: Budget, tally: Tally) -> Iterator[tuple[int, av.VideoFrame]]:
    elapsed = 0
    for shown, page in pages(animation, budget):
        tally.packets += 1
        yield elapsed, av.VideoFrame.from_image(upright_rgb(page))
        elapsed += shown


def frame_times(source: VideoSource, limits: Limits | None = None) -> np.ndarray:
    """(F,) seconds of all frames, as `FrameStream` gives them, from the packets alone where they suffice."""
    limits = limits or Limits()
    with open_source(source, limits) as opened:
        name = opened.name
        if not opened.animation:
            with Container(opened, Budget(name, limits), quick=False) as container:
                try:
                    return container.clock.seconds(read_packets(container, 0).elapsed)[0]
                except UnreliableError:
                    pass
    with FrameStream(source, limits) as frames:
        times = np.asarray([time for time, _ in frames])
    if not len(times):
        raise unreadable(name, NO_FRAME)
    return times


NO_FRAME = "no frame in it can be decoded, or none within Limits.max_pixels"


class FullDecoding(NamedTuple):
    """All F frames of a video, decoded in a row: those wanted by their place, times and length in seconds."""

    kept: dict[int, np.ndarray]
    times: np.ndarray
    duration: float
    sent: int
    damaged: bool


def decode_all(container: Container, wanted: set[int], convert: Converter) -> FullDecoding:
    """Decode all frames of a freshly opened container, at least one, and convert the wanted places."""
    tally, kept, ticks, last = Tally(), {}, [], 0
    for index, (tick, frame) in enumerate(decoded(container, tally)):
        ticks.append(tick)
        last = 0 if tally.unordered else frame.duration or 0
        if index in wanted:
            kept[index] = convert(frame)
    if not ticks:
        raise unreadable(container.name, NO_FRAME)
    elapsed, _ = container.clock.continuous(ticks)
    times, duration = container.clock.seconds(elapsed, last)
    known = [tick for tick in ticks if tick is not None]
    if known:
        end, step = float((max(known) + last) * container.base), float(times[-1]) / max(len(ticks) - 1, 1)
        tally.damaged |= container.falls_short(end, step)
    return FullDecoding(kept, times, duration, tally.packets, tally.damaged)


def decode_in_order(name: str, read: Callable[[set[int]], FullDecoding], guess: int, sampling: Sampling) -> Reading:
    """Decode everything and keep what is wanted; decode again if `guess`, 0 for unknown, was wrong."""
    guessed = sampling.by_count and guess
    row = read(set(uniform_indices(guess, sampling.count).tolist()) if guessed else set())
    total, sent = len(row.times), row.sent
    indices = sampling.indices(row.times, row.duration)
    if not row.kept.keys() >= set(indices.tolist()):
        row = read(set(indices.tolist()))
        if len(row.times) != total:
            raise unreadable(name, f"{total} frames at the first reading, {len(row.times)} at the second")
    frames = [row.kept[index] for index in indices.tolist()]
    return Reading(frames, indices, row.times[indices], row.duration, "sequential", row.damaged, sent)


FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
QUICKEST, USUAL = 11, 100
"""Milliseconds: pages shown for less than the first are shown for the second, as browsers and FFmpeg have it."""


@contextmanager
def _pillow(name: str) -> Iterator[None]:
    try:
        yield
    except (*BROKEN, RuntimeError) as error:
        reason = "no format that Pillow knows" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise unreadable(name, f"no frame in it can be decoded ({reason})") from error


@contextmanager
def open_animation(opened: Opened, budget: Budget) -> Iterator[tuple[Any, range]]:
    """The file as a Pillow image, and the numbers of its pages; none is decoded."""
    with _pillow(opened.name):
        image = PIL.Image.open(opened.rewound(), formats=FORMATS)
    with image:
        budget.frame(*image.size)
        with _pillow(opened.name):
            # an APNG may begin with a still picture for readers that know no other
            places = range(int(getattr(image, "default_image", False)), image.n_frames)
        yield image, places


def pages(animation: tuple[Any, range], budget: Budget) -> Iterator[tuple[int, Any]]:
    """Each page decoded, and the milliseconds that it is shown."""
    image, places = animation
    for index in places:
        budget.spend()
        with _pillow(budget.name):
            image.seek(index)
            image.load()
        shown = round(image.info.get("duration") or 0)
        yield (shown if shown >= QUICKEST else USUAL), image


def read_animation(opened: Opened, budget: Budget, sampling: Sampling, converter: Callable[[], Converter]) -> Reading:
    """Read a moving picture by any rule."""
    with open_animation(opened, budget) as animation:

        def read(wanted: set[int]) -> FullDecoding:
            return _decode_pages(animation, budget, wanted, converter())

        return decode_in_order(opened.name, read, len(animation[1]), sampling)


def _decode_pages(animation: tuple[Any, range], budget: Budget, wanted: set[int], convert: Converter) -> FullDecoding:
    kept, shown = {}, []
    for index, (duration, page) in enumerate(pages(animation, budget)):
        shown.append(duration)
        if index in wanted:
            rgb = np.array(upright_rgb(page))
            kept[index] = resize_frames(rgb[None], *convert.choose(*rgb.shape[:2]))[0]
    ends = np.cumsum(shown) / 1000
    return FullDecoding(kept, np.concatenate([[0.0], ends[:-1]]), float(ends[-1]), len(shown), damaged=False)
