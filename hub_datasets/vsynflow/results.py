"""Stored results of stages: one parquet file for each stage and shard.

A result is valid for the exact input that it was computed from, so the same record is never computed twice.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gve.hub_datasets.parquet import read_facts, read_rows, write_table
from gve.hub_datasets.vsynflow.records import Record, digest
from gve.hub_datasets.vsynflow.stages import Expanded, Failed, Kept, Outcome, Rejected, Stage, fingerprint

Key = tuple[str, str]  # a record's id, and the digest of what the stage saw
IDENTITY = ("id", "origin", "parent")
_LEDGER: dict[str, pa.DataType] = {
    **dict.fromkeys(("_id", "_input", "_outcome", "_code"), pa.string()),
    "_score": pa.float64(),
    "_suffix": pa.string(),
}


def visible(stage: Stage, record: Record) -> Record:
    """The part of a record that a stage sees; ValueError if no earlier stage gives a column."""
    if not stage.reads:
        return record
    missing = [name for name in stage.reads if name not in record]
    if missing:
        raise ValueError(
            f"{stage.name}.reads must be among {', '.join(sorted(record))}, got {missing[0]!r}. Put the stage that "
            "gives it first."
        )
    return {name: record[name] for name in (*IDENTITY, *stage.reads)}


def keys_of(stage: Stage, records: Sequence[Record], corpus: str | None = None) -> list[Key]:
    """The keys of a stage's results; pool and corpus stages see one corpus, of the given digest."""
    return [(record["id"], corpus or digest(visible(stage, record))) for record in records]


@dataclass
class Results:
    """The results of one stage on one shard."""

    path: Path
    stage: Stage
    outcomes: dict[Key, Outcome]

    @classmethod
    def load(cls, folder: Path, stage: Stage, shard: str) -> "Results":
        """Read what is stored, if anything."""
        path = results_file(folder, stage, shard)
        return cls(path, stage, _outcomes(read_rows(path), stage) if path.exists() else {})

    def save(self, order: Sequence[Key], **facts: str) -> None:
        """Write the results: first the keys of `order`, then what earlier configurations left; and facts beside them."""
        keys = [*order, *sorted(self.outcomes.keys() - set(order))]
        rows = [row for key in keys for row in _rows(key, self.outcomes[key])]
        counts = Counter(dict.fromkeys(("kept", "expanded", "rejected", "failed"), 0))
        counts.update(type(self.outcomes[key]).__name__.lower() for key in order)
        write_table(self.path, rows, {**_LEDGER, **self.stage.columns}, {"counts": counts, **facts})


def results_file(folder: Path, stage: Stage, shard: str) -> Path:
    """Where the results of a stage on a shard lie."""
    return folder / "stages" / f"{stage.name}-{fingerprint(stage)}" / f"{shard}.parquet"


def saw_corpus(folder: Path, stage: Stage, shard: str, corpus: str) -> bool:
    """Whether the results of a pool or corpus stage are stored for this corpus."""
    path = results_file(folder, stage, shard)
    return path.exists() and read_facts(path).get("corpus") == corpus


def save_corpus(folder: Path, stage: Stage, shard: str, corpus: str, named: Mapping[str, Outcome]) -> None:
    """Store the outcomes of a pool or corpus stage by record id, instead of those of earlier corpora."""
    outcomes = {(name, corpus): outcome for name, outcome in named.items()}
    Results(results_file(folder, stage, shard), stage, outcomes).save(list(outcomes), corpus=corpus)


def _rows(key: Key, outcome: Outcome) -> list[dict[str, Any]]:
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


def _outcomes(rows: Iterable[Mapping[str, Any]], stage: Stage) -> dict[Key, Outcome]:
    outcomes: dict[Key, Outcome] = {}
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
