"""Settings of a training run: the paper's, on top of transformers' and sentence-transformers'."""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field`

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformerTrainingArguments

from gve.hub_datasets.files import read_json
from gve.hub_datasets.schema import TASKS, task_of
from gve.trainers.contrast import Widths
from gve.trainers.curriculum.schedule import SCHEDULES, Schedule
from gve.trainers.media.feature_store import DTYPES
from gve.trainers.mining.settings import EXCLUSIONS, INDEXES, SAMPLES, MiningSettings


def setting(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with its help, which is all the documentation that it has; `list` makes a new list each."""
    metadata = {"help": text, **metadata}
    return (
        field(default_factory=list, metadata=metadata)
        if default is list
        else field(default=default, metadata=metadata)
    )


@dataclass
class GVETrainingArguments(SentenceTransformerTrainingArguments):
    """Settings of `GVETrainer`; every field is a flag of `gve train` and a key of a recipe.

    Defaults that differ from transformers' are the paper's (Appendix A.8, Table 9). `gve.trainers.recipe` groups the
    fields for `gve train --help`.
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012 - a list in the parent, which reads JSON from the command line by it
        *SentenceTransformerTrainingArguments._VALID_DICT_FIELDS,
        "task_batch_sizes",
        "task_priors",
        "num_negatives",
    ]

    learning_rate: float = setting(3e-5, "Peak learning rate of AdamW (paper, Table 9).")
    weight_decay: float = setting(0.1, "Decoupled weight decay (paper, Table 9).")
    lr_scheduler_type: str = setting("cosine", "Shape of the learning rate (paper, Table 9).")
    per_device_train_batch_size: int = setting(
        64, "Rows of a process's batch, unless task_batch_sizes names the task."
    )
    remove_unused_columns: bool = setting(False, "Must stay off: a row is read whole.")
    dataloader_drop_last: bool = setting(True, "Batches are always full.")
    logging_nan_inf_filter: bool = setting(False, "Off: it waits for the device at each step.")

    temperature: float = setting(0.03, "tau of the loss (paper, equation 1).")
    false_negative_margin: float | None = setting(
        0.1,
        "A target whose cosine exceeds the positive's by more than this is no negative (paper, A.8); null: no limit.",
    )
    gather_across_devices: bool = setting(False, "Use the pairs of other processes as negatives (paper, A.8).")
    matryoshka_dims: list[int] = setting(list, "Narrower widths at which the loss is taken too.")
    matryoshka_weights: list[float] | None = setting(
        None, "Weight of each width of matryoshka_dims, where the full width has 1; 1 each by default."
    )

    schedule: str = setting("pyramid", "How tasks are drawn (paper, section 3.3).", choices=SCHEDULES)
    sigma_min: float = setting(0.1, "sigma of the first epoch (paper, section 3.3).")
    sigma_max: float = setting(1.0, "sigma of the last epoch (paper, section 3.3).")
    probe_pairs: int = setting(64, "N_p, pairs of a task on which alignment is measured (paper, section 3.3).")
    probe_held_out: bool = setting(False, "Never train on the probe's pairs.")
    probability_cap: float = setting(1.0, "Highest probability of a task.")
    probability_floor: float = setting(0.0, "Lowest probability of a task.")
    task_priors: dict[str, float] | str | None = setting(
        None, 'Factor w_k on a task\'s weight in any schedule, as {"t2v": 2.0}; 1 for tasks not named.'
    )
    unlock_margin: float = setting(0.05, "Change of R' or accuracy that unlocks a task of the schedule unlock.")
    transfer: str | None = setting(None, "File of gve ablate, for dependency.")
    steps_per_epoch: int | None = setting(
        None, "Optimizer steps of an epoch; by default as many as the data holds full batches."
    )

    task_batch_sizes: dict[str, int] | str | None = setting(
        None, 'Rows of a process\'s batch by task (paper, Table 7), as {"t2i": 32}.'
    )
    unique_targets: bool = setting(True, "Read all targets at the start, so that no step holds one twice.")
    on_missing: str = setting("raise", "Refuse rows whose media are missing, or skip them.", choices=("raise", "skip"))
    max_length: int | None = setting(None, "Tokens of a row; by default the processor's limit.")

    num_negatives: dict[str, int] | str | int = setting(
        0, 'Hard negatives of a row (paper, Table 7): a number, or {"t2v": 1}.'
    )
    reference_negatives: list[str] = setting(
        list, "Tasks in which what a query shows, without its words, is one more hard negative of it, such as v2v."
    )
    mined_negatives: str | None = setting(
        None, "Folder mined-<version> of gve mine, whose negatives replace the rows' own."
    )
    remine_every_epoch: bool = setting(
        False,
        "Mine anew at the start of each epoch, by the prober in the first and the live weights later (section 3.3).",
    )
    mine_corpus: str | None = setting(None, "UVRD or UVRB whose targets may be negatives too.")
    mine_min_rank: int = setting(1, "First rank to take.")
    mine_max_rank: int = setting(100, "Last rank to take.")
    mine_ceiling: float | None = setting(0.95, "Highest score, as a share of the positive's; null: no limit.")
    mine_margin: float | None = setting(None, "Least cosine between a negative's score and its positive's.")
    mine_sample: str = setting("top", "Take the first of the ranks, or random ones.", choices=SAMPLES)
    mine_exclude: str = setting(
        "none", "Also leave out targets of the row's group, or of its raw video (source).", choices=EXCLUSIONS
    )
    mine_index: str = setting("exact", "How targets are searched.", choices=INDEXES)

    use_muon: bool = setting(False, "Train hidden matrices with Muon instead of AdamW.")
    muon_learning_rate: float = setting(2e-2, "Peak learning rate of Muon.")
    master_weights: bool = setting(False, "Step bf16 parameters as fp32 copies; Muon always does.")

    cache_tokens: int | None = setting(
        None, "Tokens embedded at a time, with cached gradients (GradCache); by default a batch in one pass."
    )
    activation_checkpointing: bool | None = setting(  # declared here until transformers 5.23 is the oldest
        None, "Compute activations again in the backward pass instead of keeping them."
    )
    compile_layers: bool = setting(
        False, "Compile each layer at the first step, with dynamic shapes; pays on a device after some minutes."
    )
    share_media: bool = setting(True, "Decode and encode each distinct image and video of a batch once.")
    decode_cache_mb: int = setting(0, "MiB of decoded media that each worker keeps.")
    vision_cache_dir: str | None = setting(
        None,
        "Folder for the features of a frozen vision tower, made once; exact to the bit on a CPU, within the "
        "precision on a GPU.",
    )
    vision_cache_dtype: str = setting("auto", "Type on disk; auto loses nothing.", choices=("auto", *DTYPES))
    vision_cache_gb: float = setting(64.0, "GiB of that folder at most; what does not fit is computed each time.")
    frame_cache_dir: str | None = setting(
        None, "Folder for the sampled frames of videos, decoded once; for a tower that is trained."
    )

    resume_from_checkpoint: str | None = setting(None, "Checkpoint folder to continue from.")
    resume_force: bool = setting(False, "Resume although data or settings differ from the checkpoint's.")

    def __post_init__(self) -> None:
        if self.activation_checkpointing:
            self.gradient_checkpointing = True  # its name before transformers 5.23
        super().__post_init__()
        self.task_batch_sizes = _task_numbers("task_batch_sizes", self.task_batch_sizes or {}, least=1)
        self.task_priors = _task_numbers("task_priors", self.task_priors or {}, least=0.0)
        if isinstance(self.num_negatives, str) and self.num_negatives.isdigit():
            self.num_negatives = int(self.num_negatives)
        if isinstance(self.num_negatives, int):
            _within("num_negatives", self.num_negatives, 0, 64)
        else:
            self.num_negatives = _task_numbers("num_negatives", self.num_negatives or {}, least=0)
        self._validate()
        self._validate_mining()
        self._validate_references()

    def batch_size_of(self, task: str) -> int:
        """B of a task."""
        return self.task_batch_sizes.get(task, self.per_device_train_batch_size)

    def negatives_of(self, task: str) -> int:
        """K of a task."""
        return self.num_negatives if isinstance(self.num_negatives, int) else self.num_negatives.get(task, 0)

    def has_reference(self, task: str) -> bool:
        """Whether what a task's query shows is a hard negative of it, beside those of `negatives_of`."""
        return task_of(task) in self.reference_negatives

    def curriculum(self, num_epochs: int) -> Schedule:
        """The schedule of tasks."""
        return Schedule(
            self.schedule,
            num_epochs=num_epochs,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            cap=self.probability_cap,
            floor=self.probability_floor,
            priors=self.task_priors,
            unlock_margin=self.unlock_margin,
            transfer={} if self.transfer is None else read_transfer(Path(self.transfer)),
        )

    def mining_settings(self) -> MiningSettings:
        """How hard negatives are chosen in training, where each row needs its full number."""
        names = ("min_rank", "max_rank", "ceiling", "margin", "sample", "exclude", "index")
        chosen = {name: getattr(self, f"mine_{name}") for name in names}
        return MiningSettings(**chosen, short="fill", seed=self.seed)

    def _validate_mining(self) -> None:
        self.mining_settings()
        if self.remine_every_epoch and not self.num_negatives:
            raise ValueError(
                "remine_every_epoch: got True with num_negatives 0; at least one task with 1 or more is needed; set it"
            )
        if self.mine_corpus is not None and not self.remine_every_epoch and self.mined_negatives is None:
            raise ValueError(
                "mine_corpus: got a corpus that nothing is mined from; it is accepted with remine_every_epoch or "
                "mined_negatives; turn one on"
            )

    def _validate_references(self) -> None:
        showing = [task for task in TASKS if task.split("2")[0] != "t"]
        if unknown := [task for task in self.reference_negatives if task not in showing]:
            raise ValueError(
                f"reference_negatives: got {', '.join(unknown)}; tasks whose queries show an image or a video are accepted "
                f"({', '.join(showing)}); leave it out"
            )
        if self.reference_negatives and self.false_negative_margin is not None:
            raise ValueError(
                f"reference_negatives: got {', '.join(self.reference_negatives)} with false_negative_margin "
                f"{self.false_negative_margin}, which would leave out just these, since a query is nearest to what it "
                "shows; only None is accepted beside it; set false_negative_margin to null"
            )

    def _validate(self) -> None:
        _among("schedule", self.schedule, SCHEDULES)
        _among("vision_cache_dtype", self.vision_cache_dtype, ("auto", *DTYPES))
        _among("on_missing", self.on_missing, ("raise", "skip"))
        self.curriculum(1)  # refuses bounds that the schedule cannot live with
        for name, low, high in (
            ("temperature", 1e-4, 10.0),
            ("sigma_min", 1e-3, 1e3),
            ("sigma_max", self.sigma_min, 1e3),
            ("probe_pairs", 2, 10**6),
            ("probability_cap", 0.0, 1.0),
            ("probability_floor", 0.0, self.probability_cap),
            ("unlock_margin", 1e-6, 2.0),
            ("muon_learning_rate", 0.0, 10.0),
            ("decode_cache_mb", 0, 10**7),
            ("vision_cache_gb", 1e-6, 10**6),
            ("false_negative_margin", 0.0, 2.0),
            ("steps_per_epoch", 1, 10**9),
            ("cache_tokens", 1, 10**7),
        ):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), low, high)
        Widths(self.matryoshka_dims, self.matryoshka_weights)  # refuses widths and weights that do not fit
        if self.cache_tokens is not None and self.deepspeed_plugin is not None:  # accelerate launch sets it too
            raise ValueError(
                f"cache_tokens: got {self.cache_tokens} with deepspeed, which sums the gradients of one backward a step; "
                "only None is accepted; use gradient checkpointing, or DDP with adapters"
            )
        if self.compile_layers and self.torch_compile:
            raise ValueError(
                "compile_layers: got True with torch_compile, which compiles the whole model; one of them is accepted; drop "
                "torch_compile"
            )
        if self.prompts:
            raise ValueError(
                "prompts: got a value; only None is accepted; write the instruction of each row in its `instruction`"
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns: got True; only False is accepted; a row is read whole")


def read_transfer(path: Path) -> dict[str, dict[str, float]]:
    """The share of a task's headroom that the measured steps of another closed, by the task trained and the one probed."""
    try:
        found = read_json(path)
        tasks, left = found["tasks"], [max(1 - before, 0.02) for before in found["before"]]
        return {
            task: {other: gain / room for other, gain, room in zip(tasks, gains, left, strict=True)}
            for task, gains in zip(tasks, found["mean"], strict=True)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"transfer: cannot read {str(path)!r} ({type(error).__name__}); the transfer.json that gve ablate --transfer "
            "writes is accepted; check the path"
        ) from error


def _among(name: str, value: str, accepted: Iterable[str]) -> None:
    if value not in accepted:
        raise ValueError(f"{name}: got {value!r}; {', '.join(accepted)} are accepted; choose one")


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
    if unknown := [task for task in value if task_of(task) is None]:
        raise ValueError(
            f"{name}: got {', '.join(unknown)}; {', '.join(TASKS)}, or one of them with a suffix such as t2v-spatial, "
            "are accepted; correct the task name"
        )
    if bad := {
        task: number for task, number in value.items() if not isinstance(number, type(least) | int) or number < least
    }:
        raise ValueError(f"{name}: got {bad}; numbers of at least {least} are accepted; correct these tasks")
    return dict(value)
