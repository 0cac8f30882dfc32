"""What the files of a run say: how far it is, its tables, and the proof that it lost and doubled nothing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gve.hub_datasets.files import read_json
from gve.hub_datasets.parquet import read_facts, read_rows
from gve.hub_datasets.vsynflow.costs import run_costs
from gve.hub_datasets.vsynflow.records import BASE_COLUMNS, digest
from gve.hub_datasets.vsynflow.settings import CONFIG
from gve.hub_datasets.vsynflow.shards import REFUSED, CorpusPlan, CorpusShard, read_manifest, read_plan
from gve.hub_datasets.vsynflow.sketches import SeenNames
from gve.hub_datasets.vsynflow.tasks import done_file
from gve.hub_datasets.vsynflow.work import TABLES

_SHOWN = 20
_PAIRED = {"frame", "frame_captions", "clip", "image_query", "clip_query"}  # columns, each of which gives a pair


def run_status(folder: Path) -> dict[str, Any]:
    """Count shards, records and reasons; nothing is locked, so a run at work is not disturbed.

    `words` holds the first message of a server for each reason, `redacted` counts kept rows that lost personal data.
    `costs` are a thousand pairs' too once all shards are done.
    """
    plan = read_plan(folder)
    ended, reasons, changed = Counter[str](), Counter[str](), 0
    words: dict[str, str] = {}
    done = [shard for shard in plan.shards if done_file(folder, shard).exists()]
    for shard in done:
        counts = read_json(done_file(folder, shard))["counts"]
        ended.update({name: counts[name] for name in ("kept", "rejected", "failed", "retryable")})
        changed += _redacted(folder / "kept" / f"{shard.name}.parquet")
        for table in ("rejected", "failed"):
            for row in read_rows(folder / table / f"{shard.name}.parquet"):
                code, _, said = row["code"].partition(": ")
                reason = f"{row['stage']}: {code}"
                reasons[reason] += 1
                if said:
                    words.setdefault(reason, said)
    return {
        "shards": len(plan.shards),
        "records": plan.rows,
        "refused": dict(plan.refused),
        "done": len(done),
        "ended": dict(ended),
        "stages": _stages(folder, plan),
        "reasons": dict(reasons.most_common()),
        "words": words,
        "redacted": changed,
        "costs": run_costs(folder, _prices(folder), _pairs(folder, plan) if len(done) == len(plan.shards) else None),
    }


def _prices(folder: Path) -> Any:
    path = folder / CONFIG
    return ((read_json(path) if path.exists() else {}).get("captioner") or {}).get("prices")


def _pairs(folder: Path, plan: CorpusPlan) -> int:
    """Pairs of all tasks that the kept records can give, as `pairs.rows_of` makes them."""
    pairs = 0
    for shard in plan.shards:
        path = folder / "kept" / f"{shard.name}.parquet"
        if set(pq.read_schema(path).names) >= _PAIRED:
            table = pq.read_table(path, columns=sorted(_PAIRED), partitioning=None)
            pairs += 2 * len(table) + sum(len(column) - column.null_count for column in table.columns)
    return pairs


def _redacted(path: Path) -> int:
    if "redacted" not in pq.read_schema(path).names:
        return 0
    (column,) = pq.read_table(path, columns=["redacted"], partitioning=None).columns
    return sum(count > 0 for count in column.to_pylist())


def _stages(folder: Path, plan: CorpusPlan) -> dict[str, dict[str, int]]:
    stages = {}
    for path in sorted((folder / "stages").glob("*")):
        files = [path / f"{shard.name}.parquet" for shard in plan.shards]
        stored = [file for file in files if file.exists()]
        counts = Counter[str]()
        for file in stored:
            counts.update(read_facts(file)["counts"])
        stages[path.name] = {"shards": len(stored), **counts}
    return stages


def read_table(folder: Path, table: str) -> Iterator[dict[str, Any]]:
    """The rows of one of TABLES over all finished shards, in the plan's order."""
    if table not in TABLES:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, got {table!r}.")
    for shard in read_plan(folder).shards:
        if done_file(folder, shard).exists():
            yield from read_rows(folder / table / f"{shard.name}.parquet")


@dataclass
class Verdict:
    """What a check of a run found; no `errors` mean a sound and finished run.

    A raw record is kept if anything of it was, else failed if anything of it failed, else rejected.
    """

    records: int = 0
    kept: int = 0
    rejected: int = 0
    failed: int = 0
    rows: int = 0  # of the kept table
    errors: list[str] = field(default_factory=list)


def verify_run(folder: Path) -> Verdict:
    """Prove that in = kept + rejected + failed, that ids are unique, and that all hashes are right."""
    plan, verdict, seen = read_plan(folder), Verdict(), SeenNames()
    for shard in plan.shards:
        verdict.records += shard.rows
        for error in _check_shard(folder, shard, verdict, seen):
            if len(verdict.errors) < _SHOWN:
                verdict.errors.append(f"shard {shard.name}: {error}")
    listed = (folder / REFUSED).read_bytes().count(b"\n") if (folder / REFUSED).exists() else 0
    if listed != sum(plan.refused.values()):
        verdict.errors.append(f"{sum(plan.refused.values())} rows were refused, but {REFUSED} lists {listed}")
    names = {f"{shard.name}.parquet" for shard in plan.shards}
    foreign = [path for table in TABLES for path in (folder / table).glob("*.parquet") if path.name not in names]
    if foreign:
        verdict.errors.append(f"{len(foreign)} files belong to no shard of the plan, such as {foreign[0].name}")
    if not verdict.errors and verdict.kept + verdict.rejected + verdict.failed != verdict.records:
        verdict.errors.append(f"{verdict.records} records, but {verdict.kept} + {verdict.rejected} + {verdict.failed}")
    return verdict


def _check_shard(folder: Path, shard: CorpusShard, verdict: Verdict, seen: SeenNames) -> Iterator[str]:
    raw = read_manifest(folder, shard)
    if digest([{name: row[name] for name in BASE_COLUMNS} for row in raw])[:12] != shard.name.partition("-")[2]:
        yield "its raw records are not the plan's"
    if not done_file(folder, shard).exists():
        yield "not finished; run it again"
        return
    done = read_json(done_file(folder, shard))
    tables: dict[str, list[dict[str, Any]]] = {}
    for table in TABLES:
        path = folder / table / f"{shard.name}.parquet"
        if not path.exists():
            yield f"{table} is missing"
            return
        if hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() != done["hashes"][table]:
            yield f"{table} has another hash than when it was written"
            return
        tables[table] = read_rows(path)
    counts = done["counts"]
    ended = sum(len(rows) for rows in tables.values())
    if counts["in"] + counts["children"] - counts["replaced"] != ended:
        yield f"{counts['in']} + {counts['children']} children - {counts['replaced']} replaced, but {ended} ended"
    double = [row["id"] for rows in tables.values() for row in rows if not seen.add(row["id"])]
    if double:
        yield f"{len(double)} ids occur twice, such as {double[0]!r}"
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
