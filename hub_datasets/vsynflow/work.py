"""The work on one shard: the same function in this process, in another one, and on another machine."""

import hashlib
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.files import commit_json, commit_rows, read_json
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import Record, digest, make_child
from gve.hub_datasets.vsynflow.results import Results, input_digest, visible
from gve.hub_datasets.vsynflow.shards import Shard, read_manifest
from gve.hub_datasets.vsynflow.stages import Context, Expanded, Failed, Kept, Outcome, Rejected, SetupError, Stage

logger = logging.getLogger(__name__)

REJECTED_COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("id", "origin", "stage", "code"), pa.string()),
    "score": pa.float64(),
}
FAILED_COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("id", "origin", "stage", "code"), pa.string()),
    "retryable": pa.bool_(),
}
TABLES = ("kept", "rejected", "failed")
"""What a finished shard consists of."""


@dataclass(frozen=True)
class Job:
    """Work on a shard, from its beginning to a stage.

    Attributes:
        folder: The run's folder.
        shard: The shard.
        flow: The flow.
        stop: Number of stages to go through; all of them finish the shard.
        corpora: For each corpus stage before `stop`, the digest of the corpus that it saw.
        retry: Whether failures that may pass are tried again.
        poison: (stage, record id) pairs that crashed a process; they fail without being tried.
    """

    folder: Path
    shard: Shard
    flow: Flow
    stop: int
    corpora: Mapping[str, str] = field(default_factory=dict)
    retry: bool = False
    poison: frozenset[tuple[str, str]] = frozenset()


@dataclass
class Walk:
    """What became of a shard's records so far.

    Attributes:
        alive: Records that go on.
        rejected: Rows of REJECTED_COLUMNS.
        failed: Rows of FAILED_COLUMNS.
        replaced: Records that gave their place to children.
        children: Those children.
    """

    alive: list[Record]
    rejected: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    replaced: int = 0
    children: int = 0

    def apply(self, stage: Stage, outcomes: Sequence[Outcome]) -> None:
        """Move the records on by a stage's outcomes, its limits applied."""
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
                self._reject(stage, record, outcome)
            else:
                named = {"id": record["id"], "origin": record["origin"], "stage": stage.name}
                self.failed.append({**named, "code": outcome.code, "retryable": outcome.retryable})

    def _judge(self, stage: Stage, record: Record) -> None:
        verdict = stage.judge(record)
        if verdict is None:
            self.alive.append(record)
        else:
            self._reject(stage, record, verdict)

    def _reject(self, stage: Stage, record: Record, verdict: Rejected) -> None:
        named = {"id": record["id"], "origin": record["origin"], "stage": stage.name}
        self.rejected.append({**named, "code": verdict.code, "score": verdict.score})


def run_shard(job: Job) -> dict[str, int]:
    """Take a shard through the flow's first `job.stop` stages; whatever is stored already is not computed again.

    Args:
        job: The work.

    Returns:
        Counts of alive, rejected and failed records.

    Raises:
        OSError: If the disk is full, among others; what is committed stays.
    """
    with Journal(job.folder / "journal" / job.shard.name) as journal:
        context = make_context(job.folder, job.flow, job.shard.name, journal)
        walk = Walk(read_manifest(job.folder, job.shard))
        for stage in job.flow.stages[: job.stop]:
            inputs = [job.corpora[stage.name]] * len(walk.alive) if stage.scope == "corpus" else None
            keys = _keys(stage, walk.alive, inputs)
            results = Results.load(job.folder, stage, job.shard.name)
            if stage.scope == "shard":
                results = _complete(job, stage, results, walk.alive, keys, context)
            walk.apply(stage, [results.outcomes[key] for key in keys])
    if job.stop == len(job.flow.stages):
        _finish(job, walk)
    return {"alive": len(walk.alive), "rejected": len(walk.rejected), "failed": len(walk.failed)}


def alive_records(job: Job) -> list[Record]:
    """The records of a shard that reach stage number `job.stop`, all of whose earlier results are stored."""
    walk = Walk(read_manifest(job.folder, job.shard))
    for stage in job.flow.stages[: job.stop]:
        inputs = [job.corpora[stage.name]] * len(walk.alive) if stage.scope == "corpus" else None
        results = Results.load(job.folder, stage, job.shard.name)
        walk.apply(stage, [results.outcomes[key] for key in _keys(stage, walk.alive, inputs)])
    return walk.alive


