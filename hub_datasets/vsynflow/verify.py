"""Proof that a run lost and doubled nothing: in = kept + rejected + failed, ids unique, hashes right."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gve.hub_datasets.vsynflow.files import read_json, read_rows
from gve.hub_datasets.vsynflow.records import BASE_COLUMNS, digest
from gve.hub_datasets.vsynflow.shards import Shard, read_manifest, read_plan
from gve.hub_datasets.vsynflow.work import TABLES, done_file

_SHOWN = 20


@dataclass
class Verdict:
    """What a check of a run found.

    Attributes:
        records: Raw records; every one is kept, rejected or failed by what became of it and of its children.
        kept: Raw records of which something was kept.
        failed: Raw records of which nothing was kept and something failed.
        rejected: All others.
        rows: Rows of the kept table: records and children that passed every stage.
        errors: What is wrong, one line each; empty where the run is sound and finished.
    """

    records: int = 0
    kept: int = 0
    rejected: int = 0
    failed: int = 0
    rows: int = 0
    errors: list[str] = field(default_factory=list)


def verify_run(folder: Path) -> Verdict:
    """Read a finished run again and count it.

    Args:
        folder: The run's folder.

    Returns:
        The counts and what is wrong.

    Raises:
        ValueError: If the folder holds no plan.
    """
    plan, verdict, seen = read_plan(folder), Verdict(), Counter[str]()
    for shard in plan.shards:
        verdict.records += shard.rows
        for error in _check_shard(folder, shard, verdict, seen):
            if len(verdict.errors) < _SHOWN:
                verdict.errors.append(f"shard {shard.name}: {error}")
    double = [name for name, count in seen.items() if count > 1]
    if double:
        verdict.errors.append(f"{len(double)} ids are there twice, such as {double[0]!r}")
    names = {f"{shard.name}.parquet" for shard in plan.shards}
    foreign = [path for table in TABLES for path in (folder / table).glob("*.parquet") if path.name not in names]
    if foreign:
        verdict.errors.append(f"{len(foreign)} files belong to no shard of the plan, such as {foreign[0].name}")
    if not verdict.errors and verdict.kept + verdict.rejected + verdict.failed != verdict.records:
        verdict.errors.append(f"{verdict.records} records, but {verdict.kept} + {verdict.rejected} + {verdict.failed}")
    return verdict


def read_table(folder: Path, table: str) -> Iterator[dict[str, Any]]:
    """The rows of one of TABLES over all finished shards, in the plan's order.

    Raises:
        ValueError: If there is no such table.
    """
    if table not in TABLES:
        raise ValueError(f"table: got {table!r}; {', '.join(TABLES)} are accepted")
    for shard in read_plan(folder).shards:
        if done_file(folder, shard).exists():
            yield from read_rows(folder / table / f"{shard.name}.parquet")


def _check_shard(folder: Path, shard: Shard, verdict: Verdict, seen: Counter[str]) -> Iterator[str]:
    raw = read_manifest(folder, shard)
    if digest([{name: row[name] for name in BASE_COLUMNS} for row in raw])[:12] != shard.name.partition("-")[2]:
        yield "its raw records are not those of the plan"
    if not done_file(folder, shard).exists():
        yield "not finished; run it again"
        return
    done = read_json(done_file(folder, shard))
    tables: dict[str, list[dict[str, Any]]] = {}
    for table in TABLES:
        path = folder / table / f"{shard.name}.parquet"
        if not path.exists():
            yield f"{table} is not there"
            return
        if hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() != done["hashes"][table]:
            yield f"{table} has another hash than when it was written"
            return
        tables[table] = read_rows(path)
    counts = done["counts"]
    ended = sum(len(rows) for rows in tables.values())
    if counts["in"] + counts["children"] - counts["replaced"] != ended:
        yield f"{counts['in']} + {counts['children']} children - {counts['replaced']} replaced, but {ended} ended"
    seen.update(row["id"] for rows in tables.values() for row in rows)
    yield from _check_origins({row["id"] for row in raw}, tables, verdict)


def _check_origins(raw: set[str], tables: dict[str, list[dict[str, Any]]], verdict: Verdict) -> Iterable[str]:
    origins = {table: {row["origin"] for row in rows} for table, rows in tables.items()}
    verdict.rows += len(tables["kept"])
    kept = origins["kept"]
    failed = origins["failed"] - kept
    rejected = origins["rejected"] - kept - failed
    verdict.kept += len(kept)
    verdict.failed += len(failed)
    verdict.rejected += len(rejected)
    ended = kept | failed | rejected
    if raw - ended:
        yield f"{len(raw - ended)} records are lost, such as {min(raw - ended)!r}"
    if ended - raw:
        yield f"{len(ended - raw)} records come from nowhere, such as {min(ended - raw)!r}"
