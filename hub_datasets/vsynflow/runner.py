"""The runner: shards through the stages, with a halt before each stage that sees the whole corpus."""

import fcntl
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from gve.hub_datasets.files import read_json, remove_leftovers, write_json
from gve.hub_datasets.vsynflow.engines import Engine
from gve.hub_datasets.vsynflow.flow import Flow, describe_changes
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import Record, digest
from gve.hub_datasets.vsynflow.results import Results, keys_of, visible
from gve.hub_datasets.vsynflow.shards import CorpusPlan, read_plan
from gve.hub_datasets.vsynflow.work import ShardTask, alive_records, make_context, run_stage

logger = logging.getLogger(__name__)

RUN = "run.json"


@dataclass(frozen=True)
class RunSummary:
    """Shards of the plan, how many were finished before, and what changed since the last run, one line each."""

    shards: int
    skipped: int
    changes: list[str]


def run_flow(folder: Path, flow: Flow, engine: Engine, *, retry: bool = False, progress: bool = False) -> RunSummary:
    """Take a planned corpus through a flow, or continue a run that was killed.

    A changed flow recomputes only what the change touches, and no byte depends on the engine.

    Raises:
        ValueError: If the folder holds no plan, or another runner is at work in it.
        OSError: If the disk is full, among others; run again when there is room.
    """
    plan = read_plan(folder)
    with only_runner(folder):
        remove_leftovers(folder)
        changes = _claim(folder, flow)
        corpora: dict[str, str] = {}
        stops = [index for index, stage in enumerate(flow.stages) if stage.scope == "corpus"]
        for stop in stops:
            tasks = [ShardTask(folder, shard, flow, stop, dict(corpora), retry) for shard in plan.shards]
            _exhaust(engine, tasks, progress, f"to {flow.stages[stop].name}")
            corpora[flow.stages[stop].name] = _run_corpus_stage(folder, plan, flow, stop, corpora)
        tasks = [ShardTask(folder, shard, flow, len(flow.stages), corpora, retry) for shard in plan.shards]
        waiting = [task for task in tasks if not task.is_done()]
        _exhaust(engine, waiting, progress, "to the end")
    return RunSummary(len(tasks), len(tasks) - len(waiting), changes)


@contextmanager
def only_runner(folder: Path) -> Iterator[None]:
    """Lock the folder for one runner (else ValueError); the system releases the lock however that runner dies."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"folder: {folder} is held by another runner. Wait for it, or stop it.") from None
        yield


def _claim(folder: Path, flow: Flow) -> list[str]:
    path, described = folder / RUN, flow.describe()
    changes = describe_changes(read_json(path), described) if path.exists() else []
    for change in changes:
        logger.warning("changed since the last run: %s", change)
    write_json(path, described)
    return changes


def _exhaust(engine: Engine, tasks: list[ShardTask], progress: bool, label: str) -> None:
    total = sum(task.shard.rows for task in tasks)
    with tqdm(total=total, desc=label, unit="record", disable=not progress or not tasks) as bar:
        for task, _ in engine.run(tasks):
            bar.update(task.shard.rows)


def _run_corpus_stage(folder: Path, plan: CorpusPlan, flow: Flow, stop: int, corpora: Mapping[str, str]) -> str:
    """Show a stage the records of all shards; returns the digest of what it saw, which names its results."""
    stage, ends = flow.stages[stop], [0]
    records: list[Record] = []
    for shard in plan.shards:
        shown = alive_records(ShardTask(folder, shard, flow, stop, corpora))
        records += [visible(stage, record) for record in shown]
        ends.append(len(records))
    corpus = digest(*records)
    keys, spans = keys_of(stage, records, corpus), list(pairwise(ends))
    stored = [Results.load(folder, stage, shard.name) for shard in plan.shards]
    known = (
        results.path.exists() and all(key in results.outcomes for key in keys[start:end])
        for results, (start, end) in zip(stored, spans, strict=True)
    )
    if not all(known):
        with Journal(folder / "journal" / f"corpus-{stage.name}") as journal:
            outcomes = run_stage(stage, records, make_context(folder, flow, "corpus", journal))
        for results, (start, end) in zip(stored, spans, strict=True):
            results.outcomes = dict(zip(keys[start:end], outcomes[start:end], strict=True))
            results.save(keys[start:end])
    return corpus
