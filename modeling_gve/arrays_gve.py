"""Pixels in memory as uint8 RGB: layouts are checked and never guessed, values are checked and never clipped.

Shape legend: F frames, H height, W width, C channels (1 or 3).
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CHANNELS = (1, 3)
MAX_ASPECT = 200
"""Longer side over shorter side at most, as for Qwen2.5-VL."""

LAYOUTS = {"image": ("HWC", "CHW"), "video": ("THWC", "TCHW")}


def is_array(value: Any) -> bool:
    """Whether a value is a numpy array or a tensor.

    Args:
        value: Anything.

    Returns:
        True if it is.
    """
    return isinstance(value, np.ndarray) or _is_tensor(value)


def is_listed(value: Any) -> bool:
    """Whether a value is a list or a plain tuple of things, and no named tuple, which is one thing."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # nobody holds a tensor without it, and importing it takes seconds
    return torch is not None and isinstance(value, torch.Tensor)


def channels_first(shape: Sequence[int], layout: str | None, kind: str) -> bool:
    """Where the channels of an array are.

    Args:
        shape: Three sizes for an image, four for a video.
        layout: One of `LAYOUTS[kind]`, or None to read it off the shape.
        kind: "image" or "video".

    Returns:
        True for (C, H, W) and (F, C, H, W), False for (H, W, C) and (F, H, W, C).

    Raises:
        ValueError: If the shape fits neither layout, fits both, or does not fit the given one.
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
    """Height and width of an array of pixels.

    Args:
        shape: As for `channels_first`.
        layout: As for `channels_first`.
        kind: As for `channels_first`.

    Returns:
        (height, width).

    Raises:
        ValueError: As for `channels_first`.
    """
    height, width = shape[-2:] if channels_first(shape, layout, kind) else shape[-3:-1]
    return int(height), int(width)


def rgb_array(array: Any, layout: str | None, kind: str, indices: np.ndarray | None = None) -> np.ndarray:
    """Pixels of an array as uint8 RGB.

    Args:
        array: A numpy array or tensor; uint8, or floats in [0, 1].
        layout: One of `LAYOUTS[kind]`, or None to read it off the shape.
        kind: "image" or "video".
        indices: Frames to take; None takes all.

    Returns:
        (H, W, 3) or (F, H, W, 3), uint8.

    Raises:
        ValueError: As for `channels_first`, for another type, and for floats that are not finite or not in [0, 1].
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
    """Floats in [0, 1] as uint8.

    Args:
        array: Pixels.
        kind: "image" or "video", for messages.

    Returns:
        Of the same shape.

    Raises:
        ValueError: If they are no floats, not finite, or not in [0, 1].
    """
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
    """Refuse a picture that is too long for its width.

    Args:
        height: In pixels.
        width: In pixels.
        kind: "image" or "video".

    Raises:
        ValueError: If one side is over `MAX_ASPECT` times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"{kind}: got {width} x {height} pixels; accepted is a longer side of at most {MAX_ASPECT} times the "
            "shorter one; crop or cut it"
        )


def smart_resize(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """(height, width) that Qwen-VL gives a picture: multiples of `factor`, `least` to `most` pixels, about its shape.

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
    """Check a pixel budget.

    Args:
        name: The argument, for messages.
        size: {"shortest_edge", "longest_edge"}: least and most pixels.
        token: Pixels of one token.

    Returns:
        A copy of it.

    Raises:
        ValueError: If a key is missing or unknown, a number is no positive integer, the least is over the most, or the
            most is less than a token.
    """
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
