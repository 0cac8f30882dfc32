"""One attempt to repair a damaged video [A.5]: the same packets in a new container, else the frames that still decode."""

import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from gve.hub_datasets.vsynflow.quality.measure import read_place

METHODS = ("remux", "reencode")
_TICKS, _MOST_PAUSE = 1000, 10.0
"""A second's parts in a re-encoded copy, and seconds between two frames above which their times are taken for damage."""


def repair(place: Mapping[str, Any], method: str, target: str) -> None:
    """Write a repaired copy.

    Args:
        place: The `video` of a record.
        method: "remux" keeps packets, "reencode" keeps pictures (H.264).
        target: The file to write, an mp4.

    Raises:
        ValueError: If nothing can be kept.
    """
    buffer = io.BytesIO()
    try:
        with (
            av.open(io.BytesIO(read_place(place))) as source,
            av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as output,
        ):
            if source.streams.video[0].codec_context is None:
                raise ValueError("no decoder")
            kept = _remux(source, output) if method == "remux" else _reencode(source, output)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise ValueError(f"unrepairable: {type(error).__name__}") from error
    if not kept:
        raise ValueError("unrepairable: nothing to keep")
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(f"{target}.tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(target)


def _remux(source: Any, output: Any) -> int:
    """Packets that are marked as damaged, or whose time does not ascend, stay behind."""
    stream = source.streams.video[0]
    target, kept, last = output.add_stream_from_template(stream), 0, None
    for packet in source.demux(stream):
        if packet.dts is None or not packet.size or packet.is_corrupt or (last is not None and packet.dts <= last):
            continue
        last, packet.stream = packet.dts, target
        output.mux(packet)
        kept += 1
    return kept


def _reencode(source: Any, output: Any) -> int:
    """Frames keep their times, so that what was lost is a pause; times that jump back or far ahead are made anew."""
    stream = source.streams.video[0]
    stream.codec_context.thread_count = 1
    rate = stream.average_rate if stream.average_rate and 1 <= stream.average_rate <= 240 else Fraction(25)
    target, kept, clock = None, 0, _Clock(round(_TICKS / rate))
    for packet in source.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if target is None:
                target = _stream(output, frame, Fraction(rate))
            picture = frame.reformat(target.width, target.height, format="yuv420p")
            picture.pts, picture.time_base = clock.ticks(frame.time), Fraction(1, _TICKS)
            output.mux(target.encode(picture))
            kept += 1
    if target is not None:
        output.mux(target.encode())
    return kept


class _Clock:
    """Gives frames ascending times in ticks.

    Args:
        step: Ticks of a frame whose own time is unknown or far from the one before.
    """

    def __init__(self, step: int) -> None:
        self._step, self._ticks, self._last = step, -step, 0.0

    def ticks(self, time: float | None) -> int:
        """The time of the next frame."""
        pause = _MOST_PAUSE + 1 if time is None or self._ticks < 0 else time - self._last
        if abs(pause) > _MOST_PAUSE:
            self._ticks += self._step
            self._last = self._last if time is None else time
        else:  # a frame out of order comes at once, and takes no time from the next one
            self._ticks += max(round(pause * _TICKS), 1)
            self._last = max(self._last, self._last + pause)
        return self._ticks


def _stream(output: Any, frame: av.VideoFrame, rate: Fraction) -> Any:
    options = {"preset": "veryfast", "crf": "18", "threads": "1", "x264-params": "cpu-independent=1"}
    target = output.add_stream("libx264", rate=rate, options=options)
    target.width, target.height, target.pix_fmt = frame.width // 2 * 2, frame.height // 2 * 2, "yuv420p"
    target.codec_context.time_base = Fraction(1, _TICKS)
    return target
