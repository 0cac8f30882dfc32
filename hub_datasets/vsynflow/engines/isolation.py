"""Finding the record that ends a process: each one is named on disk before it is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.files import commit_json, read_json
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Outcome, Rejected, Stage
from gve.hub_datasets.vsynflow.work import Job, run_shard, run_stage


@dataclass(frozen=True)
class _Marked:
    """A stage that takes its records one by one and writes down which."""

    stage: Stage
    mark: Path

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def version(self) -> int:
        return self.stage.version

    @property
    def scope(self) -> str:
        return self.stage.scope

    @property
    def reads(self) -> Sequence[str]:
        return self.stage.reads

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return self.stage.columns

    @property
    def params(self) -> Mapping[str, Any]:
        return self.stage.params

    @property
    def limits(self) -> Mapping[str, Any]:
        return self.stage.limits

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for record in records:
            commit_json(self.mark, [self.stage.name, record["id"]])
            outcomes += run_stage(self.stage, [record], context)
        return outcomes

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        return self.stage.judge(record)


def run_alone(job: Job) -> dict[str, int]:
    """Run a shard record by record, so that `culprit` can tell which one was at work when the process died."""
    mark = _mark(job)
    stages = tuple(_Marked(stage, mark) for stage in job.flow.stages)
    counts = run_shard(replace(job, flow=replace(job.flow, stages=stages)))
    mark.unlink(missing_ok=True)
    return counts


def culprit(job: Job) -> tuple[str, str]:
    """Stage and id of the record at which a lone process died.

    Raises:
        RuntimeError: If it died outside of any record, or again at one that was written off.
    """
    mark = _mark(job)
    if mark.exists():
        stage, name = read_json(mark)
        if (stage, name) not in job.poison:
            return stage, name
    raise RuntimeError(
        f"shard {job.shard.name}: the process died outside of any record; "
        "a worker that ends by itself is needed; look for lack of memory or a broken installation"
    )


def _mark(job: Job) -> Path:
    return job.folder / "suspects" / f"{job.shard.name}.json"
