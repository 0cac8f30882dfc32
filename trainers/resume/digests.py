"""A fingerprint of rows that does not read the media: texts and names by content, encoded files by size.

Shapes: N rows of a task.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

CHUNK = 1000
"""Rows that are looked at at a time."""


def record_batches(rows: Dataset, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows as Arrow stores them; of memory-mapped files nothing is read but what is looked at.

    Args:
        rows: N rows.
        columns: Which; all if None.

    Yields:
        The number of the first row, and the rows.
    """
    view = (rows if columns is None else rows.select_columns(list(columns))).with_format("arrow")
    for start in range(0, len(view), CHUNK):
        for batch in view[start : start + CHUNK].to_batches():
            yield start, batch
            start += len(batch)


def rows_digest(rows: Dataset) -> str:
    """The same for the same rows in the same order, wherever their files lie.

    Args:
        rows: N rows.

    Returns:
        32 hexadecimal digits.
    """
    leaves: dict[str, Any] = {}
    for _, batch in record_batches(rows):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            _feed(leaves, name, column)
    whole = blake2b(digest_size=16)
    for name in sorted(leaves):
        whole.update(f"{name}={leaves[name].hexdigest()};".encode())
    return whole.hexdigest()


def _feed(leaves: dict[str, Any], name: str, array: pa.Array) -> None:
    """Add values to the digests of the leaves beneath a column, one digest a leaf, so that chunks do not matter."""
    kind = array.type
    if pa.types.is_struct(kind):
        for field, values in zip(kind, array.flatten(), strict=True):
            _feed(leaves, f"{name}.{field.name}", values)
        return
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _feed(leaves, f"{name}.length", pc.list_value_length(array))
        _feed(leaves, f"{name}.item", pc.list_flatten(array))
        return
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = pc.binary_length(array)
    values = array.to_pylist()
    if name.endswith(".path"):
        values = [value and value.replace("\\", "/").rpartition("/")[2] for value in values]
    written = "".join("-" if value is None else f"{len(str(value))}:{value}" for value in values)
    leaves.setdefault(name, blake2b(digest_size=16)).update(written.encode())
