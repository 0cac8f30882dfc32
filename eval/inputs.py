"""Rows of datasets and files on disk as inputs of an encoder."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gve.image_gve import open_image
from gve.media_gve import is_named, local_source, media_kind

MODALITIES = ("video", "image", "text")
"""The keys of a row that are encoded, in the order in which the encoder reads them."""


def encoder_input(row: Mapping[str, Any]) -> str | dict[str, Any]:
    """One row as any encoder takes it: a text, or a dict of video, image and text.

    Args:
        row: Has text, image or video, each possibly None or absent; an image or video is {"bytes", "path"}, a path, an
            address or an already decoded object. Other keys, such as id, are ignored.

    Returns:
        The text itself for a row of text alone; else a dict without None, videos as paths or binary buffers, and
        images as upright RGB images of PIL, for encoders that would open files in another way.

    Raises:
        ValueError: For a row with nothing to encode, or a medium that cannot be read.
    """
    present = {key: row[key] for key in MODALITIES if row.get(key) is not None}
    if not present:
        raise ValueError(
            f"row: keys {sorted(row)} hold no text, image or video; a row needs at least one; fill it or leave it out"
        )
    if set(present) == {"text"}:
        text = present["text"]
        # a string that names a file or an address would be read as that medium; the dict says that it is text
        return {"text": text} if is_named(text) else text
    if "video" in present:
        present["video"] = _video(present["video"])
    if "image" in present:
        present["image"] = open_image(present["image"])
    return present


def file_row(path: Path) -> dict[str, str]:
    """A row that holds one file, by what the file is: {"video": path} or {"image": path}.

    Raises:
        ValueError: When there is no such file, it is empty, or it is neither a video nor an image.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file" if not path.exists() else f"{path}: not a regular file")
    if not path.stat().st_size:
        raise ValueError(f"{path}: the file is empty")
    kind = media_kind(path)
    if kind is None:
        raise ValueError(f"{path}: neither a video nor an image, by its content and its suffix {path.suffix!r}")
    return {kind: str(path)}


def _video(medium: Any) -> Any:
    """A path as text, a binary buffer, or decoded frames unchanged."""
    try:
        source = local_source(medium)
    except ValueError as error:
        raise ValueError(f"video: {error}") from error
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return str(source) if isinstance(source, Path) else source
