"""Mined negatives on disk: a folder a version, written whole or not at all, and what data loading reads of it.

Shapes: R rows of a task, n rows of a batch, K negatives of a row.

    mined-<version>/
      t2v.parquet  a row of the task: id, ids of its negatives, their scores and ranks, the positive's score
      t2v.npy      (R, K) int64 places of the same, -1 for none; mapped into memory, so that workers share it
      mined.json   what was mined by what; written last, so that it says that the version is complete
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from gve.hub_datasets.files import write_atomic
from gve.trainers.mining.negatives import Mined
from gve.trainers.mining.settings import MiningSettings
from gve.trainers.mining.targets import TargetTable, ids_digest, read_rows
from gve.trainers.rows import PairRows

SCHEMA = "gve-mined/1"
HEADER = "mined.json"


@dataclass(frozen=True)
class MiningJob:
    """All that mined negatives depend on; the version is a digest of it."""

    prober: str
    fingerprint: str
    negatives: Mapping[str, int]
    digests: Mapping[str, str]
    settings: MiningSettings = field(default_factory=MiningSettings)
    epoch: int | None = None  # counted from 0; None outside training
    corpus: str | None = None  # name of the outside corpus, or None

    @property
    def version(self) -> int:
        """A positive number below 2**63; names do not enter, only what they stand for."""
        parts = asdict(self) | {"schema": SCHEMA}
        del parts["prober"], parts["corpus"]
        digest = blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 1) or 1


def version_folder(parent: Path, version: int) -> Path:
    """The folder of a version."""
    return parent / f"mined-{version:016x}"


def write_task(folder: Path, table: TargetTable, mined: Mined, ids: Sequence[str]) -> None:
    """Write what was mined for one task, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    places = np.where(mined.numbers < 0, -1, table.places[mined.numbers])  # (R, K)
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "negatives", "outside", "scores", "ranks")}
    for row in range(len(places)):
        there = places[row] >= 0
        columns["id"].append(table.ids[row])
        columns["negatives"].append([ids[place] for place in places[row, there].tolist()])
        columns["outside"].append((places[row, there] >= len(table.ids)).tolist())
        columns["scores"].append(mined.scores[row, there].tolist())
        columns["ranks"].append(mined.ranks[row, there].tolist())
    columns["positive"] = mined.positives.tolist()
    schema = pa.schema(
        {
            "id": pa.string(),
            "negatives": pa.list_(pa.string()),
            "outside": pa.list_(pa.bool_()),
            "scores": pa.list_(pa.float32()),
            "ranks": pa.list_(pa.int32()),
            "positive": pa.float32(),
        },
        metadata={"facts": json.dumps(mined.summary(), sort_keys=True)},
    )
    sink, array = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, compression="zstd")
    np.save(array, places)
    write_atomic(folder / f"{table.task}.npy", array.getvalue())
    write_atomic(folder / f"{table.task}.parquet", sink.getvalue())  # last: it says that the task is done


def write_header(folder: Path, job: MiningJob, tables: Mapping[str, TargetTable], facts: Mapping[str, Any]) -> None:
    """Say that a version is complete, and what it is."""
    tasks = {
        task: {
            "rows": len(table.ids),
            "targets": len(table),
            "data": table.digest,
            "ids": ids_digest(table.ids),
            "negatives": job.negatives[task],
            **facts[task],
        }
        for task, table in tables.items()
    }
    header = {
        "schema": SCHEMA,
        "version": f"{job.version:016x}",
        "prober": {"name": job.prober, "fingerprint": job.fingerprint},
        "epoch": job.epoch,
        "settings": asdict(job.settings),
        "corpus": job.corpus,
        "tasks": tasks,
    }
    write_atomic(folder / HEADER, (json.dumps(header, indent=1) + "\n").encode())


def read_header(folder: Path) -> dict[str, Any]:
    """What a version is."""
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"mined_negatives: got {str(folder)!r} without a readable {HEADER}; a folder mined-<version> that `gve mine` "
            "has finished is accepted; give that folder, or run the command again"
        ) from error
    if header.get("schema") != SCHEMA:
        raise ValueError(
            f"mined_negatives: got schema {header.get('schema')!r} in {str(folder)!r}; {SCHEMA!r} is accepted; mine anew"
        )
    return header


