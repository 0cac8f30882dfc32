"""Shards as tasks of a Ray cluster; Ray moves names of shards, never videos, so the folder must be a shared one."""

from collections.abc import Iterable, Iterator
from typing import Any

from gve.hub_datasets.vsynflow.work import Job, run_shard


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
        """Yield each job with its counts, as it ends; a task whose worker dies is tried again on another."""
        ray = self._ray
        waiting = list(jobs)[::-1]
        if not waiting:
            return
        if not ray.is_initialized():
            local = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
            ray.init(address=self.address, log_to_driver=False, **local)
        task = ray.remote(max_retries=2)(run_shard)
        running: dict[Any, Job] = {}
        while waiting or running:
            while waiting and len(running) < self.workers:
                job = waiting.pop()
                running[task.remote(job)] = job
            (ended,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ended), ray.get(ended)
