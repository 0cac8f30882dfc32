"""Single frames of a record's video: sampling, how sharp and bright they are, JPEG files, and cutting out a clip.

Shapes: F frames, H and W in pixels; frames are uint8 RGB, times are seconds from the video's first frame.
"""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.codec.context import Flags
from PIL import Image

from gve.hub_datasets.vsynflow.records import open_video

MOST_PIXELS = 200 * 28 * 28
"""Of a frame that a captioner is shown: 200 visual tokens of 28 x 28 pixels (paper, section A.7)."""
MOST_CLIP_PIXELS = 854 * 480
"""Of a frame of a clip that is cut out; a model sees fewer, and encoding is what a clip costs."""
_RATE_LIMIT = 30
# without cpu-independent, the encoder's look-ahead rounds differently from one call to the next
_X264 = {"preset": "veryfast", "crf": "18", "threads": "1", "x264-params": "cpu-independent=1"}


class Still(NamedTuple):
    """A frame, (H, W, 3), and its time."""

    time: float
    pixels: np.ndarray


def _quiet() -> None:
    """Errors only, and through no Python callback, which may deadlock beside other threads."""
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)


def read_times(record: Mapping[str, Any]) -> np.ndarray:
    """Times of all frames, (F,), ascending, by their packets alone; nothing is decoded.

    Raises:
        av.FFmpegError: If the file cannot be opened.
        ValueError: If no packet has a time.
    """
    _quiet()
    with av.open(open_video(record)) as container:
        stream = container.streams.video[0]
        times = [float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None and p.size]
    if not times:
        raise ValueError(f"record: no packet of {record['id']!r} has a time; a video with time stamps is accepted")
    return np.sort(np.array(times)) - min(times)


def read_stills(record: Mapping[str, Any], times: Sequence[float]) -> list[Still]:
    """The frames that are shown at given times, decoded in one pass.

    Args:
        record: A record with a video.
        times: Seconds, ascending.

    Returns:
        As many frames as times; past the end the last frame is repeated.

    Raises:
        av.FFmpegError: If the file cannot be decoded.
        ValueError: If it has no frame.
    """
    _quiet()
    stills: list[Still] = []
    last: tuple[float, av.VideoFrame] | None = None
    start = None
    with av.open(open_video(record)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            if frame.time is None:
                continue
            start = frame.time if start is None else start
            time = frame.time - start
            # only frames that are wanted are turned to RGB, which takes as long as decoding them
            while last is not None and len(stills) < len(times) and times[len(stills)] < time - 1e-6:
                stills.append(_still(*last))
            if len(stills) == len(times):
                break
            last = (time, frame)
    if last is None:
        raise ValueError(f"record: {record['id']!r} has no frame that can be decoded; a whole video is accepted")
    missing = len(times) - len(stills)
    return stills + ([_still(*last)] * missing if missing else [])


def _still(time: float, frame: av.VideoFrame) -> Still:
    return Still(time, frame.to_ndarray(format="rgb24"))


def sample_stills(record: Mapping[str, Any], count: int) -> list[Still]:
    """Frames at the middles of `count` equal parts of the video."""
    times = read_times(record)
    places = ((np.arange(count) + 0.5) / count * len(times)).astype(int)
    return read_stills(record, times[places].tolist())


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luma, (H, W) float32 in 0 to 255."""
    return np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)


def sharpness(pixels: np.ndarray) -> float:
    """Variance of the Laplacian of the luma; low where a frame is blurred."""
    luma = grey(pixels)
    inner = luma[1:-1, 1:-1]
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(edges.var())


def fit(pixels: np.ndarray, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """A picture of at most so many pixels, with the same shape."""
    image = Image.fromarray(pixels)
    scale = (most_pixels / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def jpeg(pixels: np.ndarray, *, most_pixels: int = MOST_PIXELS, quality: int = 90) -> bytes:
    """An encoded JPEG file of a frame, made smaller where it has too many pixels."""
    buffer = io.BytesIO()
    fit(pixels, most_pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def cut_clip(record: Mapping[str, Any], start: float, end: float) -> bytes:
    """An MP4 file (H.264) of the frames from `start` to `end`, encoded anew; the same call gives the same bytes.

    Args:
        record: A record with a video.
        start: Seconds.
        end: Seconds; its frame is left out.

    Raises:
        av.FFmpegError: If the file cannot be decoded.
        ValueError: If fewer than two frames lie between.
    """
    times = [float(time) for time in read_times(record) if start - 1e-6 <= time < end - 1e-6]
    if len(times) < 2:
        raise ValueError(f"start, end: got {start} and {end} s, which hold {len(times)} frames; two are needed")
    rate = min(_RATE_LIMIT, max(1, round((len(times) - 1) / (times[-1] - times[0]))))
    step = (end - start) / max(2, round((end - start) * rate))
    wanted = [start + step * (number + 0.5) for number in range(max(2, round((end - start) * rate)))]
    return encode_mp4([still.pixels for still in read_stills(record, wanted)], rate, most_pixels=MOST_CLIP_PIXELS)


def encode_mp4(frames: Sequence[np.ndarray], rate: int, *, most_pixels: int | None = None) -> bytes:
    """Encode frames as H.264 with one thread and without time stamps, so that the same frames give the same bytes.

    Args:
        frames: F of (H, W, 3); an odd side loses a pixel.
        rate: Frames a second.
        most_pixels: Pixels that a frame may have; larger ones are made smaller. None keeps their size.
    """
    _quiet()
    buffer = io.BytesIO()
    height, width = frames[0].shape[:2]
    scale = 1.0 if most_pixels is None else min(1.0, (most_pixels / (height * width)) ** 0.5)
    height, width = (max(2, int(side * scale) // 2 * 2) for side in (height, width))
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=_X264)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = Fraction(1, rate)
        stream.codec_context.flags |= Flags.bitexact
        for pixels in frames:
            shown = pixels if scale < 1 else np.ascontiguousarray(pixels[:height, :width])
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            container.mux(stream.encode(frame.reformat(width, height, "yuv420p")))
        container.mux(stream.encode())
    return buffer.getvalue()
