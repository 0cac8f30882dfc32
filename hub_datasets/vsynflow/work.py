"""The work on one shard: the same function in this process, in another, and on another machine."""

import hashlib
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.files import read_json, write_json
from gve.hub_datasets.parquet import write_table
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import Record, digest, make_child
from gve.hub_datasets.vsynflow.results import Key, Results, keys_of, visible
from gve.hub_datasets.vsynflow.shards import CorpusShard, read_manifest
from gve.hub_datasets.vsynflow.stages import Context, Expanded, Failed, Kept, Outcome, Rejected, SetupError, Stage

logger = logging.getLogger(__name__)

_ENDED = dict.fromkeys(("id", "origin", "stage", "code"), pa.string())
REJECTED_COLUMNS: dict[str, pa.DataType] = {**_ENDED, "score": pa.float64()}
FAILED_COLUMNS: dict[str, pa.DataType] = {**_ENDED, "retryable": pa.bool_()}
TABLES = ("kept", "rejected", "failed")  # a finished shard has all three


@dataclass(frozen=True)
class ShardTask:
    """Take a shard through the first stages of a flow."""

    folder: Path
    shard: CorpusShard
    flow: Flow
    stop: int  # number of stages to go through; all of them finish the shard
    corpora: Mapping[str, str] = field(default_factory=dict)  # corpus stage: digest of the corpus that it saw
    retry: bool = False  # retryable failures
    poison: frozenset[tuple[str, str]] = frozenset()  # (stage, record id) of crashes; they fail untried
    alone: bool = False  # note each record on disk before it is touched, so that a crash has a culprit

    @property
    def suspect(self) -> Path:
        """File that names the record at work, of a task that runs alone."""
        return self.folder / "suspects" / f"{self.shard.name}.json"

    def digest(self) -> str:
        """Name what the tables depend on, besides the records."""
        return digest(self.flow.digest(), dict(self.corpora))

    def is_done(self) -> bool:
        """Whether this very task was finished before."""
        path = done_file(self.folder, self.shard)
        if not path.exists():
            return False
        done = read_json(path)
        return done["flow"] == self.digest() and not (self.retry and done["counts"]["retryable"])


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
    with Journal(task.folder / "journal" / task.shard.name) as journal:
        walk = _walk(task, make_context(task.folder, task.flow, task.shard.name, journal))
    if task.stop == len(task.flow.stages):
        _finish(task, walk)
    return {"alive": len(walk.alive), "rejected": len(walk.rejected), "failed": len(walk.failed)}


def alive_records(task: ShardTask) -> list[Record]:
    """The records of a shard that reach stage number `task.stop`; all earlier results must be stored."""
    return _walk(task, None).alive


def _walk(task: ShardTask, context: Context | None) -> Walk:
    walk = Walk(read_manifest(task.folder, task.shard))
    for stage in task.flow.stages[: task.stop]:
        keys = keys_of(stage, walk.alive, task.corpora[stage.name] if stage.scope == "corpus" else None)
        results = Results.load(task.folder, stage, task.shard.name)
        if stage.scope == "shard" and context is not None:
            results = _complete(task, results, walk.alive, keys, context)
        walk.apply(stage, [results.outcomes[key] for key in keys])
    return walk


def run_stage(stage: Stage, records: Sequence[Record], context: Context) -> list[Outcome]:
    """The outcomes of a stage. If it raises, its records run one by one, so that only the culprit fails.

    Raises:
        OSError, SetupError: The run's trouble, not the record's. A corpus stage raises anything.
        RuntimeError: If the number of outcomes is not the number of records.
    """
    shown = [visible(stage, record) for record in records]
    try:
        outcomes = stage.run(shown, context)
    except (OSError, MemoryError, SetupError):
        raise
    except Exception as error:
        logger.warning("%s on %s: %s: %s", stage.name, context.shard, type(error).__name__, error)
        if stage.scope == "corpus":
            raise
        if len(records) > 1:
            return [outcome for record in records for outcome in run_stage(stage, [record], context)]
        # retryable, because the fault may be the code's, and a later release may have mended it
        return [Failed(f"error:{type(error).__name__}", retryable=True)] * len(records)
    if len(outcomes) != len(records):
        raise RuntimeError(f"{stage.name}: {len(outcomes)} outcomes for {len(records)} records")
    return [_settled(outcome) for outcome in outcomes]


def make_context(folder: Path, flow: Flow, shard: str, journal: Journal) -> Context:
    """What the stages of a flow may use; encoder and captioner are made once a process."""
    encoder = None if flow.encoder is None else _made(flow.encoder)
    captioner = None if flow.captioner is None else _made(flow.captioner)
    return Context(folder, shard, journal, flow.deadline, encoder, captioner)


def done_file(folder: Path, shard: CorpusShard) -> Path:
    """The file that marks a shard as finished, with its flow, counts and hashes."""
    return folder / "done" / f"{shard.name}.json"


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
