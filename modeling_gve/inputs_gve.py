"""What an input may be: texts, paths, media, dicts and chats, taken apart once."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image

from .frames_gve import DecodedVideo, is_frame, look
from .image_gve import is_array, is_listed
from .media_gve import is_address, located, names_medium, shown
from .video_gve import Frames

MODALITIES = ("text", "image", "video")
ITEM_KEYS = {"text": ("text",), "image": ("image", "path", "url", "base64"), "video": ("video", "path", "url")}
"""Where an item of a chat message may keep its value, by its type."""


class ParsedInput(NamedTuple):
    """One input, taken apart: its text, images and videos in any form, and its system message."""

    text: str | None
    images: list[Any]
    videos: list[Any]
    system: str | None = None


def parse_inputs(inputs: Iterable[Any]) -> list[ParsedInput]:
    """Take a batch of inputs apart; rejects an empty list, and one input that is not in a list."""
    one = isinstance(inputs, (str, bytes, dict, os.PathLike, PIL.Image.Image, Frames)) or is_array(inputs)
    if one or not isinstance(inputs, Iterable):
        raise ValueError(f"inputs: got {type(inputs).__name__}; accepted is a list of rows; wrap the row in a list")
    rows = [parse_input(value, index) for index, value in enumerate(inputs)]
    if not rows:
        raise ValueError("inputs: got an empty list; accepted is at least one row; skip empty batches")
    return rows


def parse_input(value: Any, index: int) -> ParsedInput:
    """Take one input apart: a text, path, image, video, a dict of "text", "image" and "video", or a chat."""
    if isinstance(value, ParsedInput):
        return value
    place = f"inputs[{index}]"
    if isinstance(value, (str, os.PathLike)):
        row = _parse_path(value, place)
    elif isinstance(value, dict):
        row = _parse_dict(value, place)
    elif isinstance(value, (list, tuple)) and value and all(isinstance(message, dict) for message in value):
        row = _parse_chat(value, place)
    elif isinstance(value, PIL.Image.Image) or (is_array(value) and value.ndim == 3):
        row = ParsedInput(None, [value], [])
    elif isinstance(value, (Frames, DecodedVideo)) or (is_array(value) and value.ndim == 4):
        row = ParsedInput(None, [], [value])
    else:
        raise ValueError(
            f"{place}: got {type(value).__name__}; accepted are a text, a path, an image, Frames, a dict of text, image "
            "and video, and a chat; wrap it as {'image': x} or {'video': x}"
        )
    try:
        (row.text or "").encode()
    except UnicodeEncodeError as error:  # never of a path, which may be of any bytes
        raise ValueError(
            f"{place}: got a text with half a character ({error}); accepted is Unicode; repair it"
        ) from error
    if row.text is None and not row.images and not row.videos:
        raise ValueError(
            f"{place}: got no text, no image and no video; accepted is at least one of them; leave the row out"
        )
    return row


def _parse_path(value: str | os.PathLike[str], place: str) -> ParsedInput:
    """Open what names a file, whatever its suffix; other words are words."""
    if isinstance(value, str) and not names_medium(value):
        return ParsedInput(value, [], [])
    with located(place):
        medium = look(value)
    return ParsedInput(None, [medium], []) if medium.kind == "image" else ParsedInput(None, [], [medium])


def _parse_dict(value: dict[str, Any], place: str) -> ParsedInput:
    if "role" in value or "content" in value:
        return _parse_chat([value], place)
    if "array" in value or "frames" in value:
        return ParsedInput(None, [], [value])
    if unknown := sorted(map(str, value.keys() - set(MODALITIES))):
        raise ValueError(
            f"{place}: unknown modality key {', '.join(map(shown, unknown[:8]))}; accepted are 'text', 'image' and 'video'; "
            "rename or drop it, or wrap the row as {'image': row} or {'video': row}"
        )
    text = value.get("text")
    if isinstance(text, (list, tuple)) and all(isinstance(part, str) for part in text):
        text = "\n".join(text)
    if text is not None and not isinstance(text, str):
        raise ValueError(
            f"{place}['text']: got {type(text).__name__}; accepted are a str or a list of them; convert it"
        )
    images, videos = value.get("image"), value.get("video")
    return ParsedInput(
        text,
        [] if images is None else split_images(images, f"{place}['image']"),
        [] if videos is None else split_videos(videos, f"{place}['video']"),
    )


def split_images(images: Any, place: str) -> list[Any]:
    """The images of one input, at least one."""
    if not is_listed(images):
        return [images]
    return _listed(images, place)


def split_videos(videos: Any, place: str) -> list[Any]:
    """The videos of one input, at least one; a list of frames is one video."""
    if not is_listed(videos):
        return [videos]
    frames = [is_frame(entry) for entry in _listed(videos, place)]
    if all(frames):
        return [list(videos)]
    if any(frames):
        raise ValueError(
            f"{place}: got a list of images and of other things; accepted are the frames of one video, or several "
            "videos; split it"
        )
    return list(videos)


def _listed(values: Sequence[Any], place: str) -> list[Any]:
    if not values or any(value is None for value in values):
        what = "a None in a list" if values else "an empty list, that is, zero frames or images"
        raise ValueError(f"{place}: got {what}; accepted is None in place of the list, or values only; drop it")
    return list(values)


def _parse_chat(messages: Sequence[dict[str, Any]], place: str) -> ParsedInput:
    roles = [message.get("role") for message in messages]
    if roles not in (["user"], ["system", "user"]):
        raise ValueError(
            f"{place}: got messages of roles {roles}; accepted is one message of the user, after one of the system or "
            "none; put each chat into a list of its own, and the words of several turns into one message"
        )
    system = None
    if len(messages) == 2:
        parts = _contents(messages[0], f"{place}[0]")
        if parts["image"] or parts["video"]:
            raise ValueError(f"{place}[0]: got media in a system message; accepted is text; move them to the user's")
        system = "\n".join(parts["text"])
    parts = _contents(messages[-1], f"{place}[{len(messages) - 1}]")
    videos = [video for entry in parts["video"] for video in split_videos(entry, f"{place}['video']")]
    images = [image for entry in parts["image"] for image in split_images(entry, f"{place}['image']")]
    return ParsedInput("\n".join(parts["text"]) if parts["text"] else None, images, videos, system)


def _contents(message: dict[str, Any], place: str) -> dict[str, list[Any]]:
    """Values of a message's items, by their type."""
    parts: dict[str, list[Any]] = {kind: [] for kind in MODALITIES}
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{place}['content']: got {type(content).__name__}; accepted are a str or a list; convert it")
    for number, item in enumerate(content):
        kind, value = _item(item, f"{place}['content'][{number}]")
        if value is not None:
            parts[kind].append(value)
    return parts


