"""Changes of an index: rows and the ledger of files that stand for them.

Shapes: n rows, D width.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gve.eval.console import fail
from gve.eval.index.ann import keep_ann, with_short
from gve.eval.index.storage import COLUMNS, LEDGER, among, is_local, merge
from gve.eval.index.table import Index

_KEPT = timedelta(hours=1)  # old versions stay so long for those who read them
_MOST_PUTS = 256
_MOST_NAMES = 500  # in one condition
REMOVED = "removed from the index"
"""The ledger's reason for a file that was taken out, so that no update puts it back."""


class Entry(NamedTuple):
    """A line of the ledger: a file that was read, with or without rows."""

    path: str  # as in COLUMNS
    stamp: str | None
    digest: str | None
    kind: str | None
    duration: float | None
    columns: str  # the file's values of the user's own columns, as JSON
    error: str | None  # why it has no rows


class Writer:
    """Writes rows first and then their files' lines in the ledger, so that a killed run misses work and never has half."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.types = index.columns
        self._puts = 0

    def ledger(self) -> dict[str, Entry]:
        """All files by their stored paths."""
        found = self.index.ledger.to_arrow().to_batches()
        return {row["path"]: Entry(**row) for batch in found for row in batch.to_pylist()}

    def widen(self, columns: Mapping[str, pa.DataType]) -> None:
        """Add columns of the user's own; ValueError if one has another type already."""
        for name, kind in columns.items():
            if self.types.get(name, kind) != kind:
                fail(f"columns: {name!r} holds {self.types[name]} in the index and {kind} here. Convert or rename it.")
        fresh = [pa.field(name, kind) for name, kind in columns.items() if name not in self.types]
        if fresh:
            self.index.segments.add_columns(fresh)
            self.types |= columns

    def put(self, rows: Sequence[Mapping[str, Any]], vectors: np.ndarray) -> None:
        """Write rows and their (n, D) vectors over those of the same ids."""
        if vectors.shape[1] != self.index.width:
            fail(f"encoder: gives vectors of width {vectors.shape[1]}, and the index has {self.index.width}.")
        schema = self.index.segments.schema
        kept = [each for each in schema if each.name in COLUMNS or each.name in self.types]
        table = pa.Table.from_pylist(list(rows), schema=pa.schema(kept))
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        table = table.append_column(schema.field("vector"), pa.FixedSizeListArray.from_arrays(flat, self.index.width))
        segments = self.index.segments
        merge(segments, "id", with_short(table, segments))
        self._puts += 1
        if self._puts % _MOST_PUTS == 0:
            segments.optimize()  # else every look at the table would open as many files

    def note(self, entries: Iterable[Entry]) -> None:
        """Write lines of the ledger."""
        table = pa.Table.from_pylist([entry._asdict() for entry in entries], schema=LEDGER)
        if len(table):
            merge(self.index.ledger, "path", table)

    def drop(self, paths: Iterable[str], *, rows_only: bool = False) -> None:
        """Delete files by their stored paths."""
        for some in _portions(paths):
            if not rows_only:
                self.index.ledger.delete(among("path", some))
            self.index.segments.delete(among("path", some))

    def drop_rows(self, ids: Iterable[str]) -> None:
        """Delete rows by their ids."""
        for some in _portions(ids):
            self.index.segments.delete(among("id", some))

    def tidy(self) -> dict[str, Any] | None:
        """Merge small files, delete versions older than an hour, and give many rows an ANN index, which is returned."""
        alone = is_local(self.index.where)  # only there does the lock say that nobody else writes
        for table in (self.index.segments, self.index.ledger):
            table.optimize(cleanup_older_than=_KEPT, delete_unverified=alone)
        return keep_ann(self.index)


def _portions(names: Iterable[str]) -> Iterator[list[str]]:
    left = iter(names)
    while some := list(islice(left, _MOST_NAMES)):
        yield some
