"""One repair of a damaged video [A.5]: the same packets in a new container, else the frames that still decode."""

import io
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import av

from gve.convert_gve import frame_rgb
from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.vsynflow.records import open_place
from gve.video_gve import FrameStream, VideoSource
from gve.video_writer import h264_writer, remux

METHODS = ("remux", "reencode")
_TICKS, _CRF = 1000, 18  # a second's parts in a re-encoded copy, and its quality
# a longer pause between frames, in seconds, is damage; then this frame rate is assumed
_MOST_PAUSE, _USUAL_RATE = 10.0, 25


def repair(place: Mapping[str, Any], method: str, target: str) -> None:
    """Write an mp4: "remux" keeps packets, "reencode" keeps pictures (H.264, upright); ValueError if nothing stays."""
    try:
        content = (remux if method == "remux" else _reencode)(open_place(place))
    except ValueError as error:
        raise ValueError(f"unrepairable: {error}") from error
    write_atomic(Path(target), content)


def _reencode(source: VideoSource) -> bytes:
    """Frames keep their times, so lost frames become a pause; where times leap ahead, a usual step is taken."""
    buffer, tick, before = io.BytesIO(), 0, 0.0
    with FrameStream(source) as stream:
        pictures = ((time, frame_rgb(frame)) for time, frame in stream)
        first = next(pictures, None)
        if first is None:
            raise ValueError("no frame")
        height, width = (side // 2 * 2 for side in first[1].shape[:2])
        with h264_writer(buffer, (height, width), _USUAL_RATE, crf=_CRF, clock=_TICKS) as write:
            for time, picture in chain([first], pictures):
                pause = time - before
                if time:
                    tick += max(round((pause if pause <= _MOST_PAUSE else 1 / _USUAL_RATE) * _TICKS), 1)
                before = time
                write(av.VideoFrame.from_ndarray(picture, format="rgb24"), tick)
    return buffer.getvalue()
