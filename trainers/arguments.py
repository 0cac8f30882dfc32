"""Settings of a training run: those of transformers and sentence-transformers, and the paper's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sentence_transformers import SentenceTransformerTrainingArguments

from gve.hub_datasets.schema import TASKS, task_of
from gve.trainers.curriculum import SCHEDULES, Schedule


@dataclass
class GVETrainingArguments(SentenceTransformerTrainingArguments):
    """Settings of `GVETrainer`; every field is a flag of `gve train` and a key of a recipe.

    Defaults that differ from transformers' are the paper's (Appendix A.8, Table 9): `learning_rate` 3e-5,
    `weight_decay` 0.1, `lr_scheduler_type` cosine, `per_device_train_batch_size` 64. `logging_nan_inf_filter` is off,
    since it waits for the device at each step, and `remove_unused_columns` must be.

    Args:
        temperature: tau of the loss (equation 1).
        false_negative_margin: In cosine; whatever scores above the positive by more is no negative. None turns it off.
        gather_across_devices: Whether pairs of other processes serve as negatives (A.8).
        schedule: How tasks are drawn: one of `gve.trainers.curriculum.SCHEDULES` (section 3.3).
        sigma_min: sigma of the first epoch (section 3.3).
        sigma_max: sigma of the last epoch (section 3.3).
        probe_pairs: N_p, pairs of a task on which alignment is measured (section 3.3).
        probability_cap: Highest probability of a task.
        probability_floor: Lowest probability of a task.
        task_priors: w_k by task, for P_t(k) proportional to w_k exp(R_k / sigma); others have 1.
        task_starts: Share of the epochs before a task is drawn at all; others begin at once.
        steps_per_epoch: Optimizer steps of an epoch; None gives as many as the data holds full batches.
        task_batch_sizes: Rows of a process's batch by task (Table 7); others take `per_device_train_batch_size`.
        num_negatives: Hard negatives of a row, one number or one by task (Table 7).
        unique_targets: Whether every target is read once at the start, so that none is twice in a step.
        use_muon: Whether hidden matrices are trained with Muon instead of AdamW.
        muon_learning_rate: Of Muon.
        master_weights: Whether bf16 parameters are stepped as fp32 copies; Muon implies it.
        max_length: Tokens of a row; None takes the processor's.
        decode_cache_mb: Decoded media that each worker keeps, in MiB; 0 decodes anew each time.
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012 - a list in the parent, which reads JSON from the command line by it
        *SentenceTransformerTrainingArguments._VALID_DICT_FIELDS,
        "task_batch_sizes",
        "task_priors",
        "task_starts",
        "num_negatives",
    ]

    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate of AdamW (paper, Table 9)."})
    weight_decay: float = field(default=0.1, metadata={"help": "Decoupled weight decay (paper, Table 9)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Shape of the learning rate (paper, Table 9)."})
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Rows of a process's batch, where task_batch_sizes says nothing."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: a row is read whole."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Batches are always full."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Off: it waits for the device each step."})

    temperature: float = field(default=0.03, metadata={"help": "tau of the loss (paper, equation 1)."})
    false_negative_margin: float | None = field(
        default=0.1,
        metadata={"help": "What scores above the positive by more than this cosine is no negative (paper, A.8)."},
    )
    gather_across_devices: bool = field(
        default=False, metadata={"help": "Use the pairs of other processes as negatives (paper, A.8)."}
    )

    schedule: str = field(
        default="pyramid",
        metadata={"help": "How tasks are drawn (paper, section 3.3).", "choices": SCHEDULES},
    )
    sigma_min: float = field(default=0.1, metadata={"help": "sigma of the first epoch (paper, section 3.3)."})
    sigma_max: float = field(default=1.0, metadata={"help": "sigma of the last epoch (paper, section 3.3)."})
    probe_pairs: int = field(default=64, metadata={"help": "N_p, pairs of a task to probe (paper, section 3.3)."})
    probability_cap: float = field(default=1.0, metadata={"help": "Highest probability of a task."})
    probability_floor: float = field(default=0.0, metadata={"help": "Lowest probability of a task."})
    task_priors: dict[str, float] | str | None = field(
        default=None, metadata={"help": 'Prior w_k of a task\'s probability, as {"t2v": 2.0}; others have 1.'}
    )
    task_starts: dict[str, float] | str | None = field(
        default=None, metadata={"help": 'Share of the epochs before a task is drawn, as {"t2v": 0.5}; others 0.'}
    )
    steps_per_epoch: int | None = field(default=None, metadata={"help": "Optimizer steps of an epoch."})

    task_batch_sizes: dict[str, int] | str | None = field(
        default=None, metadata={"help": 'Rows of a process\'s batch by task (paper, Table 7), as {"t2i": 32}.'}
    )
    num_negatives: dict[str, int] | str | int = field(
        default=0, metadata={"help": 'Hard negatives of a row (paper, Table 7): a number, or {"t2v": 1}.'}
    )
    unique_targets: bool = field(
        default=True, metadata={"help": "Read all targets at the start, so that none is twice in a step."}
    )

    use_muon: bool = field(default=False, metadata={"help": "Train hidden matrices with Muon."})
    muon_learning_rate: float = field(default=2e-2, metadata={"help": "Peak learning rate of Muon."})
    master_weights: bool = field(default=False, metadata={"help": "Step bf16 parameters as fp32 copies."})

    max_length: int | None = field(default=None, metadata={"help": "Tokens of a row; the processor's if not given."})
    decode_cache_mb: int = field(default=0, metadata={"help": "Decoded media that each worker keeps, in MiB."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.task_batch_sizes = _task_numbers("task_batch_sizes", self.task_batch_sizes or {}, least=1)
        self.task_priors = _task_numbers("task_priors", self.task_priors or {}, least=0.0)
        self.task_starts = _task_numbers("task_starts", self.task_starts or {}, least=0.0)
        if isinstance(self.num_negatives, str) and self.num_negatives.isdigit():
            self.num_negatives = int(self.num_negatives)
        if isinstance(self.num_negatives, int):
            _within("num_negatives", self.num_negatives, 0, 64)
        else:
            self.num_negatives = _task_numbers("num_negatives", self.num_negatives or {}, least=0)
        self._validate()

    def batch_size_of(self, task: str) -> int:
        """B of a task.

        Args:
            task: Its name.

        Returns:
            Rows of a process's batch.
        """
        return self.task_batch_sizes.get(task, self.per_device_train_batch_size)

    def negatives_of(self, task: str) -> int:
        """K of a task.

        Args:
            task: Its name.

        Returns:
            Hard negatives of a row; 0 where a mapping does not name the task.
        """
        return self.num_negatives if isinstance(self.num_negatives, int) else self.num_negatives.get(task, 0)

    def curriculum(self, num_epochs: int) -> Schedule:
        """The schedule of tasks.

        Args:
            num_epochs: Epochs of the run.

        Returns:
            A schedule with these settings.
        """
        return Schedule(
            self.schedule,
            num_epochs=num_epochs,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            cap=self.probability_cap,
            floor=self.probability_floor,
            priors=self.task_priors,
            starts=self.task_starts,
        )

    def _validate(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule: got {self.schedule!r}; {', '.join(SCHEDULES)} are accepted; choose one")
        for name, low, high in (
            ("temperature", 1e-4, 10.0),
            ("sigma_min", 1e-3, 1e3),
            ("sigma_max", self.sigma_min, 1e3),
            ("probe_pairs", 2, 10**6),
            ("probability_cap", 0.0, 1.0),
            ("probability_floor", 0.0, self.probability_cap),
            ("muon_learning_rate", 0.0, 10.0),
            ("decode_cache_mb", 0, 10**7),
        ):
            _within(name, getattr(self, name), low, high)
        for name, low, high in (("false_negative_margin", 0.0, 2.0), ("steps_per_epoch", 1, 10**9)):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), low, high)
        if self.prompts:
            raise ValueError(
                "prompts: got a value; only None is accepted; write the instruction of each row in its `instruction`"
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns: got True; only False is accepted; a row is read whole")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: got {value}; {low:g} to {high:g} is accepted; choose a value between")


def _task_numbers(name: str, value: Any, least: float) -> dict[str, Any]:
    """A mapping from task to number, from a dict or its JSON; integers where the least one is an integer."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f'{name}: got {value!r}; JSON such as {{"t2i": 32}} is accepted; quote it') from error
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: got {value!r}; a mapping from task to number is accepted; write {{'t2i': 32}}")
    _known_tasks(name, value)
    if bad := {
        task: number for task, number in value.items() if not isinstance(number, type(least) | int) or number < least
    }:
        raise ValueError(f"{name}: got {bad}; numbers of at least {least} are accepted; correct these tasks")
    return dict(value)


def _known_tasks(name: str, tasks: Sequence[str] | Mapping[str, Any]) -> None:
    if unknown := [task for task in tasks if task_of(task) is None]:
        raise ValueError(
            f"{name}: got {', '.join(unknown)}; {', '.join(TASKS)}, or one of them with a "
            "suffix such as t2v-spatial, are accepted; correct the task name"
        )
