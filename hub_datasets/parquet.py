"""Rows in parquet files that are written in one step; the same rows give the same bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gve.hub_datasets.files import replacing, write_atomic

if TYPE_CHECKING:
    from datasets import Features

_GROUP = 128
"""Rows of a row group."""


def write_blocks(path: Path, blocks: Iterable[Sequence[dict[str, Any]]], schema: pa.Schema, **options: Any) -> None:
    """Write rows block by block, so that only one block is in memory; options are those of `ParquetWriter`."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        for block in blocks:
            writer.write_table(pa.Table.from_pylist(block, schema=schema))


def write_rows(path: Path, rows: Iterable[dict[str, Any]], features: "Features") -> None:
    """Write rows with the column types that `datasets` reads back; an iterator need not fit in memory."""
    source = iter(rows)
    write_blocks(path, iter(lambda: list(islice(source, _GROUP)), []), features.arrow_schema)


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType], facts: Mapping[str, Any]
) -> None:
    """Write rows with JSON facts in the footer, which `read_facts` reads without the rows."""
    schema = pa.schema(list(columns.items()), metadata={"facts": json.dumps(facts, sort_keys=True)})
    arrays = []
    for name, kind in columns.items():
        try:
            arrays.append(pa.array([row.get(name) for row in rows], kind))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"{name}: values must be {kind} ({error}). See the stage's columns.") from error
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows of a parquet file."""
    return pq.ParquetFile(path).read(use_threads=False).to_pylist()  # read_table takes three times as long


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts that `write_table` stored."""
    return json.loads(pq.read_schema(path).metadata[b"facts"])
