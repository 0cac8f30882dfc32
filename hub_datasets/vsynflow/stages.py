"""What may happen to a record, and what a stage is.

A stage measures (`run`: costly, its columns are stored) and judges (`judge`: limits on the stored columns). Only what is
measured enters the fingerprint, so a changed limit recomputes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import Record, digest
from gve.hub_datasets.vsynflow.sketches import Sketches, id_columns


@dataclass(frozen=True)
class Kept:
    """The record goes on, with the stage's columns."""

    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expanded:
    """The record is replaced by children: the suffix of each child's id, and the stage's columns for it."""

    children: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Rejected:
    """A decision against the record: a short code such as "static", and what was measured (NaN for nothing)."""

    code: str
    score: float = float("nan")


@dataclass(frozen=True)
class Failed:
    """No decision, because something broke: a short code such as "deadline", and whether a retry may succeed."""

    code: str
    retryable: bool


class SetupError(ValueError):
    """The run is set up wrongly. Ends the run; any other error of a stage fails one record."""


Outcome = Kept | Expanded | Rejected | Failed  # of one record


class Encoder(Protocol):
    """Maps texts, images and videos into one vector space, as a SentenceTransformer does."""

    def encode_query(self, inputs: Sequence[Any], **options: Any) -> np.ndarray:
        """Unit vectors, (N, D), of queries such as {"text": "..."}."""
        ...

    def encode_document(self, inputs: Sequence[Any], **options: Any) -> np.ndarray:
        """Unit vectors, (N, D), of targets; {"video": [PIL images]} holds a video's frames."""
        ...


@dataclass
class Context:
    """What a stage may use besides the records."""

    folder: Path  # for media that a stage makes; names in it must follow from record ids or content
    shard: str  # or the first of a pool
    journal: Journal  # this shard's paid calls
    deadline: float = 60.0  # seconds for one record
    encoder: Encoder | None = None
    captioner: Any = None  # see captioner.py
    writer: Any = None  # another captioner, which is sent no pictures


class Stage:
    """One step of a flow: picklable, and without state."""

    name: str = ""  # unique in a flow
    version: int = 1  # raise it when the same parameters would give other columns
    scope: str = "shard"  # "pool" sees the records of several shards at once, "corpus" is for a CorpusStage
    pool: int = 0  # of a pool stage: most records that it sees at once
    reads: Sequence[str] = ()  # besides id, origin and parent; empty for all. Stored results hold for these values
    columns: Mapping[str, pa.DataType] = {}  # added or overwritten
    param_names: Sequence[str] = ()  # attributes that make up `params`
    limit_names: Sequence[str] = ()  # likewise `limits`

    @property
    def params(self) -> Mapping[str, Any]:
        """JSON parameters of `run`; they enter the fingerprint."""
        return {name: getattr(self, name) for name in self.param_names}

    @property
    def limits(self) -> Mapping[str, Any]:
        """JSON parameters of `judge`; they do not."""
        return {name: getattr(self, name) for name in self.limit_names}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Return one outcome for each record, in order; by default each record's own."""
        return [self.one(record, context) for record in records]

    def one(self, record: Record, context: Context) -> Outcome:
        """The outcome of one record, for stages that look at one at a time."""
        raise NotImplementedError

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Apply the limits to a record with this stage's columns; None keeps it."""
        return None


class CorpusStage(Stage):
    """A stage that compares all records: each shard is sketched where shards run, then all sketches are measured."""

    scope = "corpus"

    def sketch(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """What the comparison needs of a shard's records, as columns; see `Sketches`."""
        raise NotImplementedError

    def measure(self, sketches: Sketches) -> dict[str, np.ndarray]:
        """The stage's columns for all records, (N,) each; names of records are given by their places, -1 for none."""
        raise NotImplementedError

    def outcomes(self, sketches: Sketches, measured: Mapping[str, np.ndarray], span: slice) -> list[Outcome]:
        """What `measure` found for the records of one shard."""
        found = {name: measured[name][span].tolist() for name in self.columns}
        for name, kind in self.columns.items():
            if kind == pa.string():
                found[name] = sketches.ids(found[name])
        return [Kept(dict(zip(found, values, strict=True))) for values in zip(*found.values(), strict=True)]

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Sketch and measure records that are a corpus of their own."""
        columns = self.sketch(records) | id_columns(record["id"] for record in records)
        sketches = Sketches(lambda name: [columns[name]])
        return self.outcomes(sketches, self.measure(sketches), slice(None)) if records else []


def fingerprint(stage: Stage) -> str:
    """Name a stage's stored results by its version and parameters, never by its limits."""
    return digest(stage.name, stage.version, dict(stage.params), "")[:12]
