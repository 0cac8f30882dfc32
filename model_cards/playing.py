"""What a browser shows of a file: the file itself, or a copy in H.264 or PNG.

Shape legend: F frames, H and W pixels.
"""

import hashlib
import mimetypes
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gve.image_gve import open_image
from gve.media_gve import MP4, PNG, media_kind, shown
from gve.video_gve import FrameStream, read_video, video_info
from gve.video_writer import encode_mp4, encode_png

COPY_SECONDS, COPY_FPS, COPY_SIDE = 10, 16, 480
"""Limits of a copy: seconds, frames a second, pixels of the longest side."""
_PICTURES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|BM|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
"""First bytes of the files that common browsers show as pictures, animations included."""
_VIDEOS = {
    "video/mp4": ("mp4", ("h264", "av1", "vp9")),
    "video/webm": ("webm", ("vp8", "vp9", "av1")),
}
"""Container and codecs that common browsers play, by the media type that a server sends for the file's name."""
_PIXELS = ("yuv420p", "yuvj420p")


class View(NamedTuple):
    """How a page shows a file: the HTML element, "video" or "image", and whether browsers need a copy."""

    element: str
    copied: bool


def view_of(path: Path) -> View:
    """Judge a file by its content; ValueError if it is neither a video nor an image."""
    return _judge(path, *_state(path))


def copy_for_browsers(path: Path, folder: Path, start: float | None = None, end: float | None = None) -> Path:
    """The copy of a file in `folder`, made at the first call; of a stretch of a video in seconds, if given."""
    element, copied = view_of(path)
    assert copied
    key = f"{path}|{_state(path)}|{start}|{end}"
    copy = (
        folder / f"{hashlib.blake2b(os.fsencode(key), digest_size=12).hexdigest()}{PNG if element == 'image' else MP4}"
    )
    if not copy.is_file():
        partial = copy.with_stem(f"{copy.stem}-partial")
        partial.write_bytes(_copy_image(path) if element == "image" else _copy_video(path, start or 0.0, end))
        partial.replace(copy)
    return copy


@lru_cache(maxsize=4096)
def _judge(path: Path, size: int, changed: int) -> View:
    kind = media_kind(path)
    if kind is None:
        raise ValueError(f"path: got {shown(path.name)}, neither a video nor an image; pass one")
    served = mimetypes.guess_type(path.name)[0] or ""
    if served.startswith("image/") and _PICTURES.match(_head(path)):
        return View("image", copied=False)
    return View(kind, copied=kind == "image" or not _plays(path, served))


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _plays(path: Path, served: str) -> bool:
    """Whether browsers decode the container, codec and pixel format of a video."""
    container, codecs = _VIDEOS.get(served, ("", ()))
    info = video_info(path) if codecs else None
    if info is None or container not in info.container or info.codec not in codecs:
        return False
    with FrameStream(path) as stream:
        return next((frame.format.name in _PIXELS for _, frame in stream), False)


def _copy_image(path: Path) -> bytes:
    image = open_image(path)
    image.thumbnail((2 * COPY_SIDE, 2 * COPY_SIDE))
    return encode_png(np.asarray(image))


def _copy_video(path: Path, start: float, end: float | None) -> bytes:
    """The first seconds of a stretch, upright, small and without sound."""
    rate = max(1, min(COPY_FPS, round(video_info(path).fps or COPY_FPS)))
    until = start + COPY_SECONDS if end is None else min(end, start + COPY_SECONDS)
    video = read_video(
        path, COPY_SECONDS * rate, _copy_size, fps=rate, start=start, end=until, resize="fast"
    )  # (F, H, W, 3)
    return encode_mp4(video.frames, rate)


def _copy_size(height: int, width: int) -> tuple[int, int]:
    """Even sides (H, W) in about the given ratio, neither above the limit."""
    scale = min(1.0, COPY_SIDE / max(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)
