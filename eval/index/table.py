"""An index on disk: vectors of files and of stretches of videos in LanceDB tables, searched exactly or by an ANN index.

Shapes: Q queries, N rows, D width.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gve.eval.console import fail
from gve.eval.index.rows import Hit, Levels
from gve.eval.index.storage import (
    COLUMNS,
    FACTS,
    FILES,
    LEDGER,
    SCHEMA,
    SEGMENTS,
    check_place,
    connect,
    fact_rows,
    is_local,
    merge,
    quoted,
    real_path,
    schema_of,
    vectors_of,
)
from gve.eval.video_retrieval.ranking import as_array
from gve.media_gve import shown

_REMOTE_AGE = 5.0  # seconds that a remote index may be behind; a local one is looked at anew each time
_SCAN_ROWS = 8192


class Index:
    """Vectors with their files, times and columns; made by `create`, opened by `open`.

    Reading is safe at any time and from any number of threads and processes; `Writer` changes it.
    """

    def __init__(self, where: str, connection: Any) -> None:
        self.where, self._connection = where, connection
        self._seen: dict[str, tuple[float, Any]] = {}
        table = self._table(FACTS)
        facts = {row["name"]: json.loads(row["value"]) for row in table.to_arrow().to_pylist()}
        if facts.get("schema") != SCHEMA:
            fail(
                f"INDEX: {shown(where)} has the schema {shown(facts.get('schema'))}; this version reads {SCHEMA!r}. Add its "
                "sources to a new index."
            )
        self.model: str = facts["model"]
        self.fingerprint: str = facts["fingerprint"]
        self.width: int = facts["width"]
        self.levels = Levels(**facts["levels"])
        self.settings: dict[str, Any] = facts["settings"]

    @classmethod
    def create(
        cls,
        where: str,
        *,
        model: str,
        fingerprint: str,
        width: int,
        levels: Levels,
        settings: Mapping[str, Any],
    ) -> "Index":
        """Make an empty index.

        Args:
            where: A folder that does not exist or is empty, or an address such as s3://bucket/name.
            model: Folder or Hub name of the embedder.
            fingerprint: Of that model; see `model_fingerprint`.
            width: D.
            settings: What else changes vectors, such as num_frames.

        Raises:
            ValueError: If there is something else at `where`.
        """
        check_place(where)
        connection = connect(where)
        for name in (FACTS, SEGMENTS, FILES):
            connection.drop_table(name, ignore_missing=True)  # of a creation that was killed
        for name, schema, key in ((SEGMENTS, schema_of(width), "id"), (FILES, LEDGER, "path")):
            connection.create_table(name, schema=schema).set_unenforced_primary_key(key)  # two writers share no key
        facts = {"schema": SCHEMA, "model": model, "fingerprint": fingerprint, "width": width}
        # last, since it makes the folder an index
        facts |= {"levels": asdict(levels), "settings": dict(settings), "sources": [], "ann": None}
        connection.create_table(FACTS, data=fact_rows(facts)).set_unenforced_primary_key("name")
        return cls(where, connection)

    @classmethod
    def open(cls, where: str) -> "Index":
        """Open an index; ValueError if there is none, or one of another schema."""
        if not is_index(where):  # LanceDB would make the folder
            fail(f"INDEX: {shown(where)} is no index. Make one with `gve index add`.")
        return cls(where, connect(where))

    def __len__(self) -> int:
        return self.segments.count_rows()

    @property
    def segments(self) -> Any:
        """The LanceDB table of the rows, in the newest version; a table held keeps its version."""
        return self._table(SEGMENTS)

    @property
    def ledger(self) -> Any:
        """The LanceDB table of the files, with and without rows."""
        return self._table(FILES)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The user's own columns."""
        fields = self.segments.schema
        return {each.name: each.type for each in fields if each.name not in COLUMNS and each.name[:6] != "vector"}

    @property
    def sources(self) -> list[str]:
        """What was added, which `gve index update` reads again."""
        return self.fact("sources")

    def fact(self, name: str) -> Any:
        """A value that `note` kept."""
        found = self._table(FACTS).search().where(f"name = {quoted(name)}").limit(1).to_list()
        return json.loads(found[0]["value"]) if found else None

    def note(self, name: str, value: Any) -> None:
        """Keep a value of JSON beside the rows."""
        merge(self._table(FACTS), "name", fact_rows({name: value}))
        self._seen.clear()

    def search(self, queries: Any, k: int, *, filters: str | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k best rows of each query by cosine, best first; equal scores stand in the order of ids.

        Args:
            queries: (Q, D) unit vectors.
            k: Rows a query.
            filters: A condition of SQL over the columns.
            exact: Look at every row even if there is an ANN index.

        Raises:
            ValueError: For k below 1, queries of another width or not finite, or a condition that cannot be read.
        """
        queries = as_array(queries).astype(np.float32, copy=False)
        if k < 1:
            fail(f"k: must be at least 1, got {k}.")
        if queries.ndim != 2 or queries.shape[1] != self.width:
            fail(f"queries: must be (Q, {self.width}), got shape {queries.shape}. Use the model of the index.")
        if not np.isfinite(queries).all():
            fail("queries: must be finite, got nan or infinity. Check the encoder.")
        table, ann = self.segments, None if exact else self.fact("ann")
        with self._conditions(filters):
            if ann is None:
                best = self._best(table, queries, k, filters)
            else:
                best = [self.near(table, ann, query, k, filters) for query in queries]
        wanted = sorted({row for _, _, rows in best for row in rows.tolist()})
        names = [*COLUMNS, *self.columns]
        found = {row["id"]: row for row in table.take_row_ids(wanted).select(names).to_list()} if wanted else {}
        return [[_hit(found[key], score) for score, key in zip(scores, keys, strict=True)] for scores, keys, _ in best]

    def scan(
        self, columns: Sequence[str], *, filters: str | None = None, batch_rows: int = _SCAN_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """All rows in batches; `real_path` gives the path of a stored one."""
        with self._conditions(filters):
            yield from _filtered(self.segments.search(), filters).select(list(columns)).to_batches(batch_rows)

    @contextmanager
    def _conditions(self, filters: str | None) -> Iterator[None]:
        """Name the columns where a filter cannot be read."""
        try:
            yield
        except ValueError as error:
            if filters is None:
                raise
            missing = re.search(r"No field named (.+?)\.(?:\s|$)", str(error))
            names = ", ".join([*COLUMNS, *self.columns])
            if missing:
                fail(f"--where: there is no column {shown(missing[1])}. The columns are {names}.")
            reason = re.sub(r"^Invalid input, |, /\S+\.rs:\d+:\d+$", "", str(error).splitlines()[0])
            fail(
                f'--where: {shown(filters)} cannot be read ({reason}). Write SQL, as in "duration > 60", over {names}.'
            )

    def _best(
        self, table: Any, queries: np.ndarray, k: int, filters: str | None
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Scores, ids and row numbers of the k best rows of each query, from one pass over all rows."""
        nothing = np.empty(0, np.float32), np.empty(0, object), np.empty(0, np.int64)
        best = [nothing] * len(queries)
        rows = _filtered(table.search(), filters).select(["id", "vector"]).with_row_id(True)
        for batch in rows.to_batches(_SCAN_ROWS):
            scores = queries @ vectors_of(batch).T  # (Q, n)
            for number, (held, keys, places) in enumerate(best):
                floor = held[-1] if len(held) == k else -np.inf
                near = np.flatnonzero(scores[number] >= floor)
                if len(near) > k:
                    cut = np.partition(scores[number][near], len(near) - k)[len(near) - k]
                    near = near[scores[number][near] >= cut]
                if not len(near):
                    continue
                held = np.concatenate([held, scores[number][near]])
                keys = np.concatenate([keys, np.array(batch["id"].take(pa.array(near)).to_pylist(), object)])
                places = np.concatenate([places, batch["_rowid"].to_numpy()[near].astype(np.int64)])
                order = np.lexsort((keys.astype(str), -held))[:k]
                best[number] = held[order], keys[order], places[order]
        return best

    def near(
        self, table: Any, ann: Mapping[str, Any], query: np.ndarray, k: int, filters: str | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Exact scores, ids and row numbers of the rows that the ANN index finds, best first."""
        asked = query[: ann["dims"]]
        search = table.search(asked / max(float(np.linalg.norm(asked)), 1e-12), vector_column_name=ann["column"])
        search = _filtered(search.distance_type(ann["metric"]), filters).limit(k * ann["over"])
        for name, value in ann["search"].items():  # probes, refine_factor
            search = getattr(search, name)(value)
        found = search.select(["id", "vector", "_distance"]).with_row_id(True).to_arrow()
        scores = vectors_of(found) @ query
        keys = np.array(found["id"].to_pylist(), object)
        order = np.lexsort((keys.astype(str), -scores))[:k]
        return scores[order], keys[order], found["_rowid"].to_numpy()[order].astype(np.int64)

    def _table(self, name: str) -> Any:
        age, table = self._seen.get(name, (-np.inf, None))
        if is_local(self.where) or time.monotonic() - age > _REMOTE_AGE:
            table = self._connection.open_table(name)
            self._seen[name] = time.monotonic(), table
        return table


def is_index(where: str) -> bool:
    """Whether there is an index, of any schema."""
    if is_local(where):
        return any((Path(where) / f"{FACTS}.lance" / "_versions").glob("*.manifest"))
    try:
        connect(where).open_table(FACTS)
    except ValueError:
        return False
    return True


def _filtered(query: Any, filters: str | None) -> Any:
    return query if filters is None else query.where(filters)


def _hit(row: Mapping[str, Any], score: float) -> Hit:
    named = {name: row[name] for name in ("kind", "level", "start", "end")}
    own = {name: value for name, value in row.items() if name not in COLUMNS and name[0] != "_"}
    return Hit(path=real_path(row["path"]), score=float(score), columns=own, **named)
