"""How the demo's training keeps to its time: a bar, a deadline, and a learning rate that falls with the time."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gve.encoding.cores import CoreShare

LOOKS = 2
"""Looks of `CoreShare` before it has set the threads: it compares two."""


class QuietProgress(ProgressCallback):
    """The bar of transformers with the loss beside it, and without log lines on stdout."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the loss."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.2f}")


class Deadline(TrainerCallback):
    """Ends the training so many seconds after it began, if the machine is slower than planned; the model is kept."""

    def __init__(self, seconds: float, write: Callable[[str], Any]) -> None:
        self.seconds, self.write, self.start = seconds, write, math.nan

    def spent(self) -> float:
        """The share of the time that has passed; 0 before the training."""
        return 0.0 if math.isnan(self.start) else (time.monotonic() - self.start) / self.seconds

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, unless this goes on with what broke."""
        if math.isnan(self.start):
            self.start = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop when the time is up."""
        if self.spent() > 1 and state.global_step < state.max_steps:
            self.write(f"  the time is up at step {state.global_step} of {state.max_steps}; training ends here")
            control.should_training_stop = control.should_save = True


def steady_seconds(step: Callable[[int], Any], rounds: int, device: torch.device) -> float:
    """Mean seconds of a step, by its number, once torch's threads fit the cores that other programs leave.

    Beside another program the first steps may take four times as long as all that follow.
    """
    with CoreShare(device) as share:
        looks, number = 0, 0
        while number == 0 or (share.most > 1 and looks < LOOKS):
            step(number % rounds)
            before = share.last
            share.adjust()
            looks += share.last is not before
            number += 1
        begun = time.perf_counter()
        for number in range(rounds):
            step(number)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) / rounds


class NonFiniteLossError(ValueError):
    """A loss became NaN or infinite."""


class FiniteLoss(TrainerCallback):
    """Stops a training whose loss is NaN or infinite, as soon as the log says so."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Refuse to go on."""
        if logs and not math.isfinite(loss := float(logs.get("loss", 0.0))):
            raise NonFiniteLossError(
                f"loss: got {loss} at step {state.global_step}; finite numbers are accepted; lower the learning rate, or "
                "train in float32"
            )


class CoreShareCallback(TrainerCallback):
    """Leaves cores that other programs use to them."""

    def __init__(self) -> None:
        self.share: CoreShare | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to watch."""
        self.share = CoreShare(args.device)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look, if it is time."""
        if self.share is not None:
            self.share.adjust()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the threads as they were."""
        if self.share is not None:
            self.share.__exit__()


def falling_rate(
    optimizer: Optimizer, steps: int, deadline: Deadline, *, warmup: int, plateau: float = 0.0, least: float = 0.0
) -> LambdaLR:
    """Warm-up, a plateau, then half a cosine to a share `least`, by steps or by time, whichever is further on.

    A model this small learns to separate near-identical clips while the rate falls; a training that is cut off
    before would miss it.
    """

    def share(step: int) -> float:
        done = min(1.0, max(step / steps, deadline.spent()))
        falling = max(0.0, done - plateau) / (1 - plateau)
        return min(1.0, (step + 1) / warmup) * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * falling)))

    return LambdaLR(optimizer, share)
