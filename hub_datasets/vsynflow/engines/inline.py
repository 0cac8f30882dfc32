"""Shards one after another, in this process."""

from collections.abc import Iterable, Iterator
from typing import Any

from gve.hub_datasets.vsynflow.work import Job, run_shard


class InlineEngine:
    """The simplest engine, and the one to debug with."""

    name = "inline"

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield each job with its counts, as it ends."""
        for job in jobs:
            yield job, run_shard(job)
