"""The settings of `gve train`: a recipe's values under the flags; unknown names refused with the nearest known one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.planning.estimates import SHARDING

RECIPES = Path(__file__).parent / "recipes"

_DRY_RUN_FLAGS = ("--dry-run", "--dry_run", "--dry-run=true", "--dry_run=true")


@dataclass
class TrainCommand:
    """What to train, on what; everything else is `GVETrainingArguments`.

    Args:
        recipe: A YAML file, or the name of one in `trainers/recipes`; the first word without a dash says the same.
        tasks: Tasks to train; all that the data set has if not given.
        prober: The embedder that the first epoch asks (section 3.3).
        freeze_vision: Whether vision tower and token embeddings keep their weights.
        num_processes: Processes that the recipe was written for; a run with another number is refused.
        uvrb: A folder or Hub name of a benchmark that is scored while training, whenever `eval_strategy` says.
        uvrb_rows: Queries and corpus rows of a set at most, for large sets; all if not given.
        shape: The architecture that a dry run reckons with where there is no model yet.
        sharding: What the processes share, for a dry run: nothing, or as zero2, zero3 and fsdp2 do.
        device_tflops: Peak of one device in the number format, for a dry run's estimate of time.
        utilisation: Share of that peak that is reached.
    """

    model: str | None = field(default=None, metadata={"help": "Folder or Hub name of a GVE embedder."})
    data: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of a UVRD data set, one config a task."}
    )
    recipe: str | None = field(default=None, metadata={"help": "YAML file, or name of one in trainers/recipes."})
    tasks: list[str] | None = field(default=None, metadata={"help": "Tasks to train; all if not given.", "nargs": "+"})
    prober: str | None = field(
        default=None, metadata={"help": "Embedder that the first epoch asks; uniform if not given (paper, 3.3)."}
    )
    dtype: str = field(
        default="float32", metadata={"help": "Number format of the weights.", "choices": ("float32", "bfloat16")}
    )
    attention: str | None = field(default=None, metadata={"help": "eager, sdpa or flash_attention_2."})
    lora_rank: int = field(default=0, metadata={"help": "r of the adapters (paper: 16); 0 trains all weights."})
    lora_alpha: int = field(default=32, metadata={"help": "alpha of the adapters (paper, A.8)."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout of the adapters (paper, A.8)."})
    freeze_vision: bool = field(
        default=False, metadata={"help": "Keep vision tower and token embeddings as they are (paper, A.8)."}
    )
    num_processes: int | None = field(
        default=None, metadata={"help": "Processes the recipe is written for; another number is refused."}
    )
    uvrb: str | None = field(
        default=None, metadata={"help": "UVRB folder scored while training, as eval_strategy says."}
    )
    uvrb_sets: list[str] | None = field(
        default=None, metadata={"help": "Sets of it, such as msrvtt crb-s; all if not given.", "nargs": "+"}
    )
    uvrb_split: str = field(default="unseen", metadata={"help": "Its split."})
    uvrb_rows: int | None = field(
        default=None, metadata={"help": "Queries and corpus rows of a set at most; all if not given."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Print mixture, steps, tokens, memory and schedule, and stop."}
    )
    json: bool = field(default=False, metadata={"help": "Print a dry run as JSON."})
    shape: str | None = field(
        default=None, metadata={"help": "Built-in shape or config folder for a dry run without a model."}
    )
    sharding: str = field(
        default="none", metadata={"help": "What processes share, for a dry run.", "choices": SHARDING}
    )
    device_tflops: float | None = field(
        default=None, metadata={"help": "Peak TFLOP/s of a device, for a dry run's step time."}
    )
    utilisation: float = field(default=0.35, metadata={"help": "Share of the peak that is reached."})


def parse(argv: Sequence[str]) -> tuple[TrainCommand, GVETrainingArguments]:
    """Read the flags; a recipe's values stand in for flags that are not given.

    Raises:
        ValueError: Where the recipe is not there, a setting is unknown, or model and data are missing.
    """
    argv = _with_recipe_flag(list(argv))
    parser = make_parser()
    known = {action.dest for action in parser._actions}
    recipe = _flag(argv, "--recipe")
    if recipe is not None:
        values = read_recipe(recipe)
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"recipe: got {_with_nearest(unknown, known)}; names of flags are accepted; see gve train --help for them"
            )
        parser.set_defaults(**values)
        for action in parser._actions:
            action.required = action.required and action.dest not in values
    if any(word.lower() in _DRY_RUN_FLAGS for word in argv):
        parser.set_defaults(use_cpu=True)  # a plan for other machines must not ask for their hardware here
    command, args, rest = parser.parse_args_into_dataclasses(
        argv, look_for_args_file=False, return_remaining_strings=True
    )
    if rest:
        flags = [word.lstrip("-").partition("=")[0] for word in rest if word.startswith("--")]
        raise ValueError(
            f"arguments: got {_with_nearest(flags, known) if flags else ' '.join(rest)}; a recipe first and then names of "
            "flags are accepted; see gve train --help for them"
        )
    _check(command)
    return command, args


def make_parser() -> HfArgumentParser:
    """The command's parser: every field of the two dataclasses is a flag, and no abbreviation is taken for one."""
    parser = HfArgumentParser(
        (TrainCommand, GVETrainingArguments),
        prog="gve train",
        usage="gve train [RECIPE] [--field value ...]",
        description="Train an embedder on UVRD pairs. RECIPE is a YAML file or one of "
        f"{', '.join(recipe_names())}; a flag stands above the recipe, the recipe above the defaults.",
        allow_abbrev=False,
    )
    for action in parser._actions:  # --output is the house's word for --output_dir
        if action.dest == "output_dir":
            action.option_strings.append("--output")
            parser._option_string_actions["--output"] = action
        elif action.dest == "num_negatives":
            action.type = str  # a number or JSON; the parser would take the first kind of the union, a dict
    return parser


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe."""
    path = next((path for path in (Path(name), RECIPES / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"recipe: got {name!r}; a YAML file or one of {', '.join(recipe_names())} is accepted; check the path"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(
            f"recipe: {name!r} is no YAML ({error}); a mapping of settings is accepted; correct it"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(
            f"recipe: {name!r} holds {type(values).__name__}; a mapping of settings is accepted; write `field: value`"
        )
    return values


def _check(command: TrainCommand) -> None:
    """What must stand in a command before anything is loaded."""
    if command.num_processes is not None and command.num_processes < 1:
        raise ValueError(f"num_processes: got {command.num_processes}; 1 or more is accepted; correct it")
    if not 0 < command.utilisation <= 1:
        raise ValueError(f"utilisation: got {command.utilisation}; above 0, at most 1 is accepted; 0.35 is usual")
    if command.dry_run:
        if command.model is None and command.shape is None:
            raise ValueError("model: got none; a dry run needs --model or --shape; name a folder or a built-in shape")
        return
    for name in ("model", "data"):
        if getattr(command, name) is None:
            raise ValueError(
                f"{name}: got none; a folder or Hub name is needed; add --{name}, or --dry-run to plan only"
            )


def _with_recipe_flag(argv: list[str]) -> list[str]:
    """The same flags with a recipe in first place as --recipe."""
    if not argv or argv[0].startswith("-"):
        return argv
    if _flag(argv, "--recipe") is not None:
        raise ValueError(f"recipe: got {argv[0]!r} and --recipe; one recipe is accepted; leave one of them out")
    return ["--recipe", *argv]


def _with_nearest(names: Iterable[str], known: Iterable[str]) -> str:
    """Unknown names, each with the known one that it may have been meant for."""
    choices = sorted(known)
    told = []
    for name in names:
        near = get_close_matches(name.replace("-", "_"), choices, n=1)
        told.append(f"{name} (nearest: {near[0]})" if near else name)
    return ", ".join(told)


def _flag(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag that must be known before the others are read."""
    for place, word in enumerate(argv):
        if word == name and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None
