"""Files that are either whole or absent: written under another name, then renamed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

_ROW_GROUP = 128


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file at once; a process killed meanwhile leaves at most `<name>.tmp`, which the next one overwrites."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def write_text(path: Path, content: str) -> None:
    """Write a text file at once."""
    write_bytes(path, content.encode())


def write_rows(path: Path, rows: Iterable[dict[str, Any]], features: Features) -> None:
    """Write a parquet file at once, with the column types that `datasets` reads back.

    Args:
        path: The file.
        rows: Its rows; they are taken in small groups, so that an iterator need not fit in memory.
        features: Column types.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    schema = features.arrow_schema
    with pq.ParquetWriter(temporary, schema) as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(row)
            if len(group) == _ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    temporary.replace(path)
