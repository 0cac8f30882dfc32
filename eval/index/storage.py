"""How an index lies on disk: its tables, the paths in them, and the lock of its one writer."""

import errno
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from gve.eval.console import fail
from gve.media_gve import shown

SCHEMA = "gve-index/1"
COLUMNS = {
    "id": pa.string(),  # Segment.key
    "path": pa.string(),  # absolute; what is not UTF-8 in it as surrogates' escapes
    "folder": pa.string(),  # name of the folder that holds the file, for filters
    "kind": pa.string(),  # "video" or "image"
    "level": pa.string(),
    "start": pa.float64(),  # seconds; null for an image
    "end": pa.float64(),
    "duration": pa.float64(),  # seconds of the whole file; null for an image
    "digest": pa.string(),  # of the file's bytes
    "stamp": pa.string(),  # size and time of change
}
"""The columns of every index, beside `vector`; a table's own columns come after them."""
SEGMENTS, FILES, FACTS = "segments", "files", "facts"
LOCK, WRITER, MEDIA = "lock", "writer", "media"
"""Beside the tables of a local index: its lock, who held that last, and the files of data sets that hold bytes and no paths."""
LEDGER = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # as in COLUMNS
        pa.field("stamp", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("duration", pa.float64()),
        pa.field("columns", pa.string()),  # the file's values of the user's own columns, as JSON
        pa.field("error", pa.string()),  # why the file has no rows; null if it has
    ]
)
"""Columns of the ledger: a row for each file that was read, written after the file's own rows."""
_FACTS = pa.schema([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.string())])
_FULL = ("os error 28", "os error 27", "No space left", "File too large")
_RESERVED = ("vector", "score", "_")  # beginnings of names that the index needs itself


def schema_of(width: int) -> pa.Schema:
    """The schema of a new table: COLUMNS, and `vector` of D float32."""
    fields = [pa.field(name, kind, nullable=name != "id") for name, kind in COLUMNS.items()]
    return pa.schema([*fields, pa.field("vector", pa.list_(pa.float32(), width))])


def connect(where: str) -> Any:
    """Open LanceDB at a folder or an address."""
    try:
        import lancedb
    except ImportError as error:
        raise ImportError('INDEX: LanceDB is not installed. Run pip install "gve[index]".') from error
    return lancedb.connect(where)


def is_local(where: str) -> bool:
    """Whether an index lies in a folder and not at an address such as s3://bucket/name."""
    return "://" not in where


def check_place(where: str) -> None:
    """Refuse a folder that holds anything but an index, or what a killed creation left of one."""
    path = Path(where)
    if not is_local(where) or not path.exists():
        return
    ours = {f"{SEGMENTS}.lance", f"{FILES}.lance", f"{FACTS}.lance", LOCK, WRITER, MEDIA}
    others = [name for name in os.listdir(path) if name not in ours] if path.is_dir() else [path.name]  # noqa: PTH208
    if others:
        fail(f"INDEX: {shown(where)} holds {shown(others[0])}. Name a new folder, or an index.")


def merge(table: Any, key: str, rows: pa.Table) -> None:
    """Write rows over those of the same key, in one step."""
    table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(rows)


def fact_rows(facts: Mapping[str, Any]) -> pa.Table:
    """Rows of the table of facts."""
    rows = [{"name": name, "value": json.dumps(value)} for name, value in facts.items()]
    return pa.Table.from_pylist(rows, schema=_FACTS)


def check_columns(columns: Mapping[str, Any]) -> None:
    """Refuse names of columns that the index has itself, or that SQL would read otherwise."""
    for name in columns:
        if name in COLUMNS or name.startswith(_RESERVED):
            fail(f"columns: {shown(name)} is a name that the index uses itself. Rename the column.")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            fail(f"columns: must be lower-case letters, digits and _, got {shown(name)}. Rename the column.")


def stored_path(path: str | os.PathLike[str]) -> str:
    r"""A path as text for Arrow; bytes that are not UTF-8 become \udcXX, and `real_path` gives it back."""
    name = re.sub(r"\\(?=udc[0-9a-f]{2})", r"\\udc5c", os.fspath(path))
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", name)


def real_path(stored: str) -> str:
    """The path of a stored one."""
    return re.sub(
        r"\\udc([0-9a-f]{2})", lambda found: "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16)), stored
    )


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def among(column: str, values: Any) -> str:
    """The condition that a column holds one of some texts."""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def vectors_of(batch: pa.RecordBatch | pa.Table) -> np.ndarray:
    """The (n, D) vectors of a batch."""
    array = batch["vector"]
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Hold a local index for one writer; the system lets go however that writer ends.

    At an address there is no lock: Lance commits there optimistically, and rows have keys, so two writers are safe.

    Raises:
        ValueError: If another writer is at work.
        OSError: If the disk is full.
    """
    try:
        with _locked(where):
            yield
    except (OSError, RuntimeError) as error:
        if not any(sign in str(error) for sign in _FULL):
            raise
        reason = "no room to write the index; what was added before stays, so free some and run the command again"
        raise OSError(errno.ENOSPC, reason, where) from error


@contextmanager
def _locked(where: str) -> Iterator[None]:
    if not is_local(where):
        yield
        return
    folder = Path(where)
    folder.mkdir(parents=True, exist_ok=True)
    writer = folder / WRITER  # a file of its own: Windows does not let others read one that is locked
    try:
        held = FileLock(folder / LOCK).acquire(blocking=False)
    except Timeout:
        who = writer.read_text(encoding="utf-8") if writer.is_file() else ""
        fail(f"INDEX: {shown(where)} is being written by {who or 'another process'}. Wait for it.")
    with held:
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        writer.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
        yield