def _item(item: Any, place: str) -> tuple[str, Any]:
    kind = item.get("type") if isinstance(item, dict) else type(item).__name__
    if kind in ("image_url", "video_url"):
        url, kind = item.get(kind), kind.removesuffix("_url")
        item = {"type": kind, "url": url.get("url") if isinstance(url, dict) else url}
    if kind not in ITEM_KEYS:
        raise ValueError(f"{place}: got type {shown(kind)}; accepted are items of type {list(ITEM_KEYS)}; convert it")
    given = [key for key in item if key != "type"]
    if not given:
        raise ValueError(f"{place}: got an item of type {kind!r} without its {kind}; add it, or leave the item out")
    known = [key for key in given if key in ITEM_KEYS[kind]]
    if len(known) != len(given) or len(known) != 1:
        raise ValueError(
            f"{place}: got keys {shown(given)}; accepted is one of {list(ITEM_KEYS[kind])}; keep that one"
        )
    value = item[known[0]]
    if kind == "text" and value is not None and not isinstance(value, str):
        raise ValueError(f"{place}['text']: got {type(value).__name__}; accepted is a str; convert it")
    if known[0] == "base64" and value is not None:
        value = f"data:;base64,{value}"
    return kind, value


def chat_of(row: ParsedInput) -> list[dict[str, Any]]:
    """An input as the messages that transformers renders: the system message, if any, then videos, images, text."""
    content = [{"type": "video", "video": video} for video in row.videos]
    content += [{"type": "image", "image": image} for image in row.images]
    content += [{"type": "text", "text": row.text}] if row.text else []
    user = {"role": "user", "content": content}
    return [{"role": "system", "content": [{"type": "text", "text": row.system}]}, user] if row.system else [user]


def resolve_path(message: Any) -> Any:
    """Replace a lone text of the user by the file it names, if it names an image or video."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or len(content) != 1 or message.get("role") != "user":
        return message
    text = content[0].get("text") if isinstance(content[0], dict) and content[0].get("type") == "text" else None
    if not isinstance(text, str) or not names_medium(text):
        return message
    if len(text.split()) > 1 and not is_address(text) and not Path(text).exists():
        return message
    medium = look(text)
    return {**message, "content": [{"type": medium.kind, medium.kind: medium}]}


def flatten_images(images: Any) -> list[Any]:
    """Flatten nested lists of images; None entries are dropped."""
    if not is_listed(images):
        return [images]
    return [image for entry in images if entry is not None for image in flatten_images(entry)]


def placed(media: Any, kind: str, flatten: Callable[[Any], list[Any]]) -> list[tuple[str, Any]]:
    """Flatten media, nested by input or not, into (place, medium) pairs; messages quote the place."""
    if is_listed(media) and media and all(map(is_listed, media)):
        return [(f"inputs[{row}][{kind!r}]", one) for row, entry in enumerate(media) for one in flatten(entry)]
    return [(f"{kind}s[{number}]", one) for number, one in enumerate(flatten(media))]
