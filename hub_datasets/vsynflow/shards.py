"""Shards: the units of work, each a few hundred raw records in a file named by its content."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gve.hub_datasets.vsynflow.files import commit_json, commit_rows, read_json, read_rows
from gve.hub_datasets.vsynflow.records import BASE_COLUMNS, CHILD_MARK, Record, digest
from gve.hub_datasets.vsynflow.settings import SHARD_ROWS
from gve.media_gve import shown

PLAN = "plan.json"


@dataclass(frozen=True)
class Shard:
    """A piece of the corpus.

    Attributes:
        name: "<index>-<digest of its records>", so that other records never meet results of these.
        rows: Its number of records.
    """

    name: str
    rows: int


@dataclass(frozen=True)
class Plan:
    """The corpus, cut into shards.

    Attributes:
        source: What it was read from, as JSON.
        shard_rows: Records in a full shard.
        shards: The shards, in the corpus's order.
    """

    source: dict[str, Any]
    shard_rows: int
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """Records of the corpus."""
        return sum(shard.rows for shard in self.shards)


def manifest_file(folder: Path, shard: Shard) -> Path:
    """The file of a shard's raw records."""
    return folder / "manifest" / f"{shard.name}.parquet"


def read_manifest(folder: Path, shard: Shard) -> list[Record]:
    """The raw records of a shard."""
    return read_rows(manifest_file(folder, shard))


def make_plan(
    folder: Path, records: Iterable[Record], source: dict[str, Any], *, shard_rows: int = SHARD_ROWS
) -> Plan:
    """Cut a corpus into shards on disk; an earlier plan of the same corpus is taken as it is.

    Args:
        folder: The run's folder.
        records: The raw records; read once, never held all at once.
        source: What they come from, as JSON.
        shard_rows: Records a shard.

    Returns:
        The plan, which is also in plan.json.

    Raises:
        ValueError: If the folder holds a plan of another corpus, an id is there twice or holds "#", or
            `shard_rows` is not positive.
    """
    if shard_rows < 1:
        raise ValueError(f"shard_rows: got {shard_rows}; 1 or more is accepted")
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
                f"folder: {folder} holds the plan of another corpus ({'; '.join(changed)}); "
                "the same corpus is accepted; choose another folder or delete this one"
            )
        return plan
    shards = tuple(_write_shards(folder, _unique(records), shard_rows))
    plan = Plan(source, shard_rows, shards)
    commit_json(path, asdict(plan))
    return plan


def read_plan(folder: Path) -> Plan:
    """The plan in a run's folder.

    Raises:
        ValueError: If there is none.
    """
    path = folder / PLAN
    if not path.exists():
        raise ValueError(f"folder: {folder} holds no {PLAN}; a planned run is accepted; see gve synth plan")
    stored = read_json(path)
    return Plan(stored["source"], stored["shard_rows"], tuple(Shard(**shard) for shard in stored["shards"]))


def _write_shards(folder: Path, records: Iterator[Record], shard_rows: int) -> Iterator[Shard]:
    index = 0
    while rows := list(islice(records, shard_rows)):
        shard = Shard(f"{index:05d}-{digest(rows)[:12]}", len(rows))
        path = manifest_file(folder, shard)
        if not path.exists():
            commit_rows(path, rows, BASE_COLUMNS, {"rows": len(rows)})
        yield shard
        index += 1


def _unique(records: Iterable[Record]) -> Iterator[Record]:
    seen: set[str] = set()
    for record in records:
        name = record["id"]
        if name in seen:
            raise ValueError(
                f"id: got {shown(name)} twice; ids that differ are accepted; rename or remove one of the rows"
            )
        if CHILD_MARK in name or not name:
            raise ValueError(f"id: got {shown(name)}; a name without {CHILD_MARK!r} is accepted, which marks children")
        seen.add(name)
        yield record
