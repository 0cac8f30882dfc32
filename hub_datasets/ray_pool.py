"""Calls of one function on a Ray cluster. Ray moves arguments and results, so big files must lie on shared storage."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

logger = logging.getLogger(__name__)


class RayPool:
    """Joins a Ray cluster at the first call. As a context manager it also ends a cluster that it had to start.

    Args:
        workers: Parallel calls; by default one a GPU or, without GPUs, one for every `threads` processors.
        address: By default the cluster that this process started, else a new one on this machine.
        threads: Processors of each call, where `workers` is None.
        options: Of `ray.remote`, such as `runtime_env`.
    """

    def __init__(self, workers: int | None, address: str | None = None, *, threads: int = 1, **options: Any) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}.")
        try:
            import ray
        except ImportError as error:
            raise ImportError("--engine ray needs Ray: pip install 'gve[ray]'") from error
        self.ray, self.workers, self.address, self.options = ray, workers, address, options
        self.threads, self._started = threads, False

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self.ray.shutdown()

    def call(self, function: Callable[[Any], Any], job: Any) -> Any | None:
        """The function's result, or None if its process or machine died."""
        return next(self.map(function, [job]))[1]

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[Any, Any | None]]:
        """Yield each job with its result as it ends; None if its process or machine died."""
        waiting, running = list(jobs)[::-1], {}
        if not waiting:
            return
        self._join()
        task = self.ray.remote(max_retries=0, **self.options)(_call)
        while waiting or running:
            while waiting and len(running) < self.workers:
                job = waiting.pop()
                running[task.remote(function, job)] = job
            (ended,), _ = self.ray.wait(list(running), num_returns=1)
            yield running.pop(ended), self._result(ended)

    def _join(self) -> None:
        if not self.ray.is_initialized():
            local = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
            self.ray.init(address=self.address, log_to_driver=False, **local)
            self._started = True
        if self.workers is None:
            total = self.ray.cluster_resources()
            gpus, threads = int(total.get("GPU", 0)), max(1, min(self.threads, int(total["CPU"])))
            self.workers = gpus or max(1, int(total["CPU"]) // threads)
            self.options |= {"num_gpus": 1} if gpus else {"num_cpus": threads}

    def _result(self, task: Any) -> Any | None:
        errors = self.ray.exceptions
        try:
            return self.ray.get(task)
        except errors.RayTaskError as error:
            raise error.as_instanceof_cause() from error
        except (
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
        ) as error:
            logger.warning("a task was lost: %s", type(error).__name__)
            return None


def _call(function: Callable[[Any], Any], job: Any) -> Any:
    """Named function for Ray, which rejects a `partial`."""
    return function(job)
