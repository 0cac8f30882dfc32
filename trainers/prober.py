"""How well an embedder already aligns each task, and the epoch's draw that follows from it (paper, section 3.3).

Shapes: N probe pairs of a task, D embedding width, W processes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from gve.trainers.collator import match_mask
from gve.trainers.curriculum.schedule import CurriculumEpoch, CurriculumHistory, Schedule, TaskScores
from gve.trainers.curriculum.weights import sides
from gve.trainers.encoders import SideEncoder
from gve.trainers.processes import agreed, gather_rows, share
from gve.trainers.sampler import PyramidBatchSampler

LEAST_HELD = 2
"""Least pairs of a task's probe that is held out."""
TIED = 1e-5
"""Cosines that differ by less are equal: the same video in two sources, embedded in two batches."""


def task_scores(queries: Tensor, targets: Tensor, matches: Tensor | None = None) -> TaskScores:
    """R, R' and the accuracy of one task's probe pairs (section 3.3).

    Args:
        queries: (N, D) unit vectors.
        targets: (N, D) unit vectors.
        matches: (N, N) bool; True where target j also answers query i. Such cells count neither as pairs that do not
            belong together nor as rivals.
    """
    cosines = queries.double() @ targets.double().T  # (N, N)
    positives = cosines.diagonal()
    others = ~torch.eye(len(cosines), dtype=torch.bool)
    if matches is not None:
        others &= ~matches
    baseline = cosines[others].mean() if others.any() else torch.zeros((), dtype=cosines.dtype)
    rivals = cosines.masked_fill(~others, -torch.inf).max(dim=1).values
    score = positives.mean().item()
    return TaskScores(score, score - baseline.item(), (positives > rivals).double().mean().item())


def reciprocal_rank(queries: Tensor, pool: Tensor, start: int, matches: Tensor) -> float:
    """Mean of 1 / rank of N queries' own targets among M; a tie, to the rounding of vectors, counts half a place.

    Args:
        pool: (M, D) unit vectors; the target of query i is `start` + i.
        matches: (N, M) bool; True where target j also answers query i, and so is no rival.
    """
    cosines = queries.double() @ pool.double().T  # (N, M)
    own = cosines[:, start : start + len(queries)].diagonal()[:, None]  # (N, 1)
    tied = (cosines - own).abs() <= TIED
    nearer = torch.where(tied, 0.5, (cosines > own).double()).masked_fill(matches, 0.0)
    nearer[:, start : start + len(queries)].fill_diagonal_(0.0)
    return (1 / (1 + nearer.sum(1))).mean().item()


def probe_rows(rows: Dataset, pairs: int, seed: Sequence[int]) -> list[int]:
    """Places of at most so many rows, drawn in whole groups, so that a probe holds each query's hardest rivals."""
    units: dict[str, list[int]] = {}
    for place, group in enumerate(rows["group"]):
        units.setdefault(group or f" {place}", []).append(place)
    pieces, picked = list(units.values()), []
    for number in np.random.default_rng(list(seed)).permutation(len(pieces)):
        if len(picked) + len(pieces[number]) <= pairs:
            picked += pieces[number]
    return sorted(picked or pieces[0][:pairs])  # a group larger than the probe is cut


