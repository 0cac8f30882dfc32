"""The work on one shard: the same function in this process, in another, and on another machine."""

import hashlib
import logging
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.files import write_json
from gve.hub_datasets.parquet import write_table
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import Record, digest, make_child
from gve.hub_datasets.vsynflow.results import Key, Results, keys_of, save_corpus, visible
from gve.hub_datasets.vsynflow.shards import read_manifest
from gve.hub_datasets.vsynflow.sketches import columns_digest, id_columns, write_sketch
from gve.hub_datasets.vsynflow.stages import (
    Context,
    CorpusStage,
    Expanded,
    Failed,
    Kept,
    Outcome,
    Rejected,
    SetupError,
    Stage,
)
from gve.hub_datasets.vsynflow.tasks import PoolTask, ShardTask, done_file

logger = logging.getLogger(__name__)

_ENDED = dict.fromkeys(("id", "origin", "stage", "code"), pa.string())
REJECTED_COLUMNS: dict[str, pa.DataType] = {**_ENDED, "score": pa.float64()}
FAILED_COLUMNS: dict[str, pa.DataType] = {**_ENDED, "retryable": pa.bool_()}
TABLES = ("kept", "rejected", "failed")  # a finished shard has all three


@dataclass
class Walk:
    """What became of a shard's records so far; `alive` go on, `replaced` counts records that gave way to children."""

    alive: list[Record]
    rejected: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    replaced: int = 0
    children: int = 0

    def apply(self, stage: Stage, outcomes: Sequence[Outcome]) -> None:
        """Move the records on by a stage's outcomes and limits."""
        records, self.alive = self.alive, []
        for record, outcome in zip(records, outcomes, strict=True):
            if isinstance(outcome, Kept):
                self._judge(stage, {**record, **outcome.columns})
            elif isinstance(outcome, Expanded):
                self.replaced += 1
                self.children += len(outcome.children)
                for suffix, columns in outcome.children.items():
                    self._judge(stage, make_child(record, suffix, columns))
            elif isinstance(outcome, Rejected):
                self.rejected.append(_ended(stage, record, outcome.code, score=outcome.score))
            else:
                self.failed.append(_ended(stage, record, outcome.code, retryable=outcome.retryable))

    def _judge(self, stage: Stage, record: Record) -> None:
        verdict = stage.judge(record)
        if verdict is None:
            self.alive.append(record)
        else:
            self.rejected.append(_ended(stage, record, verdict.code, score=verdict.score))


def _ended(stage: Stage, record: Record, code: str, **more: Any) -> dict[str, Any]:
    return {"id": record["id"], "origin": record["origin"], "stage": stage.name, "code": code, **more}


def run_shard(task: ShardTask) -> dict[str, int]:
    """Compute what a task lacks and count its records by outcome; after an OSError all that is committed stays."""
    if isinstance(task, PoolTask):
        return _run_pool(task)
    with Journal(task.folder / "journal" / task.shard.name) as journal:
        walk = _walk(task, make_context(task.folder, task.flow, task.shard.name, journal))
    if task.stop == len(task.flow.stages):
        _finish(task, walk)
    else:
        _sketch(task, walk)
    return {"alive": len(walk.alive), "rejected": len(walk.rejected), "failed": len(walk.failed)}


def _run_pool(task: PoolTask) -> dict[str, int]:
    stage = task.flow.stages[task.stop]
    shown = [_walk(replace(task, shard=shard), None).alive for shard in task.shards]
    records = [record for one in shown for record in one]
    with Journal(task.folder / "journal" / f"{stage.name}-{task.shard.name}") as journal:
        found = iter(run_stage(stage, records, make_context(task.folder, task.flow, task.shard.name, journal)))
    for shard, one in zip(task.shards, shown, strict=True):
        named = {record["id"]: next(found) for record in one}
        save_corpus(task.folder, stage, shard.name, task.corpora[stage.name], named)
    return {"alive": len(records)}


def _sketch(task: ShardTask, walk: Walk) -> None:
    stage = task.flow.stages[task.stop]
    shown = [visible(stage, record) for record in walk.alive]
    columns = id_columns(record["id"] for record in shown)
    columns |= stage.sketch(shown) if isinstance(stage, CorpusStage) else {}
    facts = {
        "flow": task.digest(),
        "seen": columns_digest(columns) if isinstance(stage, CorpusStage) else digest(*shown),
        "records": str(len(shown)),
        "retryable": str(sum(row["retryable"] for row in walk.failed)),
    }
    write_sketch(task.sketch_file, columns, facts)


