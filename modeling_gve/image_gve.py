"""Pictures in any form, opened upright as RGB: the one opener of the project."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from .media_gve import check_file, is_empty, local_source, media_kind, source_name

BROKEN = (OSError, SyntaxError, EOFError, RuntimeError, PIL.Image.DecompressionBombError)
"""What Pillow raises on files that it cannot read, RuntimeError for AVIF among them."""


class Picture(NamedTuple):
    """An image file whose header was read."""

    source: Any  # a path, bytes or a binary file
    size: tuple[int, int]  # (height, width), before it is turned upright
    kind: str = "image"


def open_image(image: Any) -> PIL.Image.Image:
    """An upright RGB image.

    Args:
        image: A path, a `data:` or `file:` address, bytes, a binary file, {"bytes", "path"}, a PIL image of any mode,
            an array or tensor (H, W, C) or (C, H, W), or {"array", "layout"}. Arrays are uint8, or floats in [0, 1].

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is not an image, or cannot be read.
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
    """What to read an image from, unless it is an array: a PIL image, a path, or a binary file."""
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
    """The array of an image and its layout, or (None, None) if it is not an array."""
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


CHANNELS = (1, 3)
MAX_ASPECT = 200
"""Longer side over shorter side at most, as for Qwen2.5-VL."""

LAYOUTS = {"image": ("HWC", "CHW"), "video": ("THWC", "TCHW")}


def is_array(value: Any) -> bool:
    """Whether a value is a numpy array or a tensor."""
    return isinstance(value, np.ndarray) or _is_tensor(value)


def is_listed(value: Any) -> bool:
    """Whether a value is a list or a plain tuple of things; a named tuple is one thing."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # nobody holds a tensor without it, and importing it takes seconds
    return torch is not None and isinstance(value, torch.Tensor)


def channels_first(shape: Sequence[int], layout: str | None, kind: str) -> bool:
    """Whether channels come first: (C, H, W) or (F, C, H, W), not (H, W, C) or (F, H, W, C).

    Args:
        layout: One of `LAYOUTS[kind]`, or None if the shape decides.
    """
    last, first = LAYOUTS[kind]
    if len(shape) != len(last):
        raise ValueError(f"{_shaped(shape, kind)}; accepted are {last} and {first} with 1 or 3 channels; convert it")
    if layout not in (None, last, first):
        raise ValueError(f"layout: got {layout!r} for an {kind}; accepted are {last!r} and {first!r}; correct it")
    front, back = shape[-3] in CHANNELS, shape[-1] in CHANNELS
    if front and back and layout is None:
        holder = "frames" if kind == "video" else "array"
        raise ValueError(
            f"{_shaped(shape, kind)}, which reads as {last} and as {first}; accepted are shapes that read as one of "
            f"them; pass {{'{holder}': x, 'layout': '{first}'}} or {{'{holder}': x, 'layout': '{last}'}}"
        )
    wanted = front if layout == first else back if layout == last else front or back
    if not wanted:
        raise ValueError(f"{_shaped(shape, kind)}; accepted are 1 or 3 channels, {last} or {first}; convert it to RGB")
    if 0 in shape:
        what = "zero frames" if kind == "video" and not shape[0] else "no pixels"
        raise ValueError(
            f"{_shaped(shape, kind)}, which has {what}; accepted is at least one of each axis; leave it out"
        )
    return layout == first if layout else front


def _shaped(shape: Sequence[int], kind: str) -> str:
    return f"{kind}: got an array of shape {tuple(shape)}"


def array_size(shape: Sequence[int], layout: str | None, kind: str) -> tuple[int, int]:
    """(height, width) of an array of pixels; arguments as for `channels_first`."""
    height, width = shape[-2:] if channels_first(shape, layout, kind) else shape[-3:-1]
    return int(height), int(width)


def rgb_array(array: Any, layout: str | None, kind: str, indices: np.ndarray | None = None) -> np.ndarray:
    """Pixels as uint8 RGB, (H, W, 3) or (F, H, W, 3).

    Args:
        array: A numpy array or tensor; uint8, or floats in [0, 1].
        layout: One of `LAYOUTS[kind]`, or None if the shape decides.
    """
    first = channels_first(array.shape, layout, kind)
    if _is_tensor(array):
        array = array.detach()
        if indices is not None:
            array = array[indices.tolist()]
        array = (array.float() if array.is_floating_point() else array).cpu().numpy()
    elif indices is not None:
        array = array[indices]
    if first:
        array = np.moveaxis(array, -3, -1)
    if array.dtype != np.uint8:
        array = bytes_of_floats(array, kind)
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def bytes_of_floats(array: np.ndarray, kind: str) -> np.ndarray:
    """Floats in [0, 1] as uint8; anything else is rejected, never clipped."""
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{kind}: got an array of type {array.dtype}; accepted are uint8 and floats in [0, 1]; convert it"
        )
    low, high = float(array.min()), float(array.max())
    if not np.isfinite(array).all():
        raise ValueError(f"{kind}: got pixels that are NaN or infinite; accepted are floats in [0, 1]; repair them")
    if low < 0 or high > 1:
        raise ValueError(
            f"{kind}: got floats from {low:g} to {high:g}; accepted are floats in [0, 1], and uint8; divide by 255, or "
            "undo the normalisation"
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def check_aspect(height: int, width: int, kind: str) -> None:
    """Reject a picture whose longer side is over `MAX_ASPECT` times the shorter one."""
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"{kind}: got {width} x {height} pixels; accepted is a longer side of at most {MAX_ASPECT} times the "
            "shorter one; crop or cut it"
        )


def smart_resize(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """(height, width) as Qwen-VL resizes a picture: multiples of `factor`, `least` to `most` pixels, near its shape.

    The rule of transformers' `smart_resize`, which cannot be imported without torch.
    """
    down, across = (round(side / factor) * factor for side in (height, width))
    if down * across > most:
        scale = math.sqrt(height * width / most)
        return tuple(max(factor, math.floor(side / scale / factor) * factor) for side in (height, width))  # type: ignore[return-value]
    if down * across < least:
        scale = math.sqrt(least / (height * width))
        return tuple(math.ceil(side * scale / factor) * factor for side in (height, width))  # type: ignore[return-value]
    return down, across


def check_size(name: str, size: Mapping[str, int], token: int) -> dict[str, int]:
    """Check a pixel budget {"shortest_edge", "longest_edge"}, at least one token of `token` pixels, and copy it."""
    keys = ("shortest_edge", "longest_edge")
    given = {key: value for key, value in dict(size).items() if value is not None}
    if given.keys() != set(keys) or not all(isinstance(value, (int, np.integer)) for value in given.values()):
        raise ValueError(
            f"{name}: got {given}; accepted is {{'shortest_edge': least, 'longest_edge': most}} in pixels; pass both"
        )
    least, most = (int(given[key]) for key in keys)
    if least < 1 or least > most:
        raise ValueError(
            f"{name}: got shortest_edge {least} and longest_edge {most}; accepted is 1 <= shortest_edge <= "
            "longest_edge; correct them"
        )
    if most < token:
        raise ValueError(f"{name}: got longest_edge {most}; accepted is at least one token, {token} pixels; raise it")
    return {"shortest_edge": least, "longest_edge": most}
