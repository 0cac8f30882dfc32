"""Where shards run: in this process, in several, or on a Ray cluster; the same function everywhere."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Protocol

from gve.hub_datasets.files import read_json
from gve.hub_datasets.ray_pool import RayPool
from gve.hub_datasets.vsynflow.settings import ENGINES
from gve.hub_datasets.vsynflow.tasks import ShardTask
from gve.hub_datasets.vsynflow.work import run_shard

Counts = dict[str, int]


class Engine(Protocol):
    """Where shards run."""

    name: str

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts]]:
        """Yield each task with its counts, as it ends."""
        ...


def make_engine(name: str, workers: int, address: str | None = None) -> Engine:
    """Make an engine of ENGINES with so many shards at work at a time; `address` is of a Ray cluster."""
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


class _IsolatingEngine:
    """Shards elsewhere; one that is lost `strikes` times with its process runs alone, until the culprit is found."""

    strikes = 1

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts]]:
        for _ in range(self.strikes):
            suspects = []
            for task, counts in self._map(tasks):
                if counts is None:
                    suspects.append(task)
                else:
                    yield task, counts
            tasks = suspects
        for task in tasks:  # one record at a time, so slow
            yield task, self._isolate(task)

    def _map(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts | None]]:
        """Yield each task with its counts, or None if its process died."""
        raise NotImplementedError

    def _isolate(self, task: ShardTask) -> Counts:
        """Run a shard alone until it ends, and write off a record that ends the process `strikes` times.

        Each record is noted on disk before it is touched; RuntimeError if the process died outside of any.
        """
        task, crashes = replace(task, alone=True), Counter[tuple[str, str]]()
        while (counts := next(self._map([task]))[1]) is None:
            stage, name = read_json(task.suspect) if task.suspect.exists() else ("", "")
            if not name or (stage, name) in task.poison:
                raise RuntimeError(
                    f"shard {task.shard.name}: the process died outside of any record. Look for lack of memory or a "
                    "broken installation."
                )
            crashes[stage, name] += 1
            if crashes[stage, name] == self.strikes:
                task = replace(task, poison=task.poison | {(stage, name)})
        task.suspect.unlink(missing_ok=True)
        return counts


class ProcessEngine(_IsolatingEngine):
    """Shards in processes of this machine; a process that dies takes down only the record that killed it."""

    name = "processes"

    def __init__(self, workers: int = 2) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}.")
        self.workers = workers

    def _map(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts | None]]:
        waiting = list(tasks)[::-1]
        while waiting:  # a pool that has lost a process takes no more
            with _pool(min(self.workers, len(waiting))) as pool:
                try:
                    yield from self._use(pool, waiting)
                except BaseException as error:  # calls in flight come to their end, unless somebody interrupts
                    pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
                    raise

    def _use(self, pool: ProcessPoolExecutor, waiting: list[ShardTask]) -> Iterator[tuple[ShardTask, Counts | None]]:
        """Give a pool as many tasks as it has processes, until none wait or it loses a process: with it all it had."""
        running, broken = dict[Future[Counts], ShardTask](), False
        while running or (waiting and not broken):
            while waiting and not broken and len(running) < self.workers:
                try:
                    running[pool.submit(run_shard, waiting[-1])] = waiting[-1]
                    waiting.pop()
                except BrokenProcessPool:
                    broken = True
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                lost = isinstance(future.exception(), BrokenProcessPool)
                broken |= lost
                yield running.pop(future), None if lost else future.result()


class RayEngine(_IsolatingEngine):
    """Shards as tasks of a Ray cluster. Ray moves names of shards, never videos, so the folder must be shared.

    Without an `address` it joins the cluster of this process, or starts a local one. It needs Ray (ImportError).
    """

    name = "ray"
    strikes = 2  # a task may also be lost with its machine, which is not the record's fault

    def __init__(self, workers: int = 2, address: str | None = None) -> None:
        self._pool = RayPool(workers, address)

    def _map(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Counts | None]]:
        return self._pool.map(run_shard, tasks)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes forked from a server that has imported this package and nothing else: quick to start, and clean."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, mp_context=context)
