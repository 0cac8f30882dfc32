"""How far a run is, read from its files while it runs."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gve.hub_datasets.vsynflow.files import read_facts, read_json, read_rows
from gve.hub_datasets.vsynflow.shards import Plan, read_plan
from gve.hub_datasets.vsynflow.work import done_file


def run_status(folder: Path) -> dict[str, Any]:
    """Counts of shards, records and reasons; nothing is locked, so a run at work is not disturbed.

    Args:
        folder: The run's folder.

    Returns:
        JSON: `shards`, `records`, `done` (shards), `ended` (kept, rejected, failed and retryable records),
        `stages` (stored shards and outcomes by stage), `reasons` ("stage: code" to a count), `words` (of each such code
        that came with a server's own words, the first of them), `redacted` (kept rows whose weak caption had personal
        data taken out).

    Raises:
        ValueError: If the folder holds no plan.
    """
    plan = read_plan(folder)
    ended, reasons, done, changed = Counter[str](), Counter[str](), 0, 0
    words: dict[str, str] = {}
    for shard in plan.shards:
        path = done_file(folder, shard)
        if not path.exists():
            continue
        done += 1
        counts = read_json(path)["counts"]
        ended.update({name: counts[name] for name in ("kept", "rejected", "failed", "retryable")})
        changed += _redacted(folder / "kept" / f"{shard.name}.parquet")
        for table in ("rejected", "failed"):
            rows = read_rows(folder / table / f"{shard.name}.parquet")
            for row in rows:
                code, _, said = row["code"].partition(": ")
                reason = f"{row['stage']}: {code}"
                reasons[reason] += 1
                if said:
                    words.setdefault(reason, said)
    return {
        "shards": len(plan.shards),
        "records": plan.rows,
        "done": done,
        "ended": dict(ended),
        "stages": _stages(folder, plan),
        "reasons": dict(reasons.most_common()),
        "words": words,
        "redacted": changed,
    }


def _redacted(path: Path) -> int:
    """Rows of a kept table with a redaction, read from that column alone; 0 where there was no such stage."""
    if "redacted" not in pq.read_schema(path).names:
        return 0
    (column,) = pq.read_table(path, columns=["redacted"], partitioning=None).columns
    return sum(count > 0 for count in column.to_pylist())


def _stages(folder: Path, plan: Plan) -> dict[str, dict[str, int]]:
    stages = {}
    for path in sorted((folder / "stages").glob("*")):
        files = [path / f"{shard.name}.parquet" for shard in plan.shards]
        stored = [file for file in files if file.exists()]
        counts = Counter[str]()
        for file in stored:
            counts.update(read_facts(file)["counts"])
        stages[path.name] = {"shards": len(stored), **counts}
    return stages
