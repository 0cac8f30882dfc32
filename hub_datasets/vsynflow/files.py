"""Parquet and JSON files that are either whole or absent, whatever happens to their writer."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def commit_bytes(path: Path, content: bytes) -> None:
    """Write a file under a name of this process, flush it to the disk, then rename it.

    Raises:
        OSError: If the disk is full, among others; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failed write does not say of what


def commit_json(path: Path, value: Any) -> None:
    """Write a JSON file at once."""
    commit_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def commit_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType], facts: Mapping[str, Any]
) -> None:
    """Write rows as a parquet file at once; the same rows give the same bytes.

    Args:
        path: The file.
        rows: Its rows, in their order.
        columns: Names and types of its columns.
        facts: JSON values for the footer, which a reader gets without reading the rows.

    Raises:
        ValueError: If a value does not fit its column.
    """
    schema = pa.schema(list(columns.items()), metadata={"facts": json.dumps(facts, sort_keys=True)})
    arrays = []
    for name, kind in columns.items():
        try:
            arrays.append(pa.array([row.get(name) for row in rows], kind))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"{name}: got a value that is no {kind} ({error}); see the stage's columns") from error
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    commit_bytes(path, sink.getvalue().to_pybytes())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file."""
    return pq.read_table(path, partitioning=None, use_threads=False).to_pylist()


def read_facts(path: Path) -> dict[str, Any]:
    """The facts in a parquet file's footer."""
    return json.loads(pq.read_schema(path).metadata[b"facts"])


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files of killed writers; returns how many there were."""
    leftovers = list(folder.rglob("*.tmp"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
