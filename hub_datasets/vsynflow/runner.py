"""The runner: shards through the stages, with a halt before each stage that sees the whole corpus."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from gve.hub_datasets.files import read_json, remove_leftovers, write_json
from gve.hub_datasets.vsynflow.engines import Engine
from gve.hub_datasets.vsynflow.flow import Flow, describe_changes
from gve.hub_datasets.vsynflow.records import digest
from gve.hub_datasets.vsynflow.results import save_corpus, saw_corpus
from gve.hub_datasets.vsynflow.shards import read_plan
from gve.hub_datasets.vsynflow.sketches import read_facts, stored
from gve.hub_datasets.vsynflow.stages import CorpusStage
from gve.hub_datasets.vsynflow.tasks import PoolTask, ShardTask

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
        stops = [index for index, stage in enumerate(flow.stages) if stage.scope != "shard"]
        for stop in stops:
            tasks = [ShardTask(folder, shard, flow, stop, dict(corpora), retry) for shard in plan.shards]
            waiting = [task for task in tasks if not task.is_done()]
            _exhaust(engine, waiting, progress, f"to {flow.stages[stop].name}")
            if tasks:
                corpora[flow.stages[stop].name] = _run_corpus_stage(tasks, engine, progress)
        tasks = [ShardTask(folder, shard, flow, len(flow.stages), corpora, retry) for shard in plan.shards]
        waiting = [task for task in tasks if not task.is_done()]
        _exhaust(engine, waiting, progress, "to the end")
        remove_leftovers(folder)  # of processes that were lost
    return RunSummary(len(tasks), len(tasks) - len(waiting), changes)


@contextmanager
def only_runner(folder: Path) -> Iterator[None]:
    """Lock the folder for one runner (else ValueError); the system releases the lock however that runner dies."""
    try:
        held = FileLock(folder / "lock").acquire(blocking=False)
    except Timeout:
        raise ValueError(f"folder: {folder} is held by another runner. Wait for it, or stop it.") from None
    with held:
        yield


def _claim(folder: Path, flow: Flow) -> list[str]:
    path, described = folder / RUN, flow.describe()
    changes = describe_changes(read_json(path), described) if path.exists() else []
    for change in changes:
        logger.warning("changed since the last run: %s", change)
    write_json(path, described)
    return changes


def _exhaust(engine: Engine, tasks: list[ShardTask], progress: bool, label: str) -> None:
    total = sum(task.rows for task in tasks)
    with tqdm(total=total, desc=label, unit="record", disable=not progress or not tasks) as bar:
        for task, _ in engine.run(tasks):
            bar.update(task.rows)


def _run_corpus_stage(tasks: Sequence[ShardTask], engine: Engine, progress: bool) -> str:
    """Show a stage what all shards have for it; returns the digest of what it saw, which names its results."""
    folder, stage = tasks[0].folder, tasks[0].flow.stages[tasks[0].stop]
    facts = [read_facts(task.sketch_file) for task in tasks]
    corpus = digest([fact["seen"] for fact in facts])
    counts = [int(fact["records"]) for fact in facts]
    if stage.scope == "pool":
        pools = _pools(tasks, counts, stage.pool, corpus)
        _exhaust(engine, [pool for pool in pools if not pool.is_done()], progress, stage.name)
    elif not all(saw_corpus(folder, stage, task.shard.name, corpus) for task in tasks):
        assert isinstance(stage, CorpusStage)
        sketches = stored([task.sketch_file for task in tasks], folder)
        measured = stage.measure(sketches) if sum(counts) else dict.fromkeys(stage.columns, np.empty(0))
        start = 0
        for task, count in zip(tasks, counts, strict=True):
            span, start = slice(start, start + count), start + count
            names = sketches.ids(range(span.start, span.stop))
            outcomes = stage.outcomes(sketches, measured, span)
            save_corpus(folder, stage, task.shard.name, corpus, dict(zip(names, outcomes, strict=True)))
    return corpus


def _pools(tasks: Sequence[ShardTask], counts: Sequence[int], most: int, corpus: str) -> Iterator[PoolTask]:
    """Neighbouring shards in pools of about equal size, of `most` records or a shard more."""
    first, total = tasks[0], max(1, sum(counts))
    pools, corpora = -(-total // most), {**first.corpora, first.flow.stages[first.stop].name: corpus}
    numbers = [max(0, end - 1) * pools // total for end in accumulate(counts)]
    for _, found in groupby(zip(numbers, tasks, strict=True), key=lambda one: one[0]):
        shards = tuple(task.shard for _, task in found)
        yield PoolTask(first.folder, shards[0], first.flow, first.stop, corpora, shards=shards)
