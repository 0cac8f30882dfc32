"""Moments as files of their own: packets copied from keyframe on, or frames encoded again."""

import heapq
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, dropwhile, pairwise, takewhile
from pathlib import Path
from typing import Any

import av
from av.stream import Discard
from av.video.reformatter import ColorRange, VideoReformatter

from gve.container_gve import Container
from gve.convert_gve import frame_orientation, frame_rgb, has_alpha
from gve.eval.console import printable
from gve.eval.index.rows import Hit
from gve.index_gve import TOLERANCE
from gve.media_gve import MP4
from gve.scan_gve import KEYED
from gve.source_gve import Budget, Limits, Opened, open_source, unreadable
from gve.stream_gve import Tally, decoded
from gve.video_gve import FrameStream, source_name
from gve.video_writer import mp4_output

logger = logging.getLogger(__name__)

_CLOCK = Fraction(1, 90_000)
_X264 = {"preset": "veryfast", "crf": "18"}
_BACK = (0, 2, 10, 60)  # seconds that a seek aims before its place, because some land behind it
_LIMITS = Limits(timeout=math.inf)  # all frames up to a moment late in a long AVI take their time


def write_clips(hits: Sequence[Hit], folder: Path) -> list[Path | None]:
    """Write the clip of each hit to `rank_name_start-end.mp4`; None for images, missing files and what cannot be cut."""
    folder.mkdir(parents=True, exist_ok=True)
    out: list[Path | None] = []
    for rank, hit in enumerate(hits, start=1):
        out.append(None)
        if hit.start is None or hit.end is None or hit.missing:
            continue
        target = folder / f"{rank}_{Path(hit.path).stem[:40]}_{hit.start:.2f}-{hit.end:.2f}{MP4}"
        try:
            cut_clip(hit.path, hit.start, hit.end, target)
            out[-1] = target
        except (OSError, ValueError) as error:
            logger.warning("no clip of %s: %s", printable(hit.path), printable(error))
    return out


