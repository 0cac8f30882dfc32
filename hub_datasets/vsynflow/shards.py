"""The plan of a run: the raw corpus in shards of a few hundred records, each in a file named by its content."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from gve.hub_datasets.files import read_json, replacing, write_json
from gve.hub_datasets.parquet import read_rows, write_table
from gve.hub_datasets.vsynflow.records import BASE_COLUMNS, CHILD_MARK, Record, Refused, digest
from gve.hub_datasets.vsynflow.settings import SHARD_ROWS
from gve.hub_datasets.vsynflow.sketches import SeenNames
from gve.media_gve import shown

PLAN = "plan.json"
REFUSED = "refused.jsonl"  # rows that became no record: reason, message
MOST_REFUSED = 0.1  # share of rows; more mean a wrong column or encoding


@dataclass(frozen=True)
class CorpusShard:
    """A piece of the corpus; its name, "<index>-<digest of its records>", keeps other records from its results."""

    name: str
    rows: int


@dataclass(frozen=True)
class CorpusPlan:
    """The corpus in shards, in its own order; `source` says as JSON what it was read from."""

    source: dict[str, Any]
    shard_rows: int
    shards: tuple[CorpusShard, ...]
    refused: Mapping[str, int] = field(default_factory=dict)  # rows that became no record, by reason

    @property
    def rows(self) -> int:
        """Number of raw records."""
        return sum(shard.rows for shard in self.shards)


def manifest_file(folder: Path, shard: CorpusShard) -> Path:
    """Path of a shard's raw records."""
    return folder / "manifest" / f"{shard.name}.parquet"


def read_manifest(folder: Path, shard: CorpusShard) -> list[Record]:
    """Read the raw records of a shard."""
    return read_rows(manifest_file(folder, shard))


def make_plan(
    folder: Path, records: Iterable[Record | Refused], source: dict[str, Any], *, shard_rows: int = SHARD_ROWS
) -> CorpusPlan:
    """Cut a corpus into shards on disk, or return the folder's plan if it is of the same corpus.

    Args:
        records: Read once, never held all at once.
        source: Where the records come from, as JSON; equal sources mean the same corpus.

    Raises:
        ValueError: If the folder holds a plan of another corpus, or more than a tenth of the rows are refused: unusable
            ones, and those with an id that occurred before or contains "#".
    """
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {shard_rows}.")
    path = folder / PLAN
    if path.exists():
        plan = read_plan(folder)
        changed = [
            f"{name}: {old} is now {new}"
            for name, old, new in (("source", plan.source, source), ("shard_rows", plan.shard_rows, shard_rows))
            if old != new
        ]
        if changed:
            raise ValueError(
                f"folder: {folder} holds the plan of another corpus ({'; '.join(changed)}). Choose another folder."
            )
        return plan
    with _refusals(folder) as refusals:
        shards = tuple(_write_shards(folder, refusals.drop(records), shard_rows))
    plan = CorpusPlan(source, shard_rows, shards, dict(refusals.counts))
    write_json(path, asdict(plan))
    return plan


def read_plan(folder: Path) -> CorpusPlan:
    """Read the plan in a run's folder; ValueError if it has none."""
    path = folder / PLAN
    if not path.exists():
        raise ValueError(f"folder: {folder} holds no {PLAN}. Run gve synth plan first.")
    stored = read_json(path)
    shards = tuple(CorpusShard(**shard) for shard in stored["shards"])
    return CorpusPlan(stored["source"], stored["shard_rows"], shards, stored.get("refused", {}))


def _write_shards(folder: Path, records: Iterator[Record], shard_rows: int) -> Iterator[CorpusShard]:
    index = 0
    while rows := list(islice(records, shard_rows)):
        shard = CorpusShard(f"{index:05d}-{digest(rows)[:12]}", len(rows))
        path = manifest_file(folder, shard)
        if not path.exists():
            write_table(path, rows, BASE_COLUMNS, {"rows": len(rows)})
        yield shard
        index += 1


class _Refusals:
    """Refused rows, counted by reason and written down."""

    def __init__(self, file: IO[str]) -> None:
        self.counts, self._file = Counter[str](), file
        self._rows, self._first = 0, ""

    def drop(self, records: Iterable[Record | Refused]) -> Iterator[Record]:
        """The records among some rows, each id once; ValueError as soon as too many rows are refused."""
        seen = SeenNames()
        for record in records:
            self._rows += 1
            why = record if isinstance(record, Refused) else _unfit(record["id"], seen)
            if why is None:
                yield record
                continue
            self._first = self._first or why.message
            self.counts[why.reason] += 1
            self._file.write(json.dumps(why, ensure_ascii=False) + "\n")
            self._check(least=100)
        self._check(least=0)

    def _check(self, least: int) -> None:
        count = self.counts.total()
        if count > max(least, MOST_REFUSED * self._rows):
            raise ValueError(f"{self._first} {count} of {self._rows} rows are refused, more than {MOST_REFUSED:.0%}.")


@contextmanager
def _refusals(folder: Path) -> Iterator[_Refusals]:
    with replacing(folder / REFUSED) as path, path.open("w", encoding="utf-8") as file:
        yield _Refusals(file)


def _unfit(name: str, seen: SeenNames) -> Refused | None:
    if CHILD_MARK in name or not name:
        message = f"id must be a name without {CHILD_MARK!r}, which marks children; got {shown(name)}."
        return Refused("id: no name", message)
    if not seen.add(name):
        return Refused("id: twice", f"id: got {shown(name)} twice. Rename or remove one of the rows.")
    return None