def run_stage(stage: Stage, records: Sequence[Record], context: Context) -> list[Outcome]:
    """The outcomes of a stage; where it raises, those of its records one by one, so that only the culprit fails.

    Raises:
        OSError: As the stage raises it: the machine's trouble, not the record's. A corpus stage raises anything.
        SetupError: As the stage raises it.
        RuntimeError: If the stage gives another number of outcomes than it was given records.
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
        # whose fault it was is unknown: what was mended since, by a new release perhaps, passes when it is tried again
        return [Failed(f"error:{type(error).__name__}", retryable=True)] * len(records)
    if len(outcomes) != len(records):
        raise RuntimeError(f"{stage.name}: {len(outcomes)} outcomes for {len(records)} records; one each is accepted")
    return [_settled(outcome) for outcome in outcomes]


def make_context(folder: Path, flow: Flow, shard: str, journal: Journal) -> Context:
    """What the stages of a flow may use; encoder and captioner are made once a process."""
    encoder = None if flow.encoder is None else _made(flow.encoder)
    captioner = None if flow.captioner is None else _made(flow.captioner)
    return Context(folder, shard, journal, flow.seed, flow.deadline, encoder, captioner)


def done_file(folder: Path, shard: Shard) -> Path:
    """The file that says that a shard is finished, by which flow, with what counts and hashes."""
    return folder / "done" / f"{shard.name}.json"


def is_done(job: Job) -> bool:
    """Whether this very job was finished before."""
    path = done_file(job.folder, job.shard)
    if not path.exists():
        return False
    done = read_json(path)
    retry = job.retry and done["counts"]["retryable"]
    return done["flow"] == _job_digest(job) and not retry


def _complete(
    job: Job,
    stage: Stage,
    results: Results,
    records: Sequence[Record],
    keys: Sequence[tuple[str, str]],
    context: Context,
) -> Results:
    """Compute and store what is missing; what is returned was read back, so that first and later runs see the same."""
    known = results.outcomes
    missing = [index for index, key in enumerate(keys) if key not in known or (job.retry and _may_pass(known[key]))]
    if not missing and results.path.exists():
        return results
    poisoned = [index for index in missing if (stage.name, records[index]["id"]) in job.poison]
    for index in poisoned:
        known[keys[index]] = Failed("crash", retryable=False)
    asked = [index for index in missing if index not in set(poisoned)]
    if asked:
        outcomes = run_stage(stage, [records[index] for index in asked], context)
        known.update({keys[index]: outcome for index, outcome in zip(asked, outcomes, strict=True)})
    results.save(keys)
    return Results.load(job.folder, stage, job.shard.name)


def _keys(stage: Stage, records: Sequence[Record], inputs: Sequence[str] | None) -> list[tuple[str, str]]:
    if inputs is None:
        return [(record["id"], input_digest(stage, record)) for record in records]
    return [(record["id"], given) for record, given in zip(records, inputs, strict=True)]


def _may_pass(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.retryable


def _settled(outcome: Outcome) -> Outcome:
    """A record without children would vanish from the count."""
    return Rejected("childless") if isinstance(outcome, Expanded) and not outcome.children else outcome


def _made(make: Callable[[], Any]) -> Any:
    """What a function makes, once a process: every job brings a copy of the function, so its pickle is its name."""
    return _made_of(pickle.dumps(make))


@lru_cache(maxsize=8)
def _made_of(pickled: bytes) -> Any:
    return pickle.loads(pickled)()


def _job_digest(job: Job) -> str:
    return digest(job.flow.digest(), dict(job.corpora))


def _finish(job: Job, walk: Walk) -> None:
    """Write the shard's three tables and, last, the file that says so."""
    tables = {
        "kept": (walk.alive, job.flow.columns),
        "rejected": (walk.rejected, REJECTED_COLUMNS),
        "failed": (walk.failed, FAILED_COLUMNS),
    }
    hashes = {}
    for name, (rows, columns) in tables.items():
        path = job.folder / name / f"{job.shard.name}.parquet"
        commit_rows(path, rows, columns, {"rows": len(rows)})
        hashes[name] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    counts = {
        "in": job.shard.rows,
        "children": walk.children,
        "replaced": walk.replaced,
        **{name: len(rows) for name, (rows, _) in tables.items()},
        "retryable": sum(row["retryable"] for row in walk.failed),
    }
    commit_json(done_file(job.folder, job.shard), {"flow": _job_digest(job), "counts": counts, "hashes": hashes})
