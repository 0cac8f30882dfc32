"""Files by their suffix, and images in any form, opened upright as RGB."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from .arrays_gve import array_size, bytes_of_floats, check_aspect, is_array, rgb_array
from .video_gve import Frames

STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
IMAGE_SUFFIXES = STILL_SUFFIXES | {".gif", ".webp"}
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv", ".3gp"}
)
STILL_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")


def media_kind(path: Any) -> str | None:
    """What a path's suffix says it is.

    Args:
        path: A string or path.

    Returns:
        "image", "video", or None for anything else, texts among them.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or len(name) > 4096 or "\n" in name:
        return None
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a text is no path, and this is ten times as fast
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def check_path(path: Any) -> None:
    """Refuse a path that names no file.

    Args:
        path: A string or path.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is an address.
    """
    name = os.fspath(path)
    if isinstance(name, str) and "://" in name[:12]:
        raise ValueError(f"got the address {name[:100]!r}; accepted are files on disk and bytes; download it first")
    if "\0" in name or not Path(name).is_file():
        raise FileNotFoundError(
            f"got {name!r}, which no file is named; accepted is a path that exists; to embed the words themselves pass "
            "{'text': ...}"
        )


def image_source(image: Any) -> Any:
    """What an image is read from.

    Args:
        image: An image in any form that is no array.

    Returns:
        A PIL image, a path, or a binary file.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is a video or no accepted form.
    """
    if isinstance(image, dict) and image and image.keys() <= {"bytes", "path"}:
        image = image["bytes"] if image.get("bytes") is not None else image.get("path")
    if isinstance(image, str) and image.startswith("data:"):
        try:
            image = base64.b64decode(image.partition(",")[2], validate=True)
        except ValueError as error:
            raise ValueError(
                f"image: got a data address that is not base64 ({error}); accepted is base64; redo it"
            ) from error
    if isinstance(image, (str, os.PathLike)):
        if media_kind(image) == "video":
            raise ValueError(
                f"image: got the video {os.fspath(image)!r}; accepted is an image; pass {{'video': path}}"
            )
        check_path(image)
    elif isinstance(image, (bytes, bytearray, memoryview)):
        return io.BytesIO(image)
    elif isinstance(image, Frames) or not (isinstance(image, PIL.Image.Image) or hasattr(image, "read")):
        got = f"a dict of {sorted(map(str, image))}" if isinstance(image, dict) else type(image).__name__
        raise ValueError(
            f"image: got {got}; accepted are a path, bytes, a binary file, {{'bytes', 'path'}}, a PIL image and an array "
            "(H, W, C) or (C, H, W); convert it"
        )
    return image


def split_array(image: Any) -> tuple[Any, str | None]:
    """The array of an image and its layout.

    Args:
        image: An image in any form.

    Returns:
        (array, layout or None), or (None, None) if it is no array.

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


def open_image(image: Any) -> PIL.Image.Image:
    """An upright RGB image.

    Args:
        image: A path, bytes, a binary file, {"bytes", "path"}, a base64 data address, a PIL image of any mode, an
            array or tensor (H, W, C) or (C, H, W), or {"array", "layout"}. Arrays are uint8, or floats in [0, 1].

    Returns:
        The image.

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
    """Height and width of an image, from its header.

    Args:
        image: As for `open_image`.

    Returns:
        (height, width), before the image is turned upright.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is no image.
    """
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
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise _unreadable(source, error) from error
    check_aspect(height, width, "image")
    return height, width


def _decoded(source: Any) -> PIL.Image.Image:
    try:
        if isinstance(source, PIL.Image.Image):
            return upright_rgb(source)
        with PIL.Image.open(source) as opened:
            return upright_rgb(opened)
    except ValueError as error:
        raise ValueError(f"image: {image_name(source)!r}: {str(error).removeprefix('image: ')}") from error
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Any, error: Exception) -> ValueError:
    return ValueError(
        f"image: {image_name(source)!r} cannot be read ({error}); accepted are Pillow's formats, complete; repair or "
        "convert it, and pass a video as {'video': ...}"
    )


def image_name(source: Any) -> str:
    """A name for messages.

    Args:
        source: What `image_source` gives.

    Returns:
        The path, or what kind of source it is.
    """
    if isinstance(source, (str, os.PathLike)):
        return str(os.fspath(source))
    if isinstance(source, PIL.Image.Image):
        return str(getattr(source, "filename", "") or "<PIL image>")
    return "<bytes>" if isinstance(source, io.BytesIO) else str(getattr(source, "name", "<file object>"))


def upright_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """An image of any mode, turned as its EXIF tag says, as RGB.

    Transparent pixels become white: what colour a file stores beneath them is arbitrary.

    Args:
        image: A PIL image.

    Returns:
        The image in mode RGB.

    Raises:
        ValueError: If a 32-bit image holds values that are no grey levels.
    """
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
