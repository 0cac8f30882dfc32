"""What a browser shows of a file: the file itself, or a copy in H.264 or PNG.

Shape legend: F frames, H and W pixels.
"""

import hashlib
import mimetypes
import os
import re
from pathlib import Path

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


def playable(path: Path, folder: Path) -> tuple[str, Path]:
    """HTML element that shows a file ("video" or "image"), and the file or its copy in `folder`."""
    digest, kind = _digest(path), media_kind(path)
    if kind is None:
        raise ValueError(f"path: got {shown(path.name)}, neither a video nor an image; pass one")
    served = mimetypes.guess_type(path.name)[0] or ""
    if served.startswith("image/") and _PICTURES.match(_head(path)):
        return "image", path
    if kind == "video" and _plays(path, served):
        return "video", path
    copy = folder / f"{digest}{PNG if kind == 'image' else MP4}"
    if not copy.is_file():
        partial = copy.with_stem(f"{copy.stem}-partial")
        partial.write_bytes(_copy_image(path) if kind == "image" else _copy_video(path))
        partial.replace(copy)
    return kind, copy


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


def _digest(path: Path) -> str:
    state = path.stat()
    return hashlib.blake2b(os.fsencode(f"{path}|{state.st_size}|{state.st_mtime_ns}"), digest_size=12).hexdigest()


def _copy_image(path: Path) -> bytes:
    image = open_image(path)
    image.thumbnail((2 * COPY_SIDE, 2 * COPY_SIDE))
    return encode_png(np.asarray(image))


def _copy_video(path: Path) -> bytes:
    """The first seconds, upright, small and without sound."""
    rate = max(1, min(COPY_FPS, round(video_info(path).fps or COPY_FPS)))
    video = read_video(
        path, COPY_SECONDS * rate, _copy_size, fps=rate, end=COPY_SECONDS, resize="fast"
    )  # (F, H, W, 3)
    return encode_mp4(video.frames, rate)


def _copy_size(height: int, width: int) -> tuple[int, int]:
    """Even sides (H, W) in about the given ratio, neither above the limit."""
    scale = min(1.0, COPY_SIDE / max(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)
