"""What a browser shows of a file: the file itself, or a copy in H.264 or PNG.

Shapes: F frames, H and W pixels of one.
"""

import hashlib
from pathlib import Path

import av
from PIL import Image, ImageOps

from gve import read_video, video_info
from gve.eval.inputs import file_row
from gve.hub_datasets.world.video import encode_mp4

COPY_SECONDS, COPY_FPS, COPY_SIDE = 10, 16, 480
"""Length, frames a second and longest side of a copy at most."""
_IMAGES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"})
_VIDEOS = {".mp4": ("h264", "av1", "vp9"), ".m4v": ("h264",), ".webm": ("vp8", "vp9", "av1")}
"""Codecs that the common browsers play, by suffix."""
_PIXELS = ("yuv420p", "yuvj420p")


def playable(path: Path, folder: Path) -> tuple[str, Path]:
    """A file that a browser shows.

    Args:
        path: A video or an image.
        folder: Where copies are kept, one for each state of a file.

    Returns:
        "video" or "image", by the HTML element that shows it, and the file: `path` itself or a copy.

    Raises:
        ValueError: If the file is not there, is neither video nor image, or cannot be decoded.
        OSError: If an image cannot be decoded.
    """
    kind = next(iter(file_row(path)))
    suffix = path.suffix.lower()
    if suffix in _IMAGES and (kind == "image" or suffix == ".gif"):
        return "image", path
    if kind == "video" and _plays(path):
        return "video", path
    copy = folder / f"{_digest(path)}{'.png' if kind == 'image' else '.mp4'}"
    if not copy.is_file():
        partial = copy.with_stem(f"{copy.stem}-partial")
        (_copy_image if kind == "image" else _copy_video)(path, partial)
        partial.replace(copy)
    return kind, copy


def _plays(path: Path) -> bool:
    """Whether the container and the codec are among those that browsers know; one that cannot be opened is not."""
    codecs = _VIDEOS.get(path.suffix.lower(), ())
    if not codecs:
        return False
    try:
        with av.open(str(path)) as container:
            contexts = [stream.codec_context for stream in container.streams.video]
            return bool(contexts) and contexts[0].codec.canonical_name in codecs and contexts[0].pix_fmt in _PIXELS
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    state = path.stat()
    return hashlib.blake2b(f"{path}|{state.st_size}|{state.st_mtime_ns}".encode(), digest_size=12).hexdigest()


def _copy_image(path: Path, target: Path) -> None:
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((2 * COPY_SIDE, 2 * COPY_SIDE))
    image.save(target, format="PNG")


def _copy_video(path: Path, target: Path) -> None:
    """The first seconds, upright, small and without sound."""
    rate = max(1, min(COPY_FPS, round(video_info(path).fps or COPY_FPS)))
    video = read_video(
        path, COPY_SECONDS * rate, _copy_size, sampling="fps", fps=rate, end=COPY_SECONDS, resize="fast"
    )  # (F, H, W, 3)
    target.write_bytes(encode_mp4(video.frames, rate))


def _copy_size(height: int, width: int) -> tuple[int, int]:
    """Even sides (H, W) in about the given ratio, neither above the limit."""
    scale = min(1.0, COPY_SIDE / max(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)
