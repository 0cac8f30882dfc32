"""How well an embedder already aligns each task, and the epoch's draw that follows from it (paper, section 3.3).

Shapes: N probe pairs of a task, D embedding width, W processes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from gve.trainers.collator import match_mask
from gve.trainers.curriculum.schedule import CurriculumEpoch, CurriculumHistory, Schedule, TaskScores
from gve.trainers.encoders import SideEncoder
from gve.trainers.processes import agreed, gather_rows, share
from gve.trainers.sampler import PyramidBatchSampler


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


class Prober:
    """Draws N_p pairs of each task once (all of a smaller task), and scores them with any embedder.

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
            task: np.sort(np.random.default_rng([seed, number]).permutation(len(rows))[:pairs]).tolist()
            for number, (task, rows) in enumerate(self.datasets.items())
        }

    def __call__(self, encode: SideEncoder) -> dict[str, TaskScores]:
        """Score every task; under several processes, on all of them at once."""
        hidden = not self.progress or self.rank > 0
        bar = tqdm(self.picks, desc="probe", unit="task", leave=False, disable=hidden)
        return {task: self._score(task, encode) for task in bar}

    def _score(self, task: str, encode: SideEncoder) -> TaskScores:
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
        mask = match_mask([row["query_facts"] for row in facts], [row["target_facts"] for row in facts])
        return task_scores(torch.from_numpy(queries), torch.from_numpy(targets), torch.from_numpy(mask))


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
