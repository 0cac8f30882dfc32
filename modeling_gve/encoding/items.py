"""What GVESentenceTransformer does to its inputs: rows out of any form, errors that name them, batches out of rows.

Shape legend: B rows of a batch, T tokens.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import IOBase
from typing import Any, NamedTuple

import PIL.Image
import torch

from gve.image_gve import is_listed
from gve.media_gve import is_named, media_kind, shown

OPTIONS = ("num_frames", "max_length", "video_size", "image_size")
"""Keyword arguments of `encode` that reach the processor's `prepare`."""


@dataclass(frozen=True)
class Skipped:
    """An input without an embedding: its place in the caller's list, and an error that names place and file."""

    index: int
    error: Exception


class Item(NamedTuple):
    """An input on its way to an embedding."""

    index: int  # its place in the caller's list
    value: Any  # what the caller gave; once planned, a `ParsedInput`
    media: bool = False  # whether there is something to decode; known, like the rest, once it is planned
    tokens: int = 0  # estimated tokens, at most `max_length`
    size: int = 0  # estimated bytes once prepared


def as_input(value: Any) -> Any:
    """Wrap a bare list of frames or a bare file of `datasets`; leave every other form to the processor."""
    if isinstance(value, Mapping) and value and value.keys() <= {"bytes", "path"}:
        return {_kind_of_file(value): value}
    if is_listed(value) and value and not isinstance(value[0], Mapping):
        return {"video": value}  # a chat is a list of dicts
    return value


def _kind_of_file(value: Mapping[str, Any]) -> str:
    kind = media_kind(dict(value))
    if kind is None:
        raise ValueError(
            f"path: got {shown(value.get('path'))}; accepted are the files of images and videos; say which it is with "
            '{"image": {"bytes", "path"}} or {"video": {"bytes", "path"}}'
        )
    return kind


def may_hold_media(value: Any) -> bool:
    """Whether reading an input may take long; a text that names no file does not."""
    if isinstance(value, str):
        return is_named(value)
    if isinstance(value, Mapping) and "text" in value:
        return any(part is not None for name, part in value.items() if name != "text")
    return True


def shared_places(items: Sequence[Item]) -> set[int]:
    """Places of inputs that share an open file or a picture with another one: threads would disturb each other."""
    users: dict[int, set[int]] = {}
    for item in items:
        if not isinstance(item.value, str):
            for identity in _open_things(item.value):
                users.setdefault(identity, set()).add(item.index)
    return {place for places in users.values() if len(places) > 1 for place in places}


def _open_things(value: Any) -> Iterator[int]:
    """Identities of what has a state of its own in a value: file objects, and pictures that may not be read yet."""
    if isinstance(value, (PIL.Image.Image, IOBase)):
        yield id(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _open_things(part)
    elif is_listed(value):
        for part in value:
            yield from _open_things(part)


def named(error: Exception, index: int) -> Exception:
    """The error of one input under its place in the caller's list: a FileNotFoundError or a ValueError."""
    message, found = re.subn(r"\binputs\[0\]", f"inputs[{index}]", str(error) or type(error).__name__)
    if not found:
        message, found = re.subn(r"\binput 0\b", f"inputs[{index}]", message)
    if not found:
        message = f"inputs[{index}]: {message}"
    return FileNotFoundError(message) if isinstance(error, FileNotFoundError) else ValueError(message)


@contextmanager
def under_own_places(chat: Any, indices: Sequence[int]) -> Iterator[None]:
    """Let the processor's warnings, in this thread alone, name inputs by their place in the caller's list."""
    token = chat.places.set(indices)
    try:
        yield
    finally:
        chat.places.reset(token)


def merge(
    rows: Sequence[Mapping[str, torch.Tensor]], pad_token_id: int, join: Callable[[list[torch.Tensor]], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Join outputs of the processor into one batch of B rows, padded on the left; `join` joins tensors of one width."""
    width = max(row["input_ids"].shape[1] for row in rows)
    batch = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        parts = [row[name] for row in rows if name in row]
        if name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            fill = pad_token_id if name == "input_ids" else 0
            parts = [torch.nn.functional.pad(part, (width - part.shape[1], 0), value=fill) for part in parts]  # (1, T)
        batch[name] = join(parts)
    return batch


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Tensors of one width as a single one, where they are."""
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def prepare_options(
    given: Mapping[str, Any], stored: Mapping[str, Any], call: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Arguments of `prepare` out of ours and sentence-transformers' own.

    Args:
        given: Ours by name; those that are not None win.
        stored: The module's `processing_kwargs`, by modality.
        call: Those of one call, which win over the stored ones.
    """
    places = {
        ("video", "num_frames"): "num_frames",
        ("text", "max_length"): "max_length",
        ("video", "size"): "video_size",
        ("image", "size"): "image_size",
    }
    without_effect = {("text", "truncation"), ("text", "padding")}  # both are always on
    out: dict[str, Any] = dict.fromkeys(OPTIONS)
    for source in (stored, call or {}):
        for modality, name in _settings(source):
            value = source[modality][name]
            if (modality, name) in places:
                out[places[modality, name]] = value
            elif modality != "chat_template" and ((modality, name) not in without_effect or value is False):
                known = ", ".join(f"{kind}.{key}" for kind, key in places)
                raise ValueError(
                    f"processing_kwargs: got {modality}.{name} = {shown(value)}; accepted are {known}; use a plain "
                    "SentenceTransformer for others"
                )
    return out | {name: value for name, value in given.items() if value is not None}


def _settings(source: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return [(modality, name) for modality, values in source.items() for name in values]
