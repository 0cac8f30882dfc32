"""Frames as files: H.264 or JPEG pictures in MP4, moving WebP, PNG; the writers of the project.

The same frames give the same bytes with the same build of the libraries: one thread, no time of writing.

Shapes: F frames, H height, W width; frames are (H, W, 3) uint8 RGB.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import VideoReformatter
from PIL import Image

from .container_gve import Container
from .source_gve import Budget, Limits, VideoSource, open_source, unreadable

JPEG_CLOCK, WEBP_CLOCK = 90_000, 1_000
"""Ticks a second of `encode_jpegs` and `encode_webp`."""
# without cpu-independent, the encoder's look-ahead (mb-tree) rounds differently from one call to the next
_X264 = {"preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
_BITEXACT = {"fflags": "+bitexact"}


def encode_mp4(
    frames: Sequence[np.ndarray] | np.ndarray, fps: int, *, crf: int = 16, max_pixels: int | None = None
) -> bytes:
    """H.264 (yuv420p) in MP4, from F frames (H, W, 3) of one size.

    Args:
        crf: Quality as x264 counts it, 0 (best) to 51.
        max_pixels: Largest frame; larger ones are resized, and an odd side loses a pixel. None keeps the size.
    """
    height, width = _size(frames, even=max_pixels is None)
    scale = 1.0 if max_pixels is None else min(1.0, (max_pixels / (height * width)) ** 0.5)
    height, width = (max(2, int(side * scale) // 2 * 2) for side in (height, width))
    buffer = io.BytesIO()
    with h264_writer(buffer, (height, width), fps, crf=crf, clock=fps) as write:
        for number, pixels in enumerate(frames):
            kept = pixels if scale < 1 else np.ascontiguousarray(pixels[:height, :width])
            write(av.VideoFrame.from_ndarray(kept, format="rgb24"), number)
    return buffer.getvalue()


def mp4_output(file: BinaryIO) -> Any:
    """PyAV's container for an MP4 file that is written."""
    return av.open(file, "w", format="mp4", options=_BITEXACT)


@contextmanager
def h264_writer(
    file: BinaryIO, size: tuple[int, int], rate: int | Fraction, *, crf: int, clock: int
) -> Iterator[Callable[[av.VideoFrame, int], None]]:
    """Yield a function that appends a frame, at a time in ticks, to an MP4 file.

    Args:
        size: (height, width), both even; frames are resized to it.
        clock: Ticks a second.
    """
    # by itself each frame would build another, with threads of its own: three times as slow
    scale = VideoReformatter()
    with mp4_output(file) as container:
        stream = container.add_stream("libx264", rate=rate, options=_X264 | {"crf": str(crf)})
        stream.height, stream.width = size
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, clock)
        stream.codec_context.time_base = Fraction(1, clock)  # else times are rounded to the frame rate
        stream.codec_context.flags |= Flags.bitexact

        def write(frame: av.VideoFrame, tick: int) -> None:
            picture = scale.reformat(frame, size[1], size[0], "yuv420p", threads=1)
            picture.pts, picture.time_base = tick, Fraction(1, clock)
            container.mux(stream.encode(picture))

        yield write
        container.mux(stream.encode())


def remux(source: VideoSource) -> bytes:
    """The packets of a video in a new MP4 file; damaged ones, and those whose time does not ascend, stay behind."""
    buffer, last, limits = io.BytesIO(), None, Limits()
    with open_source(source, limits) as opened, Container(opened, Budget(opened.name, limits), quick=False) as found:
        try:
            with mp4_output(buffer) as container:
                stream = container.add_stream_from_template(found.stream)
                for packet in found.packets():
                    if packet.dts is None or packet.is_corrupt or (last is not None and packet.dts <= last):
                        continue
                    last, packet.stream = packet.dts, stream
                    container.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise unreadable(opened.name, f"its packets do not fit into MP4 ({error})") from error
        if last is None:
            raise unreadable(opened.name, "no packet of it can be kept")
    return buffer.getvalue()


def encode_jpegs(frames: Sequence[np.ndarray], ticks: Sequence[int], *, quality: int) -> bytes:
    """JPEG files as the packets of an MP4 file, which every player and reader accepts.

    Args:
        ticks: F starts and the end of the last frame, ascending, in parts of JPEG_CLOCK.
        quality: 1 to 100.
    """
    height, width = _size(frames, even=False)
    base, buffer = Fraction(1, JPEG_CLOCK), io.BytesIO()
    with mp4_output(buffer) as container:
        stream: Any = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, "yuvj444p", base
        for frame, start, end in zip(frames, ticks, ticks[1:], strict=False):
            packet = av.Packet(_picture(frame, "JPEG", quality=quality, subsampling=0))
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, True
            packet.pts = packet.dts = start
            packet.duration = end - start
            container.mux(packet)
    return buffer.getvalue()


def encode_webp(frames: Sequence[np.ndarray], ticks: Sequence[int], *, quality: int) -> bytes:
    """A moving WebP picture of whole frames; `ticks` as for `encode_jpegs`, in parts of WEBP_CLOCK."""
    _size(frames, even=False)
    rest, lengths = [Image.fromarray(frame) for frame in frames[1:]], np.diff(ticks).tolist()
    options = {"append_images": rest, "duration": lengths, "quality": quality, "method": 4, "kmin": 1, "kmax": 1}
    return _picture(frames[0], "WEBP", save_all=True, **options)


def encode_png(frame: np.ndarray) -> bytes:
    """One frame without loss."""
    return _picture(frame, "PNG")


def _picture(frame: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, kind, **options)
    return buffer.getvalue()


def _size(frames: Sequence[np.ndarray] | np.ndarray, *, even: bool) -> tuple[int, int]:
    """(height, width) of all frames."""
    kinds = {(frame.shape, str(frame.dtype)) for frame in frames}
    shape, dtype = next(iter(kinds)) if len(kinds) == 1 else ((), "")
    wrong = len(shape) != 3 or shape[-1] != 3 or dtype != "uint8" or 0 in shape
    if wrong or (even and (shape[0] % 2 or shape[1] % 2)):
        raise ValueError(
            f"frames: got {len(frames)} of {sorted(map(str, kinds))[:4]}; at least one (H, W, 3) uint8 is accepted, all of "
            f"one size{' with even sides' if even else ''}; convert, crop or resize them"
        )
    return shape[0], shape[1]
