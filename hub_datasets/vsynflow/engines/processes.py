"""Shards in processes of this machine; a process that dies takes only the record down that killed it."""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from gve.hub_datasets.vsynflow.engines.isolation import culprit, run_alone
from gve.hub_datasets.vsynflow.work import Job, run_shard


class ProcessEngine:
    """The default engine.

    Args:
        workers: Number of processes.

    Raises:
        ValueError: If it is not positive.
    """

    name = "processes"

    def __init__(self, workers: int = 2) -> None:
        if workers < 1:
            raise ValueError(f"workers: got {workers}; 1 or more is accepted")
        self.workers = workers

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield each job with its counts, as it ends."""
        waiting = list(jobs)
        suspects: list[Job] = []
        while waiting:
            suspects.clear()
            with _pool(min(self.workers, len(waiting))) as pool:
                futures = {pool.submit(run_shard, job): job for job in waiting}
                try:
                    yield from self._results(futures, suspects)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            waiting = []
            for job in suspects:  # at most as many were at work as there are processes; the others waited
                yield job, self._isolate(job)

    def _results(
        self, futures: dict[Future[dict[str, int]], Job], suspects: list[Job]
    ) -> Iterator[tuple[Job, dict[str, Any]]]:
        for future in as_completed(futures):
            try:
                counts = future.result()
            except BrokenProcessPool:
                suspects.append(futures[future])
                continue
            yield futures[future], counts

    def _isolate(self, job: Job) -> dict[str, int]:
        """Run a shard alone; each record that ends the process is written off, and the rest runs again."""
        while True:
            with _pool(1) as pool:
                try:
                    return pool.submit(run_alone, job).result()
                except BrokenProcessPool:
                    job = replace(job, poison=job.poison | {culprit(job)})


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes forked from a server that has imported this package and nothing else happened in: quick and clean."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gve.hub_datasets.vsynflow.engines.isolation"])
    return ProcessPoolExecutor(workers, mp_context=context)
