"""The curriculum in the training loop: probe, choose probabilities, keep the history."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from gve.trainers.curriculum.schedule import CurriculumEpoch, CurriculumHistory, Schedule, TaskScores
from gve.trainers.sampler import PyramidBatchSampler

Probe = Callable[[int], Mapping[str, TaskScores]]
"""The scores of all tasks at the start of an epoch; empty where no prober is at hand."""


class CurriculumCallback(TrainerCallback, ExportableState):
    """At the start of each epoch: the live weights are probed and the sampler gets its probabilities (section 3.3).

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
        """Join the callback to a run.

        Args:
            sampler: Gets the probabilities.
            schedule: Makes the schedule of a number of epochs.
            probe: Scores the tasks.
            log: Takes the numbers of an epoch.
            skipped: Rows that were left out, by task; told in the first epoch's log.
        """
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
            scores = agreed(dict(self.probe(epoch)))
            self.history.epochs[epoch] = schedule.epoch(epoch, self.sampler.sizes, scores, self.history)
            self.log(self.history.epochs[epoch].logs() | (self.skipped if epoch == 0 else {}))
        for number, record in self.history.epochs.items():
            self.sampler.set_probabilities(number, _known(record, self.sampler))
        self.sampler.set_epoch(epoch)


def agreed(scores: dict[str, TaskScores]) -> dict[str, TaskScores]:
    """The first process's scores on every process, so that all draw the same tasks."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return scores
    shared: list[Any] = [scores]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def _known(record: CurriculumEpoch, sampler: PyramidBatchSampler) -> dict[str, float]:
    if set(record.probabilities) != set(sampler.tasks):
        raise ValueError(
            f"resume_from_checkpoint: got a checkpoint of tasks {', '.join(sorted(record.probabilities))}; this run "
            f"has {', '.join(sorted(sampler.tasks))}; resume with the tasks the run began with"
        )
    return record.probabilities
