"""Rows of datasets, and files on disk, as inputs of an encoder."""

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gve.eval.console import passed_over
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.walking import walk_files
from gve.image_gve import open_image
from gve.media_gve import is_named, local_source, media_kind, shown, suffix_kind

MODALITIES = ("video", "image", "text")
"""The keys of a row that are encoded, in the order in which the encoder reads them."""
_INSTRUCTIONS = {
    frozenset(SETS[name].query_modalities): SETS[name].instruction
    for name in ("MSRVTT", "MSRVTT-I2V", "LoVR-C2V", "MS-TI", "MS-TV")
}
"""By what a query holds; those with an image or a video are what UVRB gives to MomentSeeker's queries."""


def encoder_input(row: Mapping[str, Any], *, open_images: bool = True) -> str | dict[str, Any]:
    """One row as any encoder takes it: a text, or a dict of video, image and text.

    Args:
        row: Text, image or video, each possibly None or absent; media are {"bytes", "path"}, a path, an address or
            decoded. Other keys, such as id, are ignored.
        open_images: Give upright RGB PIL images, since other encoders open files in their own way. Our models open
            files themselves, in several threads.

    Returns:
        The text of a row of text alone; else a dict without None, files as paths or binary buffers.

    Raises:
        ValueError: For a row with nothing to encode, or an unreadable medium.
    """
    present = {key: row[key] for key in MODALITIES if row.get(key) is not None}
    if not present:
        raise ValueError(f"row: keys {sorted(row)} hold no text, image or video. Fill one, or leave the row out.")
    if set(present) == {"text"}:
        text = present["text"]
        # a string that names a file or an address would be read as that medium; the dict says that it is text
        return {"text": text} if is_named(text) else text
    for key in present.keys() - {"text"}:
        opened = key == "image" and open_images
        present[key] = open_image(present[key]) if opened else _source(present[key], key)
    return present


def default_instruction(kinds: Iterable[str]) -> str | None:
    """UVRB's instruction for queries that hold text, image or video, or text beside one of them; None for others."""
    return _INSTRUCTIONS.get(frozenset(kinds))


def file_row(path: Path) -> dict[str, str]:
    """{"video": path} or {"image": path}, by content; ValueError if missing, empty or neither."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file" if not path.exists() else f"{path}: not a regular file")
    if not path.stat().st_size:
        raise ValueError(f"{path}: the file is empty")
    kind = media_kind(path)
    if kind is None:
        raise ValueError(f"{path}: neither a video nor an image, by its content and its suffix {path.suffix!r}")
    return {kind: str(path)}


def find_files(arguments: Iterable[str | Path]) -> tuple[list[Path], dict[str, int]]:
    """Expand folders recursively, in sorted order; hidden files and folders are left out.

    Linked folders are followed, each once. A file with an unknown suffix is judged by its content; files named in
    `arguments` are taken as they are.

    Returns:
        The files, each once, and the number of other files in the folders by suffix.

    Raises:
        ValueError: If an argument does not exist, or none holds a video or image.
    """
    roots = dict.fromkeys(map(Path, arguments))
    for root in roots:
        if not os.path.exists(root):  # noqa: PTH110 - a Path raises for names that are too long
            raise ValueError(f"FILES: {shown(str(root))} does not exist. Check the path.")
    found: dict[Path, None] = {}
    others: dict[str, int] = {}
    for path in walk_files(roots):
        if path in roots or suffix_kind(path) or media_kind(path):
            found[path] = None
        else:
            suffix = path.suffix.lower()
            others[suffix] = others.get(suffix, 0) + 1
    if not found:
        raise ValueError(
            f"found no video or image in {shown(', '.join(map(str, roots)))}, by content or by suffix; "
            f"{passed_over(others)} and hidden ones. Give files, or a folder that holds some."
        )
    return list(found), others


def _source(medium: Any, key: str) -> Any:
    """A path as text, a binary buffer, or decoded media unchanged."""
    try:
        source = local_source(medium)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return str(source) if isinstance(source, Path) else source
