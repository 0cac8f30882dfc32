"""Records flow between the stages: one plain dict for a video, or for a pair made of it.

A record names its video by path, never by content: bytes are read where they are decoded and go no further.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from gve.hub_datasets.files import write_atomic

Record = dict[str, Any]  # BASE_COLUMNS and the columns that stages added


class Refused(NamedTuple):
    """A row of a corpus that cannot be planned: a short reason such as "id: twice", and what the row holds."""

    reason: str
    message: str


# `origin` is the id of the raw record, `parent` of the record it was made from. `offset` and `size` locate a member of
# an archive; both are None for a file of its own.
BASE_COLUMNS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "origin": pa.string(),
    "parent": pa.string(),
    "video": pa.struct({"path": pa.string(), "offset": pa.int64(), "size": pa.int64()}),
    "text": pa.string(),
    "source": pa.string(),
    "licence": pa.string(),
}
_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
CHILD_MARK = "#"  # joins an id to the suffix of a child, as in "v0001#f0003"


def make_record(name: str, path: str, text: str, *, source: str, licence: str) -> Record:
    """A raw record of a video in a file of its own."""
    place = {"path": path, "offset": None, "size": None}
    named = {"id": name, "origin": name, "parent": None}
    return {**named, "video": place, "text": text, "source": source, "licence": licence}


def make_child(record: Mapping[str, Any], suffix: str, columns: Mapping[str, Any]) -> Record:
    """A record made from another: its columns, overwritten by `columns`, under the id "<parent>#<suffix>"."""
    return {**record, **columns, "id": f"{record['id']}{CHILD_MARK}{suffix}", "parent": record["id"]}


def digest(*parts: Any) -> str:
    """Name JSON values by 32 hexadecimal digits, the same on every machine."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(_ENCODER.encode(part).encode())
        hashed.update(b"\x1f")
    return hashed.hexdigest()


def utf8(text: str) -> str:
    """A text that UTF-8 can hold: lone surrogates, as in broken JSON and file names, become "?"."""
    return text.encode(errors="replace").decode()


def keep_media(folder: Path, content: bytes, suffix: str) -> str:
    """Write an encoded file once under the name of its content; returns its path in the folder."""
    name = hashlib.blake2b(content, digest_size=16).hexdigest()
    path = f"media/{name[:2]}/{name}{suffix}"
    if not (folder / path).is_file():
        write_atomic(folder / path, content)
    return path


def open_place(place: Mapping[str, Any]) -> str | bytes:
    """A record's `video` as the reader takes it: a path, or the bytes of a member of an archive."""
    return place["path"] if place["offset"] is None else read_place(place)


def read_place(place: Mapping[str, Any]) -> bytes:
    """The encoded bytes of a record's `video`."""
    with Path(place["path"]).open("rb") as file:
        if place["offset"] is None:
            return file.read()
        file.seek(place["offset"])
        return file.read(place["size"])
