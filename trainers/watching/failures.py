"""Signs that a run has gone wrong, each logged once while the run can still be stopped cheaply."""

import logging
import math
from collections import defaultdict, deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from gve.trainers.arguments import GVETrainingArguments

logger = logging.getLogger(__name__)

WINDOW = 8
"""Entries of the training log that a sign must last for."""
CHANCE_MARGIN = 0.1
"""How near to log B, as a share of it, a loss counts as chance."""
FLATNESS = 0.02
"""Largest change of a constant loss between the halves of the window, as a share of its mean."""
COLLAPSED_SCORE = 0.95
"""Mean cosine of a batch's queries with all its targets that counts as one direction for all."""
COLLAPSED_R, COLLAPSED_CENTRED = 0.93, 0.02
"""R above and R' below these: any target is as near as the right one."""
EXPLOSION = 100.0
"""Gradient norm, in medians of the norms before, that counts as an explosion."""
SMALLEST_NORM = 1e-8
PROBED_EPOCHS = 3
"""Epochs before a task at chance accuracy is reported; in the first two little can be expected."""


class FailureCallback(TrainerCallback):
    """Reads the training log and warns once of each sign, with what to look at.

    It never stops a run. Signs: a loss that stays at log B, vectors of one direction, a gradient norm of zero or one
    that explodes, and tasks whose probe accuracy stays at chance.

    Args:
        rows: By task; a task with fewer than `probe_pairs` rows is probed on all of them.
    """

    def __init__(self, rows: Mapping[str, int] | None = None) -> None:
        self.rows = dict(rows or {})
        self.warned: dict[str, str] = {}
        self.losses: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self.scores: deque[float] = deque(maxlen=WINDOW)
        self.norms: deque[float] = deque(maxlen=4 * WINDOW)

    def on_log(
        self,
        args: GVETrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at one entry of the log."""
        if not logs:
            return
        self._losses(args, state, logs)
        self._scores(state, logs)
        self._norms(state, logs)
        self._probe(args, state, logs)

    def _losses(self, args: GVETrainingArguments, state: TrainerState, logs: Mapping[str, Any]) -> None:
        for name, value in logs.items():
            if not name.startswith("loss/") or state.global_step <= args.get_warmup_steps(state.max_steps):
                continue
            task = name.removeprefix("loss/")
            recent = self.losses[task]
            recent.append(value)
            chance = chance_loss(args, task)
            mean = sum(recent) / len(recent)
            late = sum(list(recent)[WINDOW // 2 :]) / (WINDOW - WINDOW // 2)
            flat = abs(2 * (late - mean)) < FLATNESS * mean
            if len(recent) == WINDOW and flat and abs(mean - chance) < CHANCE_MARGIN * chance:
                self._warn(
                    "constant loss",
                    state,
                    f"the loss of {task} stays at {mean:.3f}, which is chance (log B: "
                    f"{chance:.3f}); look at the learning rate (too high collapses, too low does nothing), at the "
                    "temperature, and whether any weight is trained",
                )

    def _scores(self, state: TrainerState, logs: Mapping[str, Any]) -> None:
        if "score_mean" not in logs:
            return
        self.scores.append(logs["score_mean"])
        if len(self.scores) == WINDOW and min(self.scores) > COLLAPSED_SCORE:
            self._warn(
                "collapsed embeddings",
                state,
                f"queries and targets that do not belong together have a mean cosine of {self.scores[-1]:.3f}: all vectors "
                "have one direction; look at the learning rate, the pooling (is the end token attended?) and whether rows "
                "reach the model with their content",
            )

    def _norms(self, state: TrainerState, logs: Mapping[str, Any]) -> None:
        if "grad_norm" not in logs:
            return
        norm = float(logs["grad_norm"])
        before = [value for value in self.norms if math.isfinite(value)]
        self.norms.append(norm)
        recent = list(self.norms)[-3:]
        if len(recent) == 3 and max(recent) <= SMALLEST_NORM:
            self._warn(
                "no gradient",
                state,
                f"the gradient norm is {norm:g}; look at which weights have requires_grad, at detached embeddings and at "
                "masks that leave no negative",
            )
        usual = median(before) if len(before) >= WINDOW else math.inf
        if not math.isfinite(norm) or norm > EXPLOSION * max(usual, SMALLEST_NORM):
            self._warn(
                "exploding gradient",
                state,
                f"the gradient norm is {norm:g}, its median before {usual:g}; look at the learning rate, warm-up, "
                "max_grad_norm, the number format, and at the rows of this step",
            )

    def _probe(self, args: GVETrainingArguments, state: TrainerState, logs: Mapping[str, Any]) -> None:
        measured = {name.removeprefix("R/"): name for name in logs if name.startswith("R/")}
        if not measured:
            return
        alike = [
            task
            for task, name in measured.items()
            if logs[name] > COLLAPSED_R and logs[f"R_centred/{task}"] < COLLAPSED_CENTRED
        ]
        if len(alike) == len(measured):
            self._warn(
                "collapsed probe",
                state,
                f"R is above {COLLAPSED_R} on every task while R' is near 0: any target is as near as the right one; the "
                "probabilities of the pyramid mean nothing now; look at the embeddings, not at the schedule",
            )
        if state.epoch is None or state.epoch < PROBED_EPOCHS - 1:
            return
        bounds = {
            task: chance_accuracy(min(args.probe_pairs, self.rows.get(task, args.probe_pairs))) for task in measured
        }
        low = [task for task, bound in bounds.items() if logs[f"accuracy/{task}"] <= bound]
        if low:
            listed = ", ".join(f"{task} ({logs[f'accuracy/{task}']:.3f} of {bounds[task]:.3f})" for task in low)
            self._warn(
                "accuracy at chance",
                state,
                f"after {state.epoch:.0f} epochs the probe accuracy of {listed} is no better than chance; look at "
                "whether their pairs belong together, their instructions, and P of these tasks",
            )

    def _warn(self, sign: str, state: TrainerState, text: str) -> None:
        if sign not in self.warned:
            self.warned[sign] = text
            logger.warning("step %d: %s: %s", state.global_step, sign, text)


def chance_loss(args: GVETrainingArguments, task: str) -> float:
    """Equation 1 where all cosines are equal and nothing is masked: (log(B + K) + log B) / 2, B over all processes."""
    pairs = args.batch_size_of(task) * (args.world_size if args.gather_across_devices else 1)
    return 0.5 * (math.log(pairs + args.negatives_of(task) + args.has_reference(task)) + math.log(pairs))


def chance_accuracy(pairs: int) -> float:
    """What chance reaches among N probe pairs: 1 / N and two standard errors."""
    rate = 1 / pairs
    return rate + 2 * math.sqrt(rate * (1 - rate) / pairs)
