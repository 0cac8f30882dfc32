"""Rows of datasets and files on disk as inputs of an encoder."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

MODALITIES = ("video", "image", "text")
"""The keys of a row that are encoded, in the order in which the encoder reads them."""

IMAGE_SUFFIXES = frozenset({".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".psd", ".tif", ".tiff", ".webp"})

VIDEO_SUFFIXES = frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc", ".ivf"),
        *(".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts"),
        *(".mxf", ".nut", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".swf", ".ts", ".vob", ".webm", ".wmv"),
        ".y4m",
    }
)
"""Suffixes taken as video; whether a file can be decoded shows when it is read. A gif of one image is an image."""


def encoder_input(row: Mapping[str, Any]) -> str | dict[str, Any]:
    """One row as an encoder takes it: a text, or a dict of video, image and text.

    Args:
        row: Has text, image or video, each possibly None or absent; an image or video is {"bytes", "path"}, a path or
            an already decoded object. Other keys, such as id, are ignored.

    Returns:
        The text itself for a row of text alone; else a dict without None, videos as paths or open binary buffers and
        images as RGB images of PIL.

    Raises:
        ValueError: For a row with nothing to encode, or a medium with neither bytes nor path.
    """
    present = {key: row[key] for key in MODALITIES if row.get(key) is not None}
    if not present:
        raise ValueError(
            f"row: keys {sorted(row)} hold no text, image or video; a row needs at least one; fill it or leave it out"
        )
    if set(present) == {"text"}:
        text = present["text"]
        # A string that names a file or an address would be read as that medium; the dict says that it is text.
        return {"text": text} if _names_medium(text) else text
    if "video" in present:
        present["video"] = _video(present["video"])
    if "image" in present:
        present["image"] = _image(present["image"])
    return present


def file_row(path: Path) -> dict[str, str]:
    """A row that holds one file, by its suffix.

    Args:
        path: A video or image file.

    Returns:
        {"video": path} or {"image": path}.

    Raises:
        ValueError: When there is no such file, it is empty, or its suffix is neither a video's nor an image's.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if not path.stat().st_size:
        raise ValueError(f"{path}: the file is empty")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or (suffix == ".gif" and not _moves(path)):
        return {"image": str(path)}
    if suffix in VIDEO_SUFFIXES:
        return {"video": str(path)}
    raise ValueError(f"{path}: suffix {suffix!r} is neither a video's nor an image's")


def _names_medium(text: str) -> bool:
    """Whether an encoder might take the text for a file or an address."""
    suffix = "." + text.rpartition(".")[2].lower()
    return text.startswith(("http://", "https://", "data:")) or suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _unpack(medium: Any, kind: str) -> Any:
    """The bytes or the path of a stored medium; anything else unchanged."""
    if not isinstance(medium, Mapping):
        return medium
    content = medium.get("bytes")
    source = medium.get("path") if content is None else content
    if source is None:
        raise ValueError(f"{kind}: neither bytes nor path; one of them is needed; store the encoded file or its path")
    return source


def _video(medium: Any) -> Any:
    """A path as text, a binary buffer, or decoded frames unchanged."""
    source = _unpack(medium, "video")
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return str(source) if isinstance(source, Path) else source


def _image(medium: Any) -> Any:
    """An upright RGB image of PIL; decoded arrays unchanged."""
    source = _unpack(medium, "image")
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    if isinstance(source, str | Path | io.IOBase):
        with Image.open(source) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    return source


def _moves(path: Path) -> bool:
    """Whether an image file holds more than one image; a file that cannot be read is left to the video reader."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except OSError:
        return True
