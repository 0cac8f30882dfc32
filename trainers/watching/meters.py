"""What the training log holds besides the loss: the curves of Figures 9 and 10 by task, speed, and time lost to data.

Shapes: scalars only; sums stay on the device until the log asks for them, so that no step waits.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gve.trainers.sampler import PyramidBatchSampler


class TaskMeters:
    """Sums of what a loss measures, by task and over all."""

    def __init__(self) -> None:
        self.task: str | None = None  # the task of the step that runs; None counts for all tasks together only
        self.sums: dict[str, dict[str, Tensor]] = {}
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take the measures of one batch."""
        for suffix in ("",) if self.task is None else ("", f"/{self.task}"):
            sums = self.sums.setdefault(suffix, {})
            for name, value in values.items():
                sums[name] = sums[name] + value if name in sums else value
            self.counts[suffix] += 1

    def pop(self) -> dict[str, float]:
        """Means since the last call, over all tasks and by task; empties the sums.

        `score_gap` is positive minus hardest negative, in cosine; `batches/t2v` counts. `loss` over all tasks is left out,
        since the trainer logs it.
        """
        flat: dict[str, float] = {}
        names = [(suffix, name) for suffix, sums in self.sums.items() for name in sums]
        if names:
            means = torch.stack([self.sums[suffix][name] / self.counts[suffix] for suffix, name in names])
            flat = {f"{name}{suffix}": value for (suffix, name), value in zip(names, means.tolist(), strict=True)}
        flat.pop("loss", None)
        flat |= {f"batches{suffix}": count for suffix, count in self.counts.items() if suffix}
        self.sums, self.counts = {}, defaultdict(int)
        return flat


class WatchCallback(TrainerCallback):
    """Gives the meters the task of each batch, and measures how long steps wait for their data.

    The task comes from the sampler, which is the same in every process; nothing is added to the batches.
    """

    def __init__(self) -> None:
        self.meters: TaskMeters | None = None
        self.sampler: PyramidBatchSampler | None = None
        self.waited, self.since = 0.0, time.perf_counter()
        self._epoch, self._place = -1, 0
        self._drawn: list[int] = []

    def connect(self, meters: TaskMeters, sampler: PyramidBatchSampler) -> None:
        """Join the callback to a run."""
        self.meters, self.sampler = meters, sampler

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent inside as waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start

    def pop(self) -> dict[str, float]:
        """The measures since the last call."""
        now = time.perf_counter()
        passed = max(now - self.since, 1e-9)
        wait = {"data_wait_seconds": self.waited, "data_wait_share": min(self.waited / passed, 1.0)}
        self.waited, self.since = 0.0, now
        return ({} if self.meters is None else self.meters.pop()) | wait

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.waited, self.since, self._epoch = 0.0, time.perf_counter(), -1

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the task of the first batch of an optimizer step."""
        if self.sampler is None or self.meters is None:
            return
        updates = -(-len(self.sampler) // args.gradient_accumulation_steps)
        epoch, step = divmod(state.global_step, updates)
        if epoch != self._epoch:
            self._epoch, self._drawn = epoch, self.sampler.schedule(epoch).tolist()
        self._place = step * args.gradient_accumulation_steps
        self._name()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the task of the next batch of the same optimizer step."""
        self._place += 1
        self._name()

    def _name(self) -> None:
        if self.meters is not None and self.sampler is not None:
            inside = self._place < len(self._drawn)
            self.meters.task = self.sampler.tasks[self._drawn[self._place]] if inside else None


class LossMeters(TaskMeters):
    """What a loss measures, with the tokens of the language model."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: int | Tensor = 0  # attended tokens since the last `pop`
        self.computed: int | Tensor = 0  # tokens computed for them, padding included, in the first pass
        self.since = time.perf_counter()  # seconds of the clock at the last `pop`

    def count(self, tokens: int | Tensor, computed: int | Tensor) -> None:
        """Take the tokens of one forward."""
        self.tokens = self.tokens + tokens
        self.computed = self.computed + computed

    def pop(self) -> dict[str, float]:
        """The same, with the share of padding in the tokens computed, and attended tokens by the time that passed."""
        now = time.perf_counter()
        tokens, computed, speed = int(self.tokens), int(self.computed), {}
        if computed:
            speed = {
                "padding_waste": 1 - tokens / computed,
                "tokens_per_second": tokens / max(now - self.since, 1e-9),
            }
        self.tokens, self.computed, self.since = 0, 0, now
        return super().pop() | speed
