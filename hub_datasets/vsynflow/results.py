"""Stored results of stages: one parquet file a stage and shard, a row for each record that came out or ended.

A result is valid for the very input it was computed from, so that a record which comes again is not computed again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.files import commit_rows, read_rows
from gve.hub_datasets.vsynflow.records import Record, digest
from gve.hub_datasets.vsynflow.stages import Expanded, Failed, Kept, Outcome, Rejected, Stage, fingerprint

IDENTITY = ("id", "origin", "parent")
_LEDGER: dict[str, pa.DataType] = {
    "_id": pa.string(),
    "_input": pa.string(),
    "_outcome": pa.string(),
    "_code": pa.string(),
    "_score": pa.float64(),
    "_suffix": pa.string(),
}


def results_file(folder: Path, stage: Stage, shard: str) -> Path:
    """The file of a stage's results on a shard, named by what the stage computes."""
    return folder / "stages" / f"{stage.name}-{fingerprint(stage, '')[:12]}" / f"{shard}.parquet"


def visible(stage: Stage, record: Record) -> Record:
    """The part of a record that a stage is shown.

    Raises:
        ValueError: If it reads a column that no earlier stage gives.
    """
    if not stage.reads:
        return record
    missing = [name for name in stage.reads if name not in record]
    if missing:
        raise ValueError(
            f"{stage.name}.reads: got {missing[0]!r}, which no earlier stage gives; "
            f"{', '.join(sorted(record))} are accepted; put the stage that gives it first"
        )
    return {name: record[name] for name in (*IDENTITY, *stage.reads)}


@dataclass
class Results:
    """The results of one stage on one shard, by (record id, digest of its input)."""

    path: Path
    stage: Stage
    outcomes: dict[tuple[str, str], Outcome]

    @classmethod
    def load(cls, folder: Path, stage: Stage, shard: str) -> "Results":
        """Read what is stored; nothing where the file is not there."""
        path = results_file(folder, stage, shard)
        return cls(path, stage, _outcomes(read_rows(path), stage) if path.exists() else {})

    def save(self, order: Sequence[tuple[str, str]]) -> None:
        """Write the results: those of `order` first, then what earlier configurations left."""
        keys = [*order, *sorted(self.outcomes.keys() - set(order))]
        rows = [row for key in keys for row in _rows(key, self.outcomes[key])]
        counts = count_outcomes(self.outcomes[key] for key in order)
        commit_rows(self.path, rows, {**_LEDGER, **self.stage.columns}, {"counts": counts})


def input_digest(stage: Stage, record: Record) -> str:
    """The name of what a stage is shown of a record."""
    return digest(visible(stage, record))


def count_outcomes(outcomes: Any) -> dict[str, int]:
    """How many outcomes there are of each kind."""
    counts = {"kept": 0, "expanded": 0, "rejected": 0, "failed": 0}
    for outcome in outcomes:
        counts[type(outcome).__name__.lower()] += 1
    return counts


def _rows(key: tuple[str, str], outcome: Outcome) -> list[dict[str, Any]]:
    named = {"_id": key[0], "_input": key[1]}
    if isinstance(outcome, Kept):
        return [{**named, "_outcome": "kept", **outcome.columns}]
    if isinstance(outcome, Rejected):
        score = None if math.isnan(outcome.score) else outcome.score
        return [{**named, "_outcome": "rejected", "_code": outcome.code, "_score": score}]
    if isinstance(outcome, Failed):
        return [{**named, "_outcome": "retry" if outcome.retryable else "failed", "_code": outcome.code}]
    marked = {**named, "_outcome": "expanded"}
    return [{**marked, "_suffix": suffix, **columns} for suffix, columns in outcome.children.items()] or [marked]


def _outcomes(rows: Sequence[Mapping[str, Any]], stage: Stage) -> dict[tuple[str, str], Outcome]:
    outcomes: dict[tuple[str, str], Outcome] = {}
    for row in rows:
        key, kind = (row["_id"], row["_input"]), row["_outcome"]
        columns = {name: row[name] for name in stage.columns}
        if kind == "kept":
            outcomes[key] = Kept(columns)
        elif kind == "rejected":
            outcomes[key] = Rejected(row["_code"], math.nan if row["_score"] is None else row["_score"])
        elif kind == "expanded":
            earlier = outcomes.get(key, Expanded({}))
            assert isinstance(earlier, Expanded)
            children = {} if row["_suffix"] is None else {row["_suffix"]: columns}
            outcomes[key] = Expanded({**earlier.children, **children})
        else:
            outcomes[key] = Failed(row["_code"], kind == "retry")
    return outcomes
