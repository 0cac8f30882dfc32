"""What an input may be: texts, paths, images, and dicts of them, taken apart and opened."""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from transformers.image_utils import load_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv", ".3gp"}
)


class Row(NamedTuple):
    """One input, taken apart."""

    text: str | None
    image: Any
    video: Any


def parse_row(value: Any, index: int) -> Row:
    """Take one input apart.

    Args:
        value: A text, a path, or a dict with "text", "image" and "video".
        index: Its place in the batch, for messages.

    Returns:
        The row; what it lacks is None.

    Raises:
        FileNotFoundError: If a text looks like a path of a media file that does not exist.
        ValueError: If the form is not accepted.
    """
    if isinstance(value, (str, os.PathLike)):
        kind = media_kind(value)
        if kind is None and not isinstance(value, str):
            raise ValueError(
                f"inputs[{index}]: got {os.fspath(value)!r}; accepted suffixes are those of images and videos; say "
                "which it is with {'image': path} or {'video': path}"
            )
        if kind is None:
            return Row(value, None, None)
        _check_exists(value, index)
        return Row(None, value, None) if kind == "image" else Row(None, None, value)
    if isinstance(value, PIL.Image.Image):
        return Row(None, value, None)
    if not isinstance(value, dict) or not value.keys() <= {"text", "image", "video"}:
        got = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise ValueError(
            f"inputs[{index}]: got {got}; accepted are a text, a path or a dict of text, image and video; wrap it"
        )
    row = Row(value.get("text"), value.get("image"), value.get("video"))
    if all(part is None for part in row):
        raise ValueError(
            f"inputs[{index}]: got a dict without a value; accepted is at least one of text, image, video"
        )
    if row.text is not None and not isinstance(row.text, str):
        raise ValueError(f"inputs[{index}]['text']: got {type(row.text).__name__}; accepted is a str; convert it")
    return row


def media_kind(path: Any) -> str | None:
    """What a path's suffix says it is.

    Args:
        path: A string or path.

    Returns:
        "image", "video", or None for anything else, texts among them.
    """
    name = os.fspath(path)
    if len(name) > 4096 or "\n" in name:
        return None
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a text is no path, and this is ten times as fast
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def _check_exists(path: Any, index: int | None = None) -> None:
    if not Path(path).is_file():
        where = "input" if index is None else f"inputs[{index}]"
        raise FileNotFoundError(
            f"{where}: got {os.fspath(path)!r}, which no file is named; accepted is a path that exists; to embed the "
            "words themselves pass {'text': ...}"
        )


def resolve_path(message: Any) -> Any:
    """Put a file in place of a lone text that names it.

    Args:
        message: A message of a chat.

    Returns:
        The message, with the file if it is the user's, holds one text and that is the name of an image or video.

    Raises:
        FileNotFoundError: If the text is one word that names a media file which does not exist.
    """
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or len(content) != 1 or message.get("role") != "user":
        return message
    text = content[0].get("text") if content[0].get("type") == "text" else None
    kind = media_kind(text) if text else None
    if kind is None or (len(text.split()) > 1 and not Path(text).is_file()):
        return message
    _check_exists(text)
    return {**message, "content": [{"type": kind, kind: text}]}


def open_image(image: Any) -> PIL.Image.Image:
    """An upright RGB image.

    Args:
        image: A path, bytes, {"bytes", "path"}, a PIL image, or a uint8 array or tensor (H, W, 3) or (3, H, W).

    Returns:
        The image.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is no image.
    """
    if isinstance(image, dict) and image.keys() <= {"bytes", "path"}:
        image = image["bytes"] if image.get("bytes") is not None else image.get("path")
    if isinstance(image, PIL.Image.Image):
        return load_image(image)
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return _image_of_array(np.asarray(image))
    if isinstance(image, (str, os.PathLike)):
        _check_exists(image)
    elif isinstance(image, bytes):
        image = io.BytesIO(image)
    elif not hasattr(image, "read"):
        raise ValueError(
            f"image: got {type(image).__name__}; accepted are a path, bytes, a PIL image or a uint8 array; convert it"
        )
    try:
        with PIL.Image.open(image) as opened:
            return load_image(opened)
    except (PIL.UnidentifiedImageError, OSError, SyntaxError) as error:
        name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "<bytes>"
        raise ValueError(
            f"image: {name!r} cannot be read ({error}); accepted are Pillow's formats; convert it"
        ) from error


def _image_of_array(array: np.ndarray) -> PIL.Image.Image:
    if array.ndim == 3 and array.shape[-1] != 3 and array.shape[0] == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"image: got an array of shape {array.shape} and type {array.dtype}; accepted is uint8 (H, W, 3) or "
            "(3, H, W); convert it"
        )
    return PIL.Image.fromarray(np.ascontiguousarray(array))


def flatten_images(images: Any) -> list[Any]:
    """A flat list of images out of nested lists.

    Args:
        images: An image, or lists of images; None entries are dropped.

    Returns:
        The images in order.
    """
    if not isinstance(images, (list, tuple)):
        return [images]
    return [image for entry in images if entry is not None for image in flatten_images(entry)]