def _walk(task: ShardTask, context: Context | None) -> Walk:
    walk = Walk(read_manifest(task.folder, task.shard))
    for stage in task.flow.stages[: task.stop]:
        keys = keys_of(stage, walk.alive, task.corpora[stage.name] if stage.scope != "shard" else None)
        results = Results.load(task.folder, stage, task.shard.name)
        if stage.scope == "shard" and context is not None:
            results = _complete(task, results, walk.alive, keys, context)
        walk.apply(stage, [results.outcomes[key] for key in keys])
    return walk


def run_stage(stage: Stage, records: Sequence[Record], context: Context) -> list[Outcome]:
    """The outcomes of a stage. If it raises, its records run one by one, so that only the culprit fails.

    Raises:
        OSError, SetupError: The run's trouble, not the record's. A pool stage raises anything.
        RuntimeError: If the number of outcomes is not the number of records.
    """
    shown = [visible(stage, record) for record in records]
    try:
        outcomes = stage.run(shown, context)
    except (OSError, MemoryError, SetupError):
        raise
    except Exception as error:
        logger.warning("%s on %s: %s: %s", stage.name, context.shard, type(error).__name__, error)
        if stage.scope != "shard":
            raise
        if len(records) > 1:
            return [outcome for record in records for outcome in run_stage(stage, [record], context)]
        # retryable, because the fault may be the code's, and a later release may have mended it
        return [Failed(f"error:{type(error).__name__}", retryable=True)] * len(records)
    if len(outcomes) != len(records):
        raise RuntimeError(f"{stage.name}: {len(outcomes)} outcomes for {len(records)} records")
    return [_settled(outcome) for outcome in outcomes]


def make_context(folder: Path, flow: Flow, shard: str, journal: Journal) -> Context:
    """What the stages of a flow may use; encoder, captioner and writer are made once a process."""
    encoder = None if flow.encoder is None else _made(flow.encoder)
    captioner = None if flow.captioner is None else _made(flow.captioner)
    writer = None if flow.writer is None else _made(flow.writer)
    return Context(folder, shard, journal, flow.deadline, encoder, captioner, writer)


def _complete(
    task: ShardTask, results: Results, records: Sequence[Record], keys: Sequence[Key], context: Context
) -> Results:
    """Compute and store what is missing, then read it back, so that first and later runs see the same."""
    known, stage = results.outcomes, results.stage
    missing = [n for n, key in enumerate(keys) if key not in known or (task.retry and _may_pass(known[key]))]
    if not missing and results.path.exists():
        return results
    poisoned = {n for n in missing if (stage.name, records[n]["id"]) in task.poison}
    known.update({keys[n]: Failed("crash", retryable=False) for n in poisoned})
    asked = [n for n in missing if n not in poisoned]
    if asked:
        outcomes = _run(task, stage, [records[n] for n in asked], context)
        known.update({keys[n]: outcome for n, outcome in zip(asked, outcomes, strict=True)})
    results.save(keys)
    return Results.load(task.folder, stage, task.shard.name)


def _run(task: ShardTask, stage: Stage, records: Sequence[Record], context: Context) -> list[Outcome]:
    if not task.alone:
        return run_stage(stage, records, context)
    outcomes: list[Outcome] = []
    for record in records:
        write_json(task.suspect, [stage.name, record["id"]])
        outcomes += run_stage(stage, [record], context)
    return outcomes


def _may_pass(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.retryable


def _settled(outcome: Outcome) -> Outcome:
    """Reject a record without children, which would vanish from the count."""
    return Rejected("childless") if isinstance(outcome, Expanded) and not outcome.children else outcome


def _made(make: Callable[[], Any]) -> Any:
    """Make something once a process; every task brings a copy of the function, so its pickle is its name."""
    return _made_of(pickle.dumps(make))


@lru_cache(maxsize=8)
def _made_of(pickled: bytes) -> Any:
    return pickle.loads(pickled)()


def _finish(task: ShardTask, walk: Walk) -> None:
    tables = {
        "kept": (walk.alive, task.flow.columns),
        "rejected": (walk.rejected, REJECTED_COLUMNS),
        "failed": (walk.failed, FAILED_COLUMNS),
    }
    hashes = {}
    for name, (rows, columns) in tables.items():
        path = task.folder / name / f"{task.shard.name}.parquet"
        write_table(path, rows, columns, {"rows": len(rows)})
        hashes[name] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    counts = {
        "in": task.shard.rows,
        "children": walk.children,
        "replaced": walk.replaced,
        **{name: len(rows) for name, (rows, _) in tables.items()},
        "retryable": sum(row["retryable"] for row in walk.failed),
    }
    write_json(done_file(task.folder, task.shard), {"flow": task.digest(), "counts": counts, "hashes": hashes})
