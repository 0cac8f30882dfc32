"""What a file is and how large it is, seen in one opening: what planning needs, and reading need not find again."""

from os import PathLike
from pathlib import Path
from typing import Any

from .frames_gve import Form
from .image_gve import Picture, image_size
from .media_gve import check_file, local_source, media_kind, source_name, suffix_kind
from .video_gve import video_info


def look(source: Any, kind: str | None = None) -> Picture | Form:
    """A file with its kind and its size, from its headers.

    Args:
        source: A path, an address, bytes, a binary file, or {"bytes", "path"}.
        kind: "image" or "video", where the caller knows; else the content decides.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If its headers cannot be read.
    """
    source = local_source(source)
    if isinstance(source, (str, PathLike)):
        check_file(source)
        with Path(source).open("rb") as file:
            return _look(source, file, kind or media_kind(file) or suffix_kind(source))
    return _look(source, source, kind or media_kind(source))


def _look(source: Any, file: Any, kind: str | None) -> Picture | Form:
    if kind == "image":
        return Picture(source, image_size(file))
    if kind is None:
        raise ValueError(
            f"got {source_name(source)!r}, which is neither an image nor a video; accepted are files of those; to embed the "
            "words themselves pass {'text': ...}"
        )
    info = video_info(file)
    return Form(file=source, size=(info.height, info.width))
