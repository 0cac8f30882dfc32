"""One attempt to repair a damaged video [A.5]: the same packets in a new container, else the frames that still decode."""

import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from gve.hub_datasets.vsynflow.quality.measure import read_place

METHODS = ("remux", "reencode")


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
            av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact", "movflags": "faststart"}) as output,
        ):
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
    stream = source.streams.video[0]
    target, kept = output.add_stream_from_template(stream), 0
    for packet in source.demux(stream):
        if packet.dts is not None and packet.size and not packet.is_corrupt:
            packet.stream = target
            output.mux(packet)
            kept += 1
    return kept


def _reencode(source: Any, output: Any) -> int:
    stream = source.streams.video[0]
    stream.codec_context.thread_count = 1
    rate = stream.average_rate or Fraction(25)
    target, kept = None, 0
    for packet in source.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if target is None:
                options = {"preset": "veryfast", "crf": "18", "threads": "1", "x264-params": "cpu-independent=1"}
                target = output.add_stream("libx264", rate=rate, options=options)
                target.width, target.height, target.pix_fmt = frame.width // 2 * 2, frame.height // 2 * 2, "yuv420p"
            picture = frame.reformat(target.width, target.height, format="yuv420p")
            picture.pts, picture.time_base = kept, 1 / Fraction(rate)
            output.mux(target.encode(picture))
            kept += 1
    if target is not None:
        output.mux(target.encode())
    return kept
