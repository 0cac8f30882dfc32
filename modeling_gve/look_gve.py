"""What a file is and how large it is, seen in one opening: what planning needs, and reading need not find again."""

from os import PathLike
from typing import Any

from .frames_gve import Form
from .image_gve import Picture, image_size
from .media_gve import check_file, local_source, media_kind
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
    if (kind or media_kind(source)) == "image":
        return Picture(source, image_size(source))
    info = video_info(source)
    return Form(file=source, size=(info.height, info.width))
