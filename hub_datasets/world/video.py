"""Clips as files: H.264 in MP4 for videos, PNG for pictures.

Shapes: F frames, S side in pixels. The same frames give the same bytes with the same build of the libraries.
"""

import io
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from av.codec.context import Flags
from PIL import Image

from gve.hub_datasets.world.render import frame_times, render, render_long
from gve.hub_datasets.world.spec import Clip

FRAME_SIZE = 48
CLIP_FRAMES, CLIP_FPS = 16, 8
"""A clip lasts two seconds."""
LONG_CLIPS, LONG_FRAMES, LONG_FPS = 4, 8, 4
"""A long video holds four clips of eight frames and lasts eight seconds; a reader of 8 frames meets each clip twice."""
# without cpu-independent, the encoder's look-ahead (mb-tree) rounds differently from one call to the next
_X264 = {"preset": "veryfast", "crf": "16", "threads": "1", "x264-params": "cpu-independent=1"}


def encode_mp4(frames: np.ndarray, fps: int) -> bytes:
    """Encode frames as H.264 (yuv420p) in MP4, with one thread and no time stamps, so that bytes repeat.

    Args:
        frames: (F, S, S, 3) uint8 RGB, S even.
        fps: Frames a second.

    Returns:
        The file's bytes.

    Raises:
        ValueError: If the frames have another shape or type, or odd sides.
    """
    wrong = frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0
    if wrong or frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(
            f"frames: got {frames.shape} {frames.dtype}; (F, S, S, 3) uint8 with F > 0 and even sides is accepted; "
            "convert the frames or render them at an even size"
        )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=_X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.codec_context.flags |= Flags.bitexact
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_png(frame: np.ndarray) -> bytes:
    """Encode one frame, (S, S, 3) uint8 RGB, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return buffer.getvalue()


@lru_cache(maxsize=256)
def video_bytes(clips: tuple[Clip, ...], *, size: int = FRAME_SIZE) -> bytes:
    """The MP4 file of a clip or, for several clips, of the long video that shows them one after another.

    Args:
        clips: One clip, or the clips of a long video.
        size: S, the side of a frame in pixels.

    Returns:
        The file's bytes; the last few hundred files are remembered, since the rows of a group share theirs.
    """
    if len(clips) == 1:
        return encode_mp4(render(clips[0], frame_times(CLIP_FRAMES), size=size), CLIP_FPS)
    return encode_mp4(render_long(clips, LONG_FRAMES, size=size), LONG_FPS)


@lru_cache(maxsize=256)
def picture_bytes(clip: Clip, time: float, *, size: int = FRAME_SIZE) -> bytes:
    """The PNG file of a clip at a time from 0 (its start) to 1 (its end)."""
    return encode_png(render(clip, [time], size=size)[0])
