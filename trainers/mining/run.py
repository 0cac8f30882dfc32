"""Mines a version: every task embedded, searched and written, by one process or by several together.

Shapes: R rows of a task, N distinct targets, n rows of one call, D width, W processes.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from gve.trainers.encoders import Side, SideEncoder
from gve.trainers.mining.mined import HEADER, MiningJob, version_folder, write_header, write_task
from gve.trainers.mining.nearest import make_index
from gve.trainers.mining.negatives import Mined, check_counts, mine_rows
from gve.trainers.mining.settings import MiningSettings
from gve.trainers.mining.targets import TargetTable, read_rows
from gve.trainers.processes import agreed, gather_rows, share

logger = logging.getLogger(__name__)

BLOCK = 256
"""Rows whose media are in memory at once."""


@dataclass
class MiningRun:
    """The tasks to mine, read once and mined as often as there are versions."""

    datasets: Mapping[str, Dataset]
    negatives: Mapping[str, int]
    settings: MiningSettings
    parent: Path
    corpora: Mapping[str, Dataset] | None = None
    corpus: str | None = None
    rank: int = 0
    world_size: int = 1
    writes: bool = True
    device: torch.device | str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        self.negatives = {task: count for task, count in self.negatives.items() if count}
        if unknown := sorted(set(self.negatives) - set(self.datasets)):
            raise ValueError(
                f"num_negatives: got {', '.join(unknown)}; {', '.join(self.datasets)} are accepted; correct the task"
            )
        self.corpora = self.corpora or {}
        self.tables: dict[str, TargetTable] = {}
        for task, count in self.negatives.items():
            self.tables[task] = TargetTable(
                task, self.datasets[task], self.corpora.get(task), exclude=self.settings.exclude
            )
            check_counts(self.tables[task], count)

    def job(self, prober: str, fingerprint: str, epoch: int | None = None) -> MiningJob:
        """What a version would be made of; in training the epoch, counted from 0, moves the draws of the seed."""
        digests = {task: table.digest for task, table in self.tables.items()}
        settings = self.settings if epoch is None else replace(self.settings, seed=self.settings.seed + epoch)
        return MiningJob(prober, fingerprint, self.negatives, digests, settings, epoch, self.corpus)

    def mine(self, job: MiningJob, encode: SideEncoder) -> dict[str, dict[str, Any]]:
        """Make a version, or what is missing of it; under several processes, on all of them at once."""
        folder = version_folder(self.parent, job.version)
        facts = {}
        for task, table in self.tables.items():
            path = folder / f"{task}.parquet"
            found = agreed(json.loads(pq.read_schema(path).metadata[b"facts"]) if path.is_file() else None)
            if found is None:
                mined = self._mine_task(task, table, job, encode)
                found = mined.summary()
                _judge(task, found, job.settings)
                if self.writes:
                    ids = [*table.ids, *(self.corpora[task]["id"] if task in self.corpora else ())]
                    write_task(folder, table, mined, ids)
            facts[task] = found
        if self.writes and not (folder / HEADER).is_file():
            write_header(folder, job, self.tables, facts)
        if self.world_size > 1:
            torch.distributed.barrier()
        return facts

    def _mine_task(self, task: str, table: TargetTable, job: MiningJob, encode: SideEncoder) -> Mined:
        places = np.arange(len(table.ids))
        own = np.array(share(places, self.rank, self.world_size), dtype=np.int64)
        hidden = not self.progress or self.rank > 0
        with tqdm(total=len(table) + len(own), desc=f"mine {task}", unit="row", disable=hidden, delay=2) as bar:
            targets = self._targets(task, table, encode, bar)

            def queries(rows: np.ndarray) -> np.ndarray:
                bar.update(len(rows))
                return encode(self._rows(task, rows, "query"), "query")

            index = make_index(job.settings.index, targets, device=self.device)
            mined = mine_rows(table, index, own, queries, count=job.negatives[task], settings=job.settings)
        if self.world_size == 1:
            return mined
        parts = (mined.numbers, mined.scores, mined.ranks, mined.positives)
        return Mined(*(gather_rows(part)[: len(places)] for part in parts))

    def _targets(self, task: str, table: TargetTable, encode: SideEncoder, bar: tqdm) -> np.ndarray:
        """(N, D) vectors of all targets, each process's share of a block embedded by it."""
        vectors: np.ndarray | None = None
        for start in range(0, len(table), BLOCK * self.world_size):
            block = table.places[start : start + BLOCK * self.world_size]
            found = encode(self._rows(task, np.array(share(block, self.rank, self.world_size)), "target"), "target")
            found = found if self.world_size == 1 else gather_rows(found)[: len(block)]
            vectors = np.empty((len(table), found.shape[1]), dtype=np.float32) if vectors is None else vectors
            vectors[start : start + len(block)] = found
            bar.update(len(block))
        assert vectors is not None
        return vectors

    def _rows(self, task: str, places: np.ndarray, side: Side) -> list[dict[str, Any]]:
        """Rows with the columns that one side needs, in the order of their places."""
        rows = self.datasets[task]
        columns = ["id", "task", "instruction", "query"] if side == "query" else ["id", "task", "target"]
        own = places < len(rows)
        found: list[dict[str, Any]] = [{}] * len(places)
        for place, row in zip(np.flatnonzero(own), read_rows(rows, places[own], columns), strict=True):
            found[place] = row
        if not own.all():
            outside = read_rows(self.corpora[task], places[~own] - len(rows), ["id", "target"])
            for place, row in zip(np.flatnonzero(~own), outside, strict=True):
                found[place] = row | {"task": task}
        return found


def _judge(task: str, facts: Mapping[str, Any], settings: MiningSettings) -> None:
    if facts["mined"] + facts["drawn"] == 0:
        raise ValueError(
            f"ceiling, margin, max_rank: no row of {task} got a negative (ranks {settings.min_rank} to "
            f"{settings.max_rank}, ceiling {settings.ceiling}, margin {settings.margin}; mean score of the positives "
            f"{facts['mean_positive']:.3f}); settings that leave some targets are accepted; raise the ceiling or lower "
            "min_rank"
        )
    if facts["short"]:
        level = logging.WARNING if 2 * facts["short"] > facts["rows"] else logging.INFO
        message = (
            "%s: %d of %d rows have fewer hard negatives than asked (mean scores: positives %.3f, negatives %.3f)"
        )
        scores = facts["mean_positive"], facts["mean_negative"]
        logger.log(level, message, task, facts["short"], facts["rows"], *scores)
