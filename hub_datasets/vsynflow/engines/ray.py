"""Shards as tasks of a Ray cluster; Ray moves names of shards, never videos, so the folder must be a shared one."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from gve.hub_datasets.vsynflow.engines.isolation import culprit, run_alone
from gve.hub_datasets.vsynflow.work import Job, run_shard

logger = logging.getLogger(__name__)


class RayEngine:
    """One task a shard, on a local or an existing cluster.

    Args:
        workers: Tasks at a time.
        address: Of the cluster; None starts a local one, or joins one that this process has started.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If `workers` is not positive.
    """

    name = "ray"

    def __init__(self, workers: int = 2, address: str | None = None) -> None:
        if workers < 1:
            raise ValueError(f"workers: got {workers}; 1 or more is accepted")
        try:
            import ray
        except ImportError as error:
            raise ImportError("the ray engine needs Ray: pip install gve[ray]") from error
        self._ray, self.workers, self.address = ray, workers, address

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield each job with its counts, as it ends; a task that dies takes only the record down that killed it."""
        ray = self._ray
        waiting = list(jobs)[::-1]
        if not waiting:
            return
        if not ray.is_initialized():
            local = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
            ray.init(address=self.address, log_to_driver=False, **local)
        task = ray.remote(max_retries=0)(run_shard)
        running: dict[Any, Job] = {}
        suspects: list[Job] = []
        while waiting or running:
            while waiting and len(running) < self.workers:
                job = waiting.pop()
                running[task.remote(job)] = job
            (ended,), _ = ray.wait(list(running), num_returns=1)
            job, counts = running.pop(ended), self._counts(ended)
            if counts is None:
                suspects.append(job)
            else:
                yield job, counts
        for job in suspects:
            yield job, self._isolate(job)

    def _counts(self, task: Any) -> dict[str, int] | None:
        """What a task gave, or None where it died."""
        lost = self._ray.exceptions
        try:
            return self._ray.get(task)
        except (
            lost.WorkerCrashedError,
            lost.OutOfMemoryError,
            lost.NodeDiedError,
            lost.LocalRayletDiedError,
        ) as error:
            logger.warning("a task was lost: %s", type(error).__name__)
            return None

    def _isolate(self, job: Job) -> dict[str, int]:
        """Run a shard alone; a record that ends the task twice is written off, and the rest runs again.

        Twice, since a task may also be lost with its machine, which is no record's fault.
        """
        task = self._ray.remote(max_retries=0)(run_alone)
        suspect: tuple[str, str] | None = None
        while True:
            counts = self._counts(task.remote(job))
            if counts is not None:
                return counts
            found = culprit(job)
            if found == suspect:
                job = replace(job, poison=job.poison | {found})
            suspect = found