def cut_clip(path: str | os.PathLike[str], start: float, end: float, out: str | os.PathLike[str]) -> bool:
    """Write a stretch of a video as MP4, and return whether its pictures are copied without loss.

    They are copied where a keyframe lies within a frame of the start, in MP4, MOV, Matroska and WebM; else they are
    encoded as H.264. A copy may run on for the few frames that others at its end refer to. Sound is copied where MP4 holds
    its codec, and left out elsewhere. The clip is shown upright either way.

    Args:
        start: Seconds from the first frame.
        end: Seconds; beyond the video's end means its end.

    Raises:
        ValueError: If times contradict one another, or the video cannot be read.
    """
    if not 0 <= start < end < math.inf:
        raise ValueError(f"start, end: must be seconds with 0 <= start < end, got {start} and {end}. Correct them.")
    target = Path(out)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open_source(path, _LIMITS) as opened, partial.open("wb") as file, mp4_output(file) as output:
            copied = _cut(opened, start, end, output)
        partial.replace(target)
    except av.error.FFmpegError as error:
        raise unreadable(source_name(path), f"no clip can be cut out of it ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
    return copied


def _cut(opened: Opened, start: float, end: float, output: Any) -> bool:
    """Choose the way: packets, frames from the keyframe before, or all frames from the first."""
    if not opened.animation:
        with _container(opened) as source:
            first = next(decoded(source, Tally()), (None, None))[0]
            if first is not None and source.by_frame:
                return _cut_sought(opened, source, first, start, end, output=output)
    with FrameStream(opened.rewound(), _LIMITS) as stream:
        _mux(output, _encoded(output, opened.name, _stretch(stream, start, end)))
    return False


def _container(opened: Opened) -> Container:
    return Container(opened, Budget(opened.name, _LIMITS), quick=False)


def _cut_sought(opened: Opened, source: Container, first: int, start: float, end: float, *, output: Any) -> bool:
    """Cut a file in which seeking is exact; `first` is the tick of its first frame."""
    begin, stop = (first + round(time / source.base) for time in (start, end))
    key = _key_near(source, begin) if source.stream.codec_context.name in output.supported_codecs else None
    _seek(source, begin if key is None else key)
    if key is None:
        source.context.flush_buffers()
        ticks = ((tick, frame) for tick, frame in decoded(source, Tally()) if tick is not None)
        shown = ((float((tick - first) * source.base), frame) for tick, frame in ticks)
        video = _encoded(output, opened.name, _stretch(shown, start, end))
    else:
        # opaque: AV1 has a decoder of another name than its encoder's
        video = _copied(source, output.add_stream_from_template(source.stream, opaque=True), key, stop)
    zero = (begin if key is None else key) * source.base
    with _container(opened) as other:
        _mux(output, video, _sound(output, other, zero, stop * source.base))
    return key is not None


def _mux(output: Any, *streams: Iterator[av.Packet]) -> None:
    """Write packets in the order of their decoding times."""
    for packet in heapq.merge(*streams, key=lambda packet: packet.dts * packet.time_base):
        output.mux(packet)


def _seek(source: Container, tick: int) -> None:
    """Go to a keyframe at or before a tick."""
    for back in _BACK:
        place = {"offset": tick - round(back / source.base), "stream": source.stream, "backward": True}
        try:
            source.container.seek(**place)
            packet = next(source.packets(), None)
            source.container.seek(**place)
        except av.error.FFmpegError:
            continue
        if packet is not None and packet.pts is not None and packet.pts <= tick:
            return
    source.container.seek(0)


def _key_near(source: Container, tick: int) -> int | None:
    """The tick of a keyframe within a frame of a tick, if there is one that depends on no other packet."""
    rate = source.stream.average_rate or source.stream.guessed_rate or 25
    step, keys = max(round(1 / (rate * source.base)), 1), []
    if source.context.codec.canonical_name in KEYED:
        _seek(source, tick)
        for packet in source.packets():
            if packet.pts is None or (packet.pts if packet.dts is None else packet.dts) > tick + step:
                break
            if packet.is_keyframe and not packet.is_discard and abs(packet.pts - tick) <= step:
                keys.append(packet.pts)
    return min(keys, key=lambda key: abs(key - tick), default=None)


def _copied(source: Container, stream: Any, key: int, stop: int) -> Iterator[av.Packet]:
    """Packets from a keyframe to the last one shown before a tick, in decoding order, with times from 0."""
    packets = dropwhile(lambda packet: not packet.is_keyframe or packet.pts != key, _dated(source.packets()))
    held = []
    for packet in takewhile(lambda packet: None not in (packet.pts, packet.dts) and packet.dts < stop, packets):
        if packet.pts >= key:  # what is shown before its keyframe refers to packets before that
            held.append(packet)
        if packet.pts < stop:
            yield from _moved(held, stream, key)
            held = []


def _dated(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """Packets with decoding times where the first ones lack them, as in Matroska."""
    held = []
    for packet in packets:
        held.append(packet)
        if packet.dts is not None:
            break
    known = held and held[-1].dts
    last = min(packet.pts for packet in held if packet.pts is not None) if known is None else known
    for back, packet in zip(range(len(held) - 1, -1, -1), held, strict=True):
        packet.dts = last - back
        yield packet
    yield from packets


def _moved(packets: Iterable[av.Packet], stream: Any, zero: int) -> Iterator[av.Packet]:
    for packet in packets:
        packet.pts, packet.dts, packet.stream = packet.pts - zero, packet.dts - zero, stream
        yield packet


def _stretch(
    frames: Iterable[tuple[float, av.VideoFrame]], start: float, end: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames at times from 0, the one on the screen at the start first."""
    shown = takewhile(lambda one: one[0] < end - TOLERANCE, frames)
    for (time, frame), (after, _) in pairwise(chain(shown, [(math.inf, None)])):
        if after > start + TOLERANCE:
            yield max(time - start, 0.0), frame


def _encoded(output: Any, name: str, frames: Iterator[tuple[float, av.VideoFrame]]) -> Iterator[av.Packet]:
    """Packets of frames, upright, in even sizes and the range of levels that players expect."""
    begin = next(frames, None)
    if begin is None:
        raise unreadable(name, "no frame of it is shown at that time")
    size = _upright(begin[1])
    stream = output.add_stream("libx264", rate=30, options=_X264)
    stream.width, stream.height, stream.pix_fmt = max(size.width // 2 * 2, 2), max(size.height // 2 * 2, 2), "yuv420p"
    stream.time_base = stream.codec_context.time_base = _CLOCK

    def packets() -> Iterator[av.Packet]:
        scale = VideoReformatter()
        for time, frame in chain([begin], frames):
            picture = scale.reformat(
                _upright(frame), stream.width, stream.height, "yuv420p", dst_color_range=ColorRange.MPEG
            )
            picture.pts, picture.time_base = round(time / _CLOCK), _CLOCK
            yield from stream.encode(picture)
        yield from stream.encode()

    return packets()


def _upright(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame itself where it is stored as it is shown."""
    if any(frame_orientation(frame)) or has_alpha(frame):
        return av.VideoFrame.from_ndarray(frame_rgb(frame), format="rgb24")
    return frame


def _sound(output: Any, source: Container, zero: Fraction, stop: Fraction) -> Iterator[av.Packet]:
    """Packets of the first sound track between two times of the file, with times from 0; none if MP4 has no place for it."""
    found = next(iter(source.container.streams.audio), None)
    if found is None or found.codec_context is None or found.codec_context.name not in output.supported_codecs:
        return iter(())
    stream, base = output.add_stream_from_template(found, opaque=True), found.time_base
    source.stream.discard, found.discard = Discard.all, Discard.default
    source.container.seek(max(int((zero - 1) * av.time_base), 0))
    packets = takewhile(
        lambda packet: packet.dts is not None and packet.pts * base < stop, source.container.demux(found)
    )
    return _moved((packet for packet in packets if packet.pts * base >= zero), stream, round(zero / base))
