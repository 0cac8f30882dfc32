"""Stages: what may happen to a record, and what a stage is.

A stage measures (`run`: costly, its columns are stored) and judges (`judge`: limits applied to stored columns). Only
what is measured enters the fingerprint, so that a changed limit computes nothing anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import Record, digest


@dataclass(frozen=True)
class Kept:
    """A record goes on, with the columns that the stage adds."""

    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expanded:
    """A record gives its place to children, by the suffix of their ids: the columns that the stage adds to each."""

    children: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Rejected:
    """A decision: the record is not wanted.

    Attributes:
        code: Why, a short name such as "static".
        score: What was measured, for a reader who doubts it; NaN where nothing was.
    """

    code: str
    score: float = float("nan")


@dataclass(frozen=True)
class Failed:
    """No decision: something broke.

    Attributes:
        code: What, a short name such as "deadline".
        retryable: Whether another attempt may succeed.
    """

    code: str
    retryable: bool


class SetupError(ValueError):
    """The run is set up wrongly: raised by a stage, it ends the run, where another error fails a record."""


Outcome = Kept | Expanded | Rejected | Failed
"""What a stage says about one record: exactly one of the four."""


class Encoder(Protocol):
    """Anything that gives texts, images and videos vectors of one space, such as a SentenceTransformer."""

    def encode_query(self, inputs: Sequence[Any], **options: Any) -> np.ndarray:
        """Unit vectors, (N, D), of queries such as {"text": "..."}."""
        ...

    def encode_document(self, inputs: Sequence[Any], **options: Any) -> np.ndarray:
        """Unit vectors, (N, D), of targets; {"video": [PIL images]} is a video's frames."""
        ...


@dataclass
class Context:
    """What a stage may use beside the records.

    Attributes:
        folder: The run's work folder, for files that a stage makes (media); names in it must follow from record ids.
        shard: Name of the shard at work; "corpus" for a stage of that scope.
        journal: Paid calls of this shard.
        seed: Seed of the run; draw from `digest(seed, record id, ...)` so that a rerun asks for the same thing.
        deadline: Seconds that one record may take.
        encoder: Encoder, where the run was given one.
        captioner: Captioner (see captioner.py), where the run was given one.
    """

    folder: Path
    shard: str
    journal: Journal
    seed: int = 0
    deadline: float = 60.0
    encoder: Encoder | None = None
    captioner: Any = None


@runtime_checkable
class Stage(Protocol):
    """A step of the flow; picklable, so that it reaches a worker, and without state.

    Attributes:
        name: Short name, unique in a flow.
        version: Raised when the same parameters would now give other columns.
        scope: "shard" (sees the records of one shard) or "corpus" (sees those of all shards at once).
        reads: Columns that it is shown beside id, origin and parent; none named means all, which a corpus stage may
            not ask for. A stored result is valid as long as these have the values that they had.
        columns: Columns that it adds or overwrites, with their parquet types.
        params: JSON parameters of `run`; they enter the fingerprint.
        limits: JSON parameters of `judge`; they do not.
    """

    name: str
    version: int
    scope: str
    reads: Sequence[str]
    columns: Mapping[str, pa.DataType]

    @property
    def params(self) -> Mapping[str, Any]:
        """JSON parameters that `run` depends on."""
        ...

    @property
    def limits(self) -> Mapping[str, Any]:
        """JSON parameters that only `judge` depends on."""
        ...

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """One outcome for each record, in their order."""
        ...

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Apply the limits to a record that has the columns of this stage; None keeps it."""
        ...


class BaseStage:
    """The parts of a stage that most leave as they are: shard scope, no parameters, nothing judged."""

    name: str = ""
    version: int = 1
    scope: str = "shard"
    reads: Sequence[str] = ()
    columns: Mapping[str, pa.DataType] = {}

    @property
    def params(self) -> Mapping[str, Any]:
        """No parameters."""
        return {}

    @property
    def limits(self) -> Mapping[str, Any]:
        """No limits."""
        return {}

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Keep everything."""
        return None


def fingerprint(stage: Stage, inputs_digest: str) -> str:
    """The name of a stage's stored results: its version and parameters and what it was given, never its limits."""
    return digest(stage.name, stage.version, dict(stage.params), inputs_digest)
