"""Where shards run: in this process, in several, or on a Ray cluster; the same function everywhere.

A record that crashes its process is found by running its shard alone: each record is noted on disk before it is touched.
"""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from typing import Protocol

from gve.hub_datasets.files import read_json
from gve.hub_datasets.ray_pool import RayPool
from gve.hub_datasets.vsynflow.settings import ENGINES
from gve.hub_datasets.vsynflow.work import ShardTask, run_shard

Counts = dict[str, int]


class Engine(Protocol):
    """Where shards run."""

    name: str

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts]]:
        """Yield each task with its counts, as it ends."""
        ...


def make_engine(name: str, workers: int, address: str | None = None) -> Engine:
    """Make an engine by name.

    Args:
        name: One of ENGINES.
        workers: Shards at work at a time; the inline engine has one.
        address: Of a Ray cluster; None starts a local one.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}.")
    if name == "inline":
        return InlineEngine()
    return ProcessEngine(workers) if name == "processes" else RayEngine(workers, address)


class InlineEngine:
    """Shards one after another in this process: the engine to debug with."""

    name = "inline"

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts]]:
        """Yield each task with its counts, as it ends."""
        for task in tasks:
            yield task, run_shard(task)


class ProcessEngine:
    """Shards in processes of this machine; a process that dies takes down only the record that killed it."""

    name = "processes"

    def __init__(self, workers: int = 2) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}.")
        self.workers = workers

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts]]:
        """Yield each task with its counts, as it ends."""
        waiting, suspects = list(tasks), []
        if not waiting:
            return
        with _pool(min(self.workers, len(waiting))) as pool:
            futures = {pool.submit(run_shard, task): task for task in waiting}
            try:
                for future in as_completed(futures):
                    if isinstance(future.exception(), BrokenProcessPool):
                        suspects.append(futures[future])
                    else:
                        yield futures[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for task in suspects:
            yield task, _isolate(task, _run_in_process, strikes=1)


class RayEngine:
    """Shards as tasks of a Ray cluster. Ray moves names of shards, never videos, so the folder must be shared.

    Args:
        workers: Tasks at a time.
        address: Of the cluster; None joins the one that this process has started, or starts a local one.

    Raises:
        ImportError: If Ray is not installed.
    """

    name = "ray"

    def __init__(self, workers: int = 2, address: str | None = None) -> None:
        self._pool = RayPool(workers, address)

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts]]:
        """Yield each task with its counts, as it ends."""
        suspects = []
        for task, counts in self._pool.map(run_shard, tasks):
            if counts is None:
                suspects.append(task)
            else:
                yield task, counts
        for task in suspects:
            # two strikes, since a task may also be lost with its machine, which is no record's fault
            yield task, _isolate(task, partial(self._pool.call, run_shard), strikes=2)


def _isolate(task: ShardTask, call: Callable[[ShardTask], Counts | None], *, strikes: int) -> Counts:
    """Run a shard alone until it ends; a record that ends the process so many times is written off.

    Args:
        task: The shard's work.
        call: Runs it elsewhere; None if the process died.
        strikes: Crashes after which a record fails.

    Raises:
        RuntimeError: If the process died outside of any record.
    """
    task, crashes = replace(task, alone=True), Counter[tuple[str, str]]()
    while (counts := call(task)) is None:
        stage, name = read_json(task.suspect) if task.suspect.exists() else ("", "")
        if not name or (stage, name) in task.poison:
            raise RuntimeError(
                f"shard {task.shard.name}: the process died outside of any record. Look for lack of memory or a broken "
                "installation."
            )
        crashes[stage, name] += 1
        if crashes[stage, name] == strikes:
            task = replace(task, poison=task.poison | {(stage, name)})
    task.suspect.unlink(missing_ok=True)
    return counts


def _run_in_process(task: ShardTask) -> Counts | None:
    with _pool(1) as pool:
        try:
            return pool.submit(run_shard, task).result()
        except BrokenProcessPool:
            return None


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes forked from a server that has imported this package and nothing else: quick to start, and clean."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, mp_context=context)
