"""The runner: shards through the stages, with a halt before each stage that sees the whole corpus."""

import fcntl
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from gve.hub_datasets.vsynflow.files import commit_json, read_json, remove_leftovers
from gve.hub_datasets.vsynflow.flow import Flow, describe_changes
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import digest
from gve.hub_datasets.vsynflow.results import Results, visible
from gve.hub_datasets.vsynflow.shards import Plan, read_plan
from gve.hub_datasets.vsynflow.stages import Outcome
from gve.hub_datasets.vsynflow.work import Job, alive_records, is_done, make_context, run_stage

logger = logging.getLogger(__name__)

RUN = "run.json"


class Engine(Protocol):
    """Where shards run."""

    name: str

    def run(self, jobs: Any) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield each job with its counts, as it ends."""
        ...


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        shards: Shards of the plan.
        skipped: Those that were finished before.
        changes: What differs from the flow that the folder last saw, one line each.
    """

    shards: int
    skipped: int
    changes: list[str]


def run_flow(folder: Path, flow: Flow, engine: Engine, *, retry: bool = False, progress: bool = False) -> Report:
    """Take a planned corpus through a flow; a run that was killed is continued.

    Args:
        folder: The run's folder, planned before.
        flow: The flow; where it differs from the last one here, only what the difference touches is computed.
        engine: Where the shards run; the bytes do not depend on it.
        retry: Whether failures that may pass are tried again.
        progress: Whether to show progress bars on stderr.

    Returns:
        What was done.

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
            jobs = [Job(folder, shard, flow, stop, dict(corpora), retry) for shard in plan.shards]
            _exhaust(engine, jobs, progress, f"to {flow.stages[stop].name}")
            corpora[flow.stages[stop].name] = _run_corpus_stage(folder, plan, flow, stop, corpora)
        jobs = [Job(folder, shard, flow, len(flow.stages), corpora, retry) for shard in plan.shards]
        waiting = [job for job in jobs if not is_done(job)]
        _exhaust(engine, waiting, progress, "to the end")
    return Report(len(jobs), len(jobs) - len(waiting), changes)


@contextmanager
def only_runner(folder: Path) -> Iterator[None]:
    """Hold the folder for one runner; the system lets go of it when that runner dies, however it dies.

    Raises:
        ValueError: If another runner holds it.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"folder: {folder} is held by another runner; one at a time is accepted; wait for it or stop it"
            ) from None
        yield


def _claim(folder: Path, flow: Flow) -> list[str]:
    """Write down the flow, and say what differs from the last one."""
    path, described = folder / RUN, flow.describe()
    changes = describe_changes(read_json(path), described) if path.exists() else []
    for change in changes:
        logger.warning("changed since the last run: %s", change)
    commit_json(path, described)
    return changes


def _exhaust(engine: Engine, jobs: list[Job], progress: bool, label: str) -> None:
    total = sum(job.shard.rows for job in jobs)
    with tqdm(total=total, desc=label, unit="record", disable=not progress or not jobs) as bar:
        for job, _ in engine.run(jobs):
            bar.update(job.shard.rows)


def _run_corpus_stage(folder: Path, plan: Plan, flow: Flow, stop: int, corpora: Mapping[str, str]) -> str:
    """Show a stage the records of all shards; returns the digest of what it saw, by which its results are kept."""
    stage, records, ends = flow.stages[stop], [], [0]
    for shard in plan.shards:
        shown = alive_records(Job(folder, shard, flow, stop, corpora))
        records += [visible(stage, record) for record in shown]
        ends.append(len(records))
    corpus = digest(*records)
    spans = list(pairwise(ends))
    stored = [Results.load(folder, stage, shard.name) for shard in plan.shards]
    known = (
        results.path.exists() and all((record["id"], corpus) in results.outcomes for record in records[start:end])
        for results, (start, end) in zip(stored, spans, strict=True)
    )
    if not all(known):
        with Journal(folder / "journal" / f"corpus-{stage.name}") as journal:
            outcomes = run_stage(stage, records, make_context(folder, flow, "corpus", journal))
        for results, (start, end) in zip(stored, spans, strict=True):
            _store(results, records[start:end], corpus, outcomes[start:end])
    return corpus


def _store(results: Results, records: list[Any], corpus: str, outcomes: list[Outcome]) -> None:
    keys = [(record["id"], corpus) for record in records]
    Results(results.path, results.stage, dict(zip(keys, outcomes, strict=True))).save(keys)
