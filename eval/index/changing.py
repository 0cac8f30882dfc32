"""One change of an index: looks at each file, and embeds it, takes its vectors over from another, or leaves it.

Shapes: n rows, D width.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from gve.eval.console import fail, printable
from gve.eval.encode import failure_reason
from gve.eval.index.embedding import File, FileEmbedder
from gve.eval.index.rows import Segment
from gve.eval.index.sources import Item
from gve.eval.index.storage import COLUMNS, among, real_path, stored_path, vectors_of
from gve.eval.index.table import Index
from gve.eval.index.writing import REMOVED, Entry, Writer

logger = logging.getLogger(__name__)

_BLOCK = 256  # files that are looked at together


@dataclass
class Report:
    """What a change did, in files.

    Attributes:
        moved: Whose vectors another file of the same bytes had.
        failed: Reasons by path, also of files that failed before and have not changed.
        rows: Of the index, afterwards.
        ann: Of `build_ann`, if the index has one.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    kept: int = 0
    removed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    ann: dict[str, Any] | None = None


class Change:
    """One run over files.

    Args:
        create: Makes the index of width D once there is a vector.
        index: The index, if there is one.
    """

    def __init__(self, embedder: FileEmbedder, create: Callable[[int], Index] | None, index: Index | None) -> None:
        self.embedder, self._create = embedder, create
        self.writer = None if index is None else Writer(index)
        self.known: dict[str, Entry] = {} if self.writer is None else self.writer.ledger()
        self.seen: set[str] = set()
        self.report = Report()
        self._early: list[Entry] = []  # of files that failed before there was an index
        self._stale: dict[str, set[str]] = {}  # ids by stored path, of rows of bytes that a file no longer has
        self._digests = {entry.digest: path for path, entry in self.known.items() if entry.error is None}

    def take(self, items: Iterable[Item], bar: Any, *, again: bool = False) -> None:
        """Bring the index up to date for some files; `again` puts back what was removed."""
        stream = iter(items)
        while block := list(islice(stream, _BLOCK)):
            files, failed = [], []
            for item in block:
                file = self._look(item, again)
                try:
                    files += [] if file is None else [file.read(self.known.get(file.stored))]
                except (OSError, ValueError) as error:
                    failed.append((file, error))
            self._fail(failed)
            written = self._written(files)
            left = self._adopt(files)
            fresh = {file.digest: file for file in reversed(left)}
            self._embed(list(fresh.values())[::-1], written)
            self._adopt([file for file in left if file is not fresh[file.digest]])  # the same bytes twice in a block
            bar.update(len(block))

    def remove_vanished(self) -> None:
        """Drop files that no source has any more, and rows that a killed run left without a line in the ledger."""
        assert self.writer is not None
        gone = [path for path in self.known if path not in self.seen]
        rows = self.writer.index.scan(["path"])
        stray = {path for batch in rows for path in batch["path"].unique().to_pylist()} - self.known.keys()
        self.writer.drop([*gone, *stray])
        self.report.removed = sum(self.known[path].error is None for path in gone)

    def finish(self) -> Report:
        """Tidy the tables and count."""
        if self.writer is None:
            fail(f"SOURCES: none of the {len(self.seen)} files could be embedded. See the reasons above.")
        self.report.ann = self.writer.tidy()
        self.report.rows = len(self.writer.index)
        return self.report

    def _look(self, item: Item, again: bool) -> File | None:
        """The file if there is something to do for it."""
        stored = stored_path(os.path.abspath(item.path))  # noqa: PTH100 - a Path keeps ".."
        if stored in self.seen:
            return None
        self.seen.add(stored)
        before = self.known.get(stored)
        file = File.of(item, stored, before)
        if before is not None and before.stamp == file.stamp and before.columns == file.columns:
            if before.error is not None and not (again and before.error == REMOVED):
                self.report.failed |= {real_path(stored): before.error} if before.error != REMOVED else {}
                return None
            if before.error is None:
                self.report.kept += 1
                return None
        return file

    def _embed(self, files: Sequence[File], written: Mapping[str, Sequence[Segment]]) -> None:
        for done in self.embedder.embed(files, written):
            if self.writer is None and done.rows:
                assert self._create is not None
                self.writer = Writer(self._create(done.vectors.shape[1]))
                self.writer.note(self._early)
            if done.rows:
                assert self.writer is not None
                self._put(done.rows, done.vectors)
            self._fail(done.failed)
            for file, _ in done.finished:
                before = self.known.get(file.stored)
                kind = "added" if before is None or before.error is not None else "changed"
                setattr(self.report, kind, getattr(self.report, kind) + 1)
            self._settle(done.finished)

    def _written(self, files: Sequence[File]) -> dict[str, list[Segment]]:
        """Segments that have rows already, as a killed run leaves them; notes the rows of other bytes for `_settle`."""
        found: dict[str, list[Segment]] = {}
        self._stale.clear()
        if self.writer is None or not files:
            return found
        digests = {file.stored: file.digest for file in files}
        names = ["id", "path", "digest", "level", "start", "end"]
        for batch in self.writer.index.scan(names, filters=among("path", digests)):
            for row in batch.to_pylist():
                if row["digest"] == digests[row["path"]]:
                    found.setdefault(row["path"], []).append(Segment(row["level"], row["start"], row["end"]))
                else:
                    self._stale.setdefault(row["path"], set()).add(row["id"])
        return found

    def _adopt(self, files: Sequence[File]) -> list[File]:
        """Give files the vectors of the same bytes, of before they were moved or of a copy; returns the others."""
        files = list(files)
        olds = {self._digests[file.digest] for file in files if file.digest in self._digests}
        if not olds:
            return files
        assert self.writer is not None
        whole = self.writer.index.segments.schema
        schema = pa.schema([whole.field(name) for name in (*COLUMNS, "vector")])
        held = self.writer.index.scan([*COLUMNS, "vector"], filters=among("path", olds))
        found = pa.Table.from_batches(held, schema)
        lines = found.drop_columns(["vector"]).to_pylist()
        places: dict[str, list[int]] = {}
        for place, line in enumerate(lines):
            places.setdefault(line["digest"], []).append(place)
        rows, chosen, finished = [], [], []
        for file in (file for file in files if file.digest in places):
            ids = {}  # the bytes may be under two names already: each segment once
            for place in places[file.digest]:
                line = lines[place]
                row = file.row(Segment(line["level"], line["start"], line["end"]), line["duration"])
                ids[row["id"]] = row, place
            rows += [row for row, _ in ids.values()]
            chosen += [place for _, place in ids.values()]
            finished.append((file, rows[-1]["duration"]))
            before = self.known.get(file.stored)
            same = before is not None and before.error is None and before.digest == file.digest
            self.report.kept += same
            self.report.moved += not same
        if rows:
            self._put(rows, vectors_of(found)[chosen])
            self._settle(finished)
        return [file for file in files if file.digest not in places]

    def _put(self, rows: Sequence[Mapping[str, Any]], vectors: np.ndarray) -> None:
        assert self.writer is not None
        self.writer.put(rows, vectors)
        for row in rows:
            self._stale.get(row["path"], set()).discard(row["id"])  # overwritten

    def _settle(self, finished: Iterable[tuple[File, float | None]]) -> None:
        """Drop what the files had before, then write their lines: their rows are written."""
        entries = [file.entry(duration) for file, duration in finished]
        if entries:
            assert self.writer is not None
            self.writer.drop_rows(key for entry in entries for key in self._stale.pop(entry.path, ()))
            self.writer.note(entries)
            self.known |= {entry.path: entry for entry in entries}
            self._digests |= {entry.digest: entry.path for entry in entries}

    def _fail(self, failed: Sequence[tuple[File, Exception | str]]) -> None:
        entries = []
        for file, error in failed:
            reason = error if isinstance(error, str) else failure_reason(error, file.path)
            if not isinstance(error, str):  # else `embed_files` has said so
                logger.warning("skipped %s: %s", printable(file.path), printable(reason))
            self.report.failed[str(file.path)] = reason
            entries.append(file.entry(None, reason))
        if self.writer is None:
            self._early += entries
        elif entries:
            self.writer.drop([entry.path for entry in entries], rows_only=True)
            self.writer.note(entries)
        self.known |= {entry.path: entry for entry in entries}
