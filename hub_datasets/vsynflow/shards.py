"""The plan of a run: the raw corpus in shards of a few hundred records, each in a file named by its content."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gve.hub_datasets.files import read_json, write_json
from gve.hub_datasets.parquet import read_rows, write_table
from gve.hub_datasets.vsynflow.records import BASE_COLUMNS, CHILD_MARK, Record, digest
from gve.hub_datasets.vsynflow.settings import SHARD_ROWS
from gve.media_gve import shown

PLAN = "plan.json"


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
    folder: Path, records: Iterable[Record], source: dict[str, Any], *, shard_rows: int = SHARD_ROWS
) -> CorpusPlan:
    """Cut a corpus into shards on disk, or return the folder's plan if it is of the same corpus.

    Args:
        records: Read once, never held all at once.
        source: Where the records come from, as JSON; equal sources mean the same corpus.

    Raises:
        ValueError: If the folder holds a plan of another corpus, or an id occurs twice or contains "#".
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
    shards = tuple(_write_shards(folder, _unique(records), shard_rows))
    plan = CorpusPlan(source, shard_rows, shards)
    write_json(path, asdict(plan))
    return plan


def read_plan(folder: Path) -> CorpusPlan:
    """Read the plan in a run's folder; ValueError if it has none."""
    path = folder / PLAN
    if not path.exists():
        raise ValueError(f"folder: {folder} holds no {PLAN}. Run gve synth plan first.")
    stored = read_json(path)
    shards = tuple(CorpusShard(**shard) for shard in stored["shards"])
    return CorpusPlan(stored["source"], stored["shard_rows"], shards)


def _write_shards(folder: Path, records: Iterator[Record], shard_rows: int) -> Iterator[CorpusShard]:
    index = 0
    while rows := list(islice(records, shard_rows)):
        shard = CorpusShard(f"{index:05d}-{digest(rows)[:12]}", len(rows))
        path = manifest_file(folder, shard)
        if not path.exists():
            write_table(path, rows, BASE_COLUMNS, {"rows": len(rows)})
        yield shard
        index += 1


def _unique(records: Iterable[Record]) -> Iterator[Record]:
    seen: set[str] = set()
    for record in records:
        name = record["id"]
        if name in seen:
            raise ValueError(f"id: got {shown(name)} twice. Rename or remove one of the rows.")
        if CHILD_MARK in name or not name:
            raise ValueError(f"id must be a name without {CHILD_MARK!r}, which marks children; got {shown(name)}.")
        seen.add(name)
        yield record
