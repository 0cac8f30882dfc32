"""Settings of a training run: those of transformers and sentence-transformers, and the paper's."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sentence_transformers import SentenceTransformerTrainingArguments

from gve.hub_datasets.schema import TASKS, task_of
from gve.trainers.contrast import Widths
from gve.trainers.curriculum.schedule import SCHEDULES, Schedule
from gve.trainers.media.feature_store import DTYPES
from gve.trainers.mining.settings import EXCLUSIONS, INDEXES, SAMPLES, MiningSettings


@dataclass
class GVETrainingArguments(SentenceTransformerTrainingArguments):
    """Settings of `GVETrainer`; every field is a flag of `gve train` and a key of a recipe.

    Defaults that differ from transformers' are the paper's (Appendix A.8, Table 9): `learning_rate` 3e-5,
    `weight_decay` 0.1, `lr_scheduler_type` cosine, `per_device_train_batch_size` 64. `logging_nan_inf_filter` is off,
    since it waits for the device at each step, and `remove_unused_columns` must be.

    Args:
        false_negative_margin: In cosine; whatever scores above the positive by more is no negative. None turns it off.
        gather_across_devices: Whether pairs of other processes serve as negatives (A.8).
        schedule: How tasks are drawn: one of `gve.trainers.curriculum.schedule.SCHEDULES` (section 3.3).
        probe_pairs: N_p, pairs of a task on which alignment is measured (section 3.3).
        task_priors: w_k by task, for P_t(k) proportional to w_k exp(R_k / sigma), or w_k times what another schedule
            weighs it; others have 1.
        task_starts: Share of the epochs before a task is drawn at all; others begin at once.
        unlock_margin: By how much R' or accuracy of a task must move to unlock it; only for the schedule `unlock`.
        steps_per_epoch: Optimizer steps of an epoch; None gives as many as the data holds full batches.
        task_batch_sizes: Rows of a process's batch by task (Table 7); others take `per_device_train_batch_size`.
        num_negatives: Hard negatives of a row, one number or one by task (Table 7).
        on_missing: What becomes of a row whose text, image or video is not there: "raise" names it, "skip" leaves it out.
        mined_negatives: Folder `mined-<version>` of `gve mine`, whose hard negatives stand in for those of the rows.
        remine_every_epoch: Whether hard negatives are mined anew as each epoch begins: by the prober in the first,
            unless `mined_negatives` gives them, by the live weights later (section 3.3).
        mine_corpus: A UVRD or UVRB whose targets may be negatives as well.
        mine_min_rank: First rank of the window that negatives are taken from.
        mine_ceiling: Highest score of a negative as a share of its positive's; None for no ceiling.
        mine_margin: Least distance between the scores of a negative and its positive; None for none.
        mine_exclude: Whose targets are left out beside true ones: those of the same `group`, `source`, or `none`.
        unique_targets: Whether every target is read once at the start, so that none is twice in a step.
        use_muon: Whether hidden matrices are trained with Muon instead of AdamW.
        master_weights: Whether bf16 parameters are stepped as fp32 copies; Muon implies it.
        cache_tokens: Tokens embedded at a time with cached gradients; None embeds a batch in one pass.
        share_media: Whether each distinct image and video of a batch is decoded and encoded by the vision tower once.
        matryoshka_weights: One a width, where the full width has 1; None gives each 1.
        max_length: Tokens of a row; None takes the processor's.
        resume_force: Whether to resume though data or settings differ from those that the run began with.
        decode_cache_mb: Decoded media that each worker keeps, in MiB; 0 decodes anew each time.
        vision_cache_dir: Where features of a frozen vision tower are kept from the first epoch on; None computes them
            each time. Runs share it.
        vision_cache_dtype: Type in which they are kept: float32 is exact, and so is bfloat16 for a bf16 tower.
        vision_cache_gb: Size of that folder at most, in GiB; what does not fit is computed each time.
        frame_cache_dir: Where the sampled frames of videos are kept, for a tower that is trained; None decodes each time.
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
    unlock_margin: float = field(
        default=0.05, metadata={"help": "Change of R' or accuracy that unlocks a task of the schedule unlock."}
    )
    steps_per_epoch: int | None = field(default=None, metadata={"help": "Optimizer steps of an epoch."})

    task_batch_sizes: dict[str, int] | str | None = field(
        default=None, metadata={"help": 'Rows of a process\'s batch by task (paper, Table 7), as {"t2i": 32}.'}
    )
    num_negatives: dict[str, int] | str | int = field(
        default=0, metadata={"help": 'Hard negatives of a row (paper, Table 7): a number, or {"t2v": 1}.'}
    )
    mined_negatives: str | None = field(
        default=None, metadata={"help": "Folder mined-<version> of gve mine, instead of the rows' own negatives."}
    )
    remine_every_epoch: bool = field(
        default=False, metadata={"help": "Mine hard negatives as each epoch begins (paper, section 3.3)."}
    )
    mine_corpus: str | None = field(
        default=None, metadata={"help": "UVRD or UVRB whose targets may be negatives too."}
    )
    mine_min_rank: int = field(default=1, metadata={"help": "First rank that negatives are taken from."})
    mine_max_rank: int = field(default=100, metadata={"help": "Last rank that negatives are taken from."})
    mine_ceiling: float | None = field(
        default=0.95, metadata={"help": "Highest score of a negative, as a share of its positive's."}
    )
    mine_margin: float | None = field(
        default=None, metadata={"help": "Least distance between a negative's score and its positive's."}
    )
    mine_sample: str = field(
        default="top", metadata={"help": "Which negatives of the ranks to take.", "choices": SAMPLES}
    )
    mine_exclude: str = field(
        default="none", metadata={"help": "Whose targets are no negatives beside true ones.", "choices": EXCLUSIONS}
    )
    mine_index: str = field(default="exact", metadata={"help": "How targets are searched.", "choices": INDEXES})
    on_missing: str = field(
        default="raise",
        metadata={"help": "What becomes of rows whose media are not there.", "choices": ("raise", "skip")},
    )
    unique_targets: bool = field(
        default=True, metadata={"help": "Read all targets at the start, so that none is twice in a step."}
    )

    use_muon: bool = field(default=False, metadata={"help": "Train hidden matrices with Muon."})
    muon_learning_rate: float = field(default=2e-2, metadata={"help": "Peak learning rate of Muon."})
    master_weights: bool = field(default=False, metadata={"help": "Step bf16 parameters as fp32 copies."})

    cache_tokens: int | None = field(
        default=None, metadata={"help": "Tokens embedded at a time, gradients cached; all at once if not given."}
    )
    share_media: bool = field(
        default=True, metadata={"help": "Decode and encode each distinct image and video of a batch once."}
    )
    matryoshka_dims: list[int] = field(
        default_factory=list, metadata={"help": "Narrower widths at which the loss is taken too."}
    )
    matryoshka_weights: list[float] | None = field(
        default=None,
        metadata={"help": "One a width of matryoshka_dims, where the full width has 1; each 1 by default."},
    )
    max_length: int | None = field(default=None, metadata={"help": "Tokens of a row; the processor's if not given."})
    decode_cache_mb: int = field(default=0, metadata={"help": "Decoded media that each worker keeps, in MiB."})
    vision_cache_dir: str | None = field(
        default=None, metadata={"help": "Folder of features of the frozen vision tower, computed once."}
    )
    vision_cache_dtype: str = field(
        default="float32", metadata={"help": "Type of these features on disk.", "choices": tuple(DTYPES)}
    )
    vision_cache_gb: float = field(default=64.0, metadata={"help": "Size of vision_cache_dir at most, in GiB."})
    frame_cache_dir: str | None = field(default=None, metadata={"help": "Folder of sampled frames, decoded once."})

    resume_force: bool = field(
        default=False, metadata={"help": "Resume though data or settings differ from those the run began with."}
    )

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
        self._validate_mining()

    def batch_size_of(self, task: str) -> int:
        """B of a task."""
        return self.task_batch_sizes.get(task, self.per_device_train_batch_size)

    def negatives_of(self, task: str) -> int:
        """K of a task."""
        return self.num_negatives if isinstance(self.num_negatives, int) else self.num_negatives.get(task, 0)

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
            starts=self.task_starts,
            unlock_margin=self.unlock_margin,
        )

    def mining_settings(self) -> MiningSettings:
        """How hard negatives are chosen in training, where each row gets as many as asked."""
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

    def _validate(self) -> None:
        _among("schedule", self.schedule, SCHEDULES)
        _among("vision_cache_dtype", self.vision_cache_dtype, DTYPES)
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
        ):
            _within(name, getattr(self, name), low, high)
        for name, low, high in (("false_negative_margin", 0.0, 2.0), ("steps_per_epoch", 1, 10**9)):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), low, high)
        Widths(self.matryoshka_dims, self.matryoshka_weights)  # refuses widths and weights that do not fit
        if self.cache_tokens is not None:
            _within("cache_tokens", self.cache_tokens, 1, 10**7)
            if self.deepspeed_plugin is not None:  # set by deepspeed=, and by accelerate launch too
                raise ValueError(
                    f"cache_tokens: got {self.cache_tokens} with deepspeed; accepted is None, because it sums the "
                    "gradients of one backward a step; use gradient checkpointing, or DDP with adapters"
                )
        if self.prompts:
            raise ValueError(
                "prompts: got a value; only None is accepted; write the instruction of each row in its `instruction`"
            )
        if self.on_missing not in ("raise", "skip"):
            raise ValueError(f"on_missing: got {self.on_missing!r}; raise and skip are accepted; choose one")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns: got True; only False is accepted; a row is read whole")


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
