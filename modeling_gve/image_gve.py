"""Pictures in any form, opened upright as RGB: the one opener of the project."""

import os
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from .arrays_gve import array_size, bytes_of_floats, check_aspect, is_array, rgb_array
from .media_gve import check_file, is_empty, local_source, media_kind, source_name

BROKEN = (OSError, SyntaxError, EOFError, RuntimeError, PIL.Image.DecompressionBombError)
"""What Pillow raises on files that it cannot read, RuntimeError for AVIF among them."""


class Picture(NamedTuple):
    """An image file whose header was read.

    Attributes:
        source: A path, bytes or a binary file.
        size: (height, width), before it is turned upright.
    """

    source: Any
    size: tuple[int, int]
    kind: str = "image"


def open_image(image: Any) -> PIL.Image.Image:
    """An upright RGB image.

    Args:
        image: A path, a `data:` or `file:` address, bytes, a binary file, {"bytes", "path"}, a PIL image of any mode,
            an array or tensor (H, W, C) or (C, H, W), or {"array", "layout"}. Arrays are uint8, or floats in [0, 1].

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is no image, or cannot be read.
    """
    array, layout = split_array(image)
    if array is not None:
        out = PIL.Image.fromarray(rgb_array(array, layout, "image"))
    else:
        out = _decoded(image_source(image))
    check_aspect(out.height, out.width, "image")
    return out


def image_size(image: Any) -> tuple[int, int]:
    """(height, width) of an image from its header, before it is turned upright; see `open_image`."""
    if isinstance(image, Picture):
        return image.size
    array, layout = split_array(image)
    if array is not None:
        height, width = array_size(array.shape, layout, "image")
    else:
        source = image_source(image)
        try:
            if isinstance(source, PIL.Image.Image):
                width, height = source.size
            else:
                with PIL.Image.open(source) as opened:
                    width, height = opened.size
        except BROKEN as error:
            raise _unreadable(source, error) from error
    check_aspect(height, width, "image")
    return height, width


def image_source(image: Any) -> Any:
    """What an image that is no array is read from: a PIL image, a path, or a binary file.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is a video or no accepted form.
    """
    source = local_source(image.source if isinstance(image, Picture) else image)
    if isinstance(source, (str, os.PathLike)):
        check_file(source)
        return source
    if isinstance(source, bytes):
        return BytesIO(source)
    if not (isinstance(source, PIL.Image.Image) or hasattr(source, "read")):
        got = f"a dict of {sorted(map(str, source))}" if isinstance(source, dict) else type(source).__name__
        raise ValueError(
            f"image: got {got}; accepted are a path, bytes, a binary file, {{'bytes', 'path'}}, a PIL image and an array "
            "(H, W, C) or (C, H, W); convert it"
        )
    return source


def split_array(image: Any) -> tuple[Any, str | None]:
    """The array of an image and its layout, or (None, None) if it is no array.

    Raises:
        ValueError: If it is an array of another number of axes than an image has.
    """
    layout = None
    if isinstance(image, dict) and "array" in image and image.keys() <= {"array", "layout"}:
        image, layout = image["array"], image.get("layout")
    if not is_array(image):
        return None, None
    if image.ndim == 4:
        raise ValueError(
            f"image: got a video, an array of shape {tuple(image.shape)}; accepted is one image; pass {{'video': x}}"
        )
    return image, layout


def _decoded(source: Any) -> PIL.Image.Image:
    try:
        if isinstance(source, PIL.Image.Image):
            return upright_rgb(source)
        with PIL.Image.open(source) as opened:
            return upright_rgb(opened)
    except ValueError as error:
        raise ValueError(f"image: {source_name(source)!r}: {str(error).removeprefix('image: ')}") from error
    except BROKEN as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Any, error: Exception) -> ValueError:
    name = source_name(source)
    if not isinstance(source, PIL.Image.Image) and media_kind(source) == "video":
        return ValueError(f"image: got the video {name!r}; accepted is an image; pass {{'video': path}}")
    if not isinstance(source, PIL.Image.Image) and is_empty(source):
        return ValueError(f"image: {name!r} is empty, 0 bytes; accepted are whole files; copy it again")
    # Pillow's words name the source again, with all its bytes
    reason = "no format that Pillow knows" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
    return ValueError(
        f"image: {name!r} cannot be read ({reason}); accepted are Pillow's formats, complete; repair or convert it, and "
        "pass a video as {'video': ...}"
    )


def upright_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """An image of any mode as RGB, turned as its EXIF tag says; (H, W) uint8 levels.

    Transparent pixels become white: what colour a file stores beneath them is arbitrary. Grey levels of 16 and 32 bits
    are scaled to 8.

    Raises:
        ValueError: If a 32-bit image holds values that are no grey levels.
    """
    if name := getattr(image, "filename", ""):
        # Pillow maps the TIFF of a file with a name into memory before its orientation is known, at a wrong size
        image.filename = ""
        image.load()
        image.filename = name
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _deep_grey(image: PIL.Image.Image) -> PIL.Image.Image:
    """16-bit and 32-bit grey levels to 8 bits; Pillow's own conversion would clip them at 255."""
    levels = np.asarray(image)
    if image.mode == "F":
        grey = bytes_of_floats(levels, "image")
    else:
        low, high = int(levels.min()), int(levels.max())
        if low < 0 or high > 65535:
            raise ValueError(f"image: got grey levels from {low} to {high}; accepted are 0 to 65535; scale them")
        grey = np.rint(levels.astype(np.float32) / 257).astype(np.uint8)
    return PIL.Image.fromarray(grey).convert("RGB")
