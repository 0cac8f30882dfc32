"""An index as one file of another format.

Shapes: n rows, D width.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from gve.eval.console import fail
from gve.eval.index.storage import COLUMNS, vectors_of
from gve.eval.index.table import Index
from gve.hub_datasets.files import replacing

FORMATS = ("parquet", "safetensors", "npy")


def export(index: Index, out: Path, *, form: str = "parquet", filters: str | None = None) -> int:
    """Write the rows of an index to a file, and return their number.

    Parquet holds all columns and `vector`. npy holds the (n, D) vectors; their columns go to a parquet file of the same
    name. safetensors has them as the tensor `embeddings` and needs memory for n x D floats; its columns go there, too.

    Raises:
        ValueError: For an unknown format, a condition that cannot be read or that no row meets.
    """
    if form not in FORMATS:
        fail(f"form: must be one of {', '.join(FORMATS)}, got {form!r}.")
    rows = sum(len(batch) for batch in index.scan(["id"], filters=filters))
    if not rows:
        fail("INDEX: no rows to export. Check --where.")
    names = [*COLUMNS, *index.columns]
    if form == "parquet":
        _write_parquet(index.scan([*names, "vector"], filters=filters), out)
        return rows
    beside = out.with_name(f"{out.stem}.parquet")
    with replacing(out) as temporary:
        if form == "npy":
            vectors = np.lib.format.open_memmap(temporary, "w+", np.float32, (rows, index.width))
        else:
            vectors = np.empty((rows, index.width), np.float32)
        _write_parquet(_split(index, names, vectors, filters), beside)
        if form == "safetensors":
            save_file({"embeddings": vectors}, temporary, {"columns": beside.name, "model": index.fingerprint})
        del vectors  # which closes the file of npy
    return rows


def _split(index: Index, names: list[str], vectors: np.ndarray, filters: str | None) -> Iterator[pa.RecordBatch]:
    """The columns alone; fills in the (n, D) vectors in the same order."""
    start = 0
    for batch in index.scan([*names, "vector"], filters=filters):
        vectors[start : start + len(batch)] = vectors_of(batch)
        start += len(batch)
        yield batch.select(names)


def _write_parquet(batches: Iterator[pa.RecordBatch], out: Path) -> None:
    first = next(batches)
    with replacing(out) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)