def check_version(folder: Path, datasets: Mapping[str, Dataset], negatives: Mapping[str, int]) -> dict[str, Any]:
    """Make sure that a version was mined for some data."""
    header = read_header(folder)
    for task, count in negatives.items():
        if not count:
            continue
        mined = header["tasks"].get(task)
        if mined is None:
            raise ValueError(
                f"mined_negatives: got {str(folder)!r} without {task}; every task with num_negatives is needed; mine it"
            )
        if mined["ids"] != ids_digest(datasets[task]["id"]):
            raise ValueError(
                f"mined_negatives: got {str(folder)!r} of other rows of {task}; the same rows in the same order are "
                "accepted; mine anew"
            )
        if mined["negatives"] < count:
            raise ValueError(
                f"num_negatives: got {count} for {task}; {str(folder)!r} holds {mined['negatives']} a row; lower the "
                "number or mine more"
            )
    return header


class MinedNegatives:
    """Gives rows their hard negatives, looked up by row in the version that is in use.

    The version is a number in shared memory: workers hold copies of the data set, persistent ones for the whole run,
    and all of them follow `use` with the next batch that they fetch.
    """

    def __init__(
        self,
        parent: Path,
        negatives: Mapping[str, int],
        *,
        corpora: Mapping[str, Dataset] | None = None,
        given: Path | None = None,
    ) -> None:
        self.parent, self.negatives, self.corpora, self.given = parent, dict(negatives), dict(corpora or {}), given
        self.given_version = None if given is None else int(read_header(given)["version"], 16)
        self.version = torch.zeros((), dtype=torch.int64).share_memory_()

    def use(self, version: int) -> None:
        """Choose the version of all batches that are fetched from now on, in every worker."""
        self.version.fill_(version)

    def folder(self, version: int) -> Path:
        """Where a version is."""
        if self.given is not None and version == self.given_version:
            return self.given
        return version_folder(self.parent, version)

    def attach(self, task: str, rows: Dataset, numbers: Sequence[int], fetched: list[dict[str, Any]]) -> None:
        """Put K negatives into each row of a batch, whose (n,) places are `numbers`."""
        count = self.negatives.get(task, 0)
        if not count:
            return
        places = _places(str(self.folder(int(self.version)) / f"{task}.npy"))[numbers, :count]  # (n, K)
        if (places < 0).any():
            row = fetched[int(np.argmax((places < 0).any(axis=1)))]
            raise ValueError(
                f"num_negatives: got {count} for row {row['id']!r} of {task}, for which fewer were mined; every row needs "
                "as many; mine with --short fill, or lower the number"
            )
        targets = fetch_targets(rows, self.corpora.get(task), np.unique(places))
        for row, chosen in zip(fetched, places.tolist(), strict=True):
            row["negatives"] = [targets[place] for place in chosen]


class MinedPairRows(PairRows):
    """All rows of all tasks, each with its mined negatives."""

    def __init__(self, datasets: Mapping[str, Dataset], mined: MinedNegatives) -> None:
        super().__init__(datasets)
        self.tasks, self.mined = list(datasets), mined

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Rows of one task, by numbers over all tasks, in that order."""
        task = int(np.searchsorted(self.starts, numbers[0], side="right")) - 1
        fetched = super().__getitems__(numbers)
        own = [number - self.starts[task] for number in numbers]
        self.mined.attach(self.tasks[task], self.datasets[task], own, fetched)
        return fetched


def fetch_targets(rows: Dataset, corpus: Dataset | None, places: np.ndarray) -> dict[int, dict[str, Any]]:
    """Targets, {"text", "image", "video"}, by place."""
    own, outside = places[places < len(rows)].tolist(), places[places >= len(rows)].tolist()
    targets = dict(zip(own, (row["target"] for row in read_rows(rows, own, ["target"])), strict=True)) if own else {}
    if outside:
        assert corpus is not None
        found = read_rows(corpus, [place - len(rows) for place in outside], ["target"])
        targets |= zip(outside, (row["target"] for row in found), strict=True)
    return targets


@lru_cache(maxsize=64)
def _places(path: str) -> np.ndarray:
    """(R, K) of a version, which never changes once it is written."""
    return np.load(path, mmap_mode="r")
