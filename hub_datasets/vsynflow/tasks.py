"""Tasks of a run: plain values that name what one process does, so that they travel to another process or machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gve.hub_datasets.files import read_json
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.records import digest
from gve.hub_datasets.vsynflow.results import saw_corpus
from gve.hub_datasets.vsynflow.shards import CorpusShard
from gve.hub_datasets.vsynflow.sketches import read_facts
from gve.hub_datasets.vsynflow.stages import fingerprint


@dataclass(frozen=True)
class ShardTask:
    """Take a shard through the first stages of a flow; then sketch it for the next stage, or finish it."""

    folder: Path
    shard: CorpusShard
    flow: Flow
    stop: int  # number of stages to go through; all of them finish the shard
    corpora: Mapping[str, str] = field(default_factory=dict)  # corpus stage: digest of the corpus that it saw
    retry: bool = False  # retryable failures
    poison: frozenset[tuple[str, str]] = frozenset()  # (stage, record id) of crashes; they fail untried
    alone: bool = False  # note each record on disk before it is touched, so that a crash has a culprit

    @property
    def rows(self) -> int:
        """Raw records."""
        return self.shard.rows

    @property
    def suspect(self) -> Path:
        """File that names the record at work, of a task that runs alone."""
        return self.folder / "suspects" / f"{self.shard.name}.json"

    @property
    def sketch_file(self) -> Path:
        """What the next stage, which sees the corpus, needs of the shard."""
        stage = self.flow.stages[self.stop]
        return self.folder / "sketches" / f"{stage.name}-{fingerprint(stage)}" / f"{self.shard.name}.safetensors"

    def digest(self) -> str:
        """Name what the shard's tables or sketch depend on, besides the records."""
        return digest(self.flow.until(self.stop).digest(), dict(self.corpora))

    def is_done(self) -> bool:
        """Whether this very task was finished before."""
        if self.stop < len(self.flow.stages):
            done: Mapping[str, Any] = read_facts(self.sketch_file)
        else:
            path = done_file(self.folder, self.shard)
            done = read_json(path) if path.exists() else {}
            done = {**done, **done.get("counts", {})}
        return done.get("flow") == self.digest() and not (self.retry and int(done["retryable"]))


@dataclass(frozen=True)
class PoolTask(ShardTask):
    """Show the records of several shards that reach stage number `stop` to that stage."""

    shards: tuple[CorpusShard, ...] = ()

    @property
    def rows(self) -> int:
        """Raw records."""
        return sum(shard.rows for shard in self.shards)

    def is_done(self) -> bool:
        """Whether the results of all shards are stored for this corpus."""
        stage = self.flow.stages[self.stop]
        return all(saw_corpus(self.folder, stage, shard.name, self.corpora[stage.name]) for shard in self.shards)


def done_file(folder: Path, shard: CorpusShard) -> Path:
    """The file that marks a shard as finished, with its flow, counts and hashes."""
    return folder / "done" / f"{shard.name}.json"
