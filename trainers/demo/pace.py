"""How the demo's training keeps to its time: a bar, a deadline, and a learning rate that falls with the time."""

import math
import time
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gve.trainers.trainer import GVETrainer


class QuietProgress(ProgressCallback):
    """The bar of transformers with the loss beside it, and without the log's lines on stdout."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the loss."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.2f}")


class Deadline(TrainerCallback):
    """Ends the training when the machine turned out slower than planned; what is learnt by then is kept.

    Args:
        seconds: From the first step on.
        write: Shows a line to the user.
    """

    def __init__(self, seconds: float, write: Callable[[str], Any]) -> None:
        self.seconds, self.write, self.start = seconds, write, math.nan

    def spent(self) -> float:
        """The share of the time that is over; 0 before the training."""
        return 0.0 if math.isnan(self.start) else (time.monotonic() - self.start) / self.seconds

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.start = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop when the time is over."""
        if self.spent() > 1 and state.global_step < state.max_steps:
            self.write(f"  the time is over at step {state.global_step} of {state.max_steps}; training ends here")
            control.should_training_stop = True


class TimedTrainer(GVETrainer):
    """A GVETrainer whose learning rate falls with the steps or with the time, whichever is further on.

    A model this small learns what tells near-identical clips apart while the rate falls; a training that is cut off
    before would leave it out.

    Args:
        *args: Of GVETrainer.
        deadline: Knows the time.
        **kwargs: Of GVETrainer.
    """

    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        self.deadline = deadline
        super().__init__(*args, callbacks=[deadline], **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Warm-up, then half a cosine down to nothing.

        Args:
            num_training_steps: Steps of the run.
            optimizer: Instead of the trainer's.

        Returns:
            The scheduler.
        """
        warmup = self.args.warmup_steps

        def share(step: int) -> float:
            done = max(step / num_training_steps, self.deadline.spent())
            return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, share)
        return self.lr_scheduler