def hold_out(datasets: Mapping[str, Dataset], pairs: int, seed: int) -> tuple[DatasetDict, DatasetDict]:
    """Each task's rows without those of its probe, and those: N_p of them, but at most a quarter of the task."""
    kept, held = {}, {}
    for number, (task, rows) in enumerate(datasets.items()):
        picks = probe_rows(rows, min(pairs, len(rows) // 4), [seed, number])
        if len(picks) < LEAST_HELD:
            raise ValueError(
                f"probe_held_out: got {len(rows)} rows of {task}, a quarter of which is no probe; at least "
                f"{4 * LEAST_HELD} rows a task are needed; leave the task out or turn probe_held_out off"
            )
        held[task] = rows.select(picks)
        kept[task] = rows.select(np.setdiff1d(np.arange(len(rows)), picks))
    return DatasetDict(kept), DatasetDict(held)


class Prober:
    """Draws N_p pairs of each task once, in whole groups (all of a smaller task), and scores them with any embedder.

    The processes share the pairs of each task and exchange the vectors, so each holds the scores one alone would find.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        *,
        pairs: int = 64,
        seed: int = 0,
        progress: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.datasets, self.progress, self.rank, self.world_size = dict(datasets), progress, rank, world_size
        self.picks = {
            task: probe_rows(rows, pairs, [seed, number]) for number, (task, rows) in enumerate(self.datasets.items())
        }

    def __call__(self, encode: SideEncoder) -> dict[str, TaskScores]:
        """Score every task; under several processes, on all of them at once."""
        hidden = not self.progress or self.rank > 0
        bar = tqdm(self.picks, desc="probe", unit="task", leave=False, disable=hidden)
        probed = {task: self._probed(task, encode) for task in bar}
        kinds = {task: sides(task)[1] for task in probed}
        return {task: _scores(task, [name for name in kinds if kinds[name] == kinds[task]], probed) for task in probed}

    def _probed(self, task: str, encode: SideEncoder) -> "Probed":
        picks = self.picks[task]
        rows = self.datasets[task].__getitems__(share(picks, self.rank, self.world_size))
        queries, targets = encode(rows, "query"), encode(rows, "target")
        if self.world_size > 1:
            queries, targets = gather_rows(queries)[: len(picks)], gather_rows(targets)[: len(picks)]
        if queries.shape != targets.shape:
            raise ValueError(
                f"prober: got {queries.shape[1]} dimensions for the queries of {task} and {targets.shape[1]} for its "
                f"targets; one width is accepted; embed both sides with one model"
            )
        facts = self.datasets[task].select_columns(["query_facts", "target_facts"]).__getitems__(picks)
        stated, true = [row["query_facts"] for row in facts], [row["target_facts"] for row in facts]
        return Probed(torch.from_numpy(queries), torch.from_numpy(targets), stated, true)


class Probed(NamedTuple):
    """N probe pairs of one source: (N, D) vectors, and the facts that queries state and that hold for targets."""

    queries: Tensor
    targets: Tensor
    stated: list[list[int]]
    true: list[list[int]]


def _scores(task: str, pool: Sequence[str], probed: Mapping[str, Probed]) -> TaskScores:
    """R, R' and accuracy among a source's own pairs; its reciprocal rank among all probed targets of their kind."""
    own = probed[task]
    true = [facts for source in pool for facts in probed[source].true]
    matches = torch.from_numpy(match_mask(own.stated, true))  # (N, M)
    start = sum(len(probed[source].true) for source in pool[: pool.index(task)])
    found = task_scores(own.queries, own.targets, matches[:, start : start + len(own.true)])
    targets = torch.cat([probed[source].targets for source in pool])  # (M, D)
    return replace(found, reciprocal=reciprocal_rank(own.queries, targets, start, matches))


Probe = Callable[[int], Mapping[str, TaskScores]]
"""The scores of all tasks at the start of an epoch; empty where there is no prober."""


class CurriculumCallback(TrainerCallback, ExportableState):
    """At the start of each epoch, probes the live weights and gives the sampler its probabilities (section 3.3).

    The start of an epoch is the last moment before its batches are drawn, and the weights there are the paper's
    checkpoint of the epoch before. What was measured is part of the checkpoint, so a resumed epoch keeps its draw.
    """

    def __init__(self) -> None:
        self.history = CurriculumHistory()
        self.sampler: PyramidBatchSampler | None = None
        self.schedule: Callable[[int], Schedule] | None = None
        self.probe: Probe | None = None
        self.log: Callable[[dict[str, float]], None] | None = None
        self.skipped: dict[str, int] = {}

    def connect(
        self,
        sampler: PyramidBatchSampler,
        *,
        schedule: Callable[[int], Schedule],
        probe: Probe,
        log: Callable[[dict[str, float]], None],
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        """Join the callback to a run; `schedule` takes the number of epochs, `skipped` goes into the first log."""
        self.sampler, self.schedule, self.probe, self.log = sampler, schedule, probe, log
        self.skipped = {f"skipped/{task}": count for task, count in (skipped or {}).items()}

    def state(self) -> dict[str, Any]:
        """What goes into `trainer_state.json`."""
        return {"args": {}, "attributes": {"history": self.history.to_json()}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the history of the checkpoint that is resumed, or start with none."""
        saved = (state.stateful_callbacks or {}).get(type(self).__name__) if state.global_step else None
        self.history = CurriculumHistory.from_json(saved["attributes"]["history"] if saved else {})

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fix the probabilities of the epoch that begins."""
        if self.sampler is None or self.schedule is None or self.probe is None or self.log is None:
            return
        updates = -(-len(self.sampler) // args.gradient_accumulation_steps)
        epoch = state.global_step // updates
        if epoch not in self.history.epochs:
            schedule = self.schedule(state.num_train_epochs)
            scores = agreed(dict(self.probe(epoch)))  # rounding must not let processes draw different tasks
            self.history.epochs[epoch] = schedule.epoch(epoch, self.sampler.sizes, scores, self.history)
            self.log(self.history.epochs[epoch].logs() | (self.skipped if epoch == 0 else {}))
        for number, record in self.history.epochs.items():
            self.sampler.set_probabilities(number, _known(record, self.sampler))
        self.sampler.set_epoch(epoch)


def _known(record: CurriculumEpoch, sampler: PyramidBatchSampler) -> dict[str, float]:
    if set(record.probabilities) != set(sampler.tasks):
        raise ValueError(
            f"resume_from_checkpoint: got a checkpoint of tasks {', '.join(sorted(record.probabilities))}; this run "
            f"has {', '.join(sorted(sampler.tasks))}; resume with the tasks the run began with"
        )
    return record.probabilities
