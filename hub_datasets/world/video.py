"""Clips as files: H.264 in MP4, and PNG. Same clips and same library builds give the same bytes."""

from functools import lru_cache

from gve.hub_datasets.world.render import frame_times, render, render_long
from gve.hub_datasets.world.spec import Clip
from gve.video_writer import encode_mp4, encode_png

FRAME_SIZE = 48
CLIP_FRAMES, CLIP_FPS = 16, 8
"""A clip lasts two seconds."""
LONG_CLIPS, LONG_FRAMES, LONG_FPS = 4, 8, 4
"""A long video has four clips of eight frames and lasts eight seconds; a reader of 8 frames sees each clip twice."""


@lru_cache(maxsize=256)
def video_bytes(clips: tuple[Clip, ...], *, size: int = FRAME_SIZE) -> bytes:
    """MP4 of one clip, or of a long video; the last files are cached because rows of a group share them."""
    if len(clips) == 1:
        return encode_mp4(render(clips[0], frame_times(CLIP_FRAMES), size=size), CLIP_FPS)
    return encode_mp4(render_long(clips, LONG_FRAMES, size=size), LONG_FPS)


@lru_cache(maxsize=256)
def picture_bytes(clip: Clip, time: float, *, size: int = FRAME_SIZE) -> bytes:
    """PNG of a clip at a time from 0 (start) to 1 (end)."""
    return encode_png(render(clip, [time], size=size)[0])
