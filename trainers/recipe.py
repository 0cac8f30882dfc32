"""The settings of `gve train`: a recipe's values under the flags, grouped for the help; unknown names are refused."""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field`

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from gve.trainers.arguments import GVETrainingArguments, setting
from gve.trainers.planning.estimates import SHARDING

RECIPES = Path(__file__).parent / "recipes"
logger = logging.getLogger(__name__)

_DRY_RUN_FLAGS = ("--dry-run", "--dry_run", "--dry-run=true", "--dry_run=true")

GROUPS = {
    "model and data": "recipe model data tasks prober dtype attention freeze_vision lora_rank lora_alpha lora_dropout "
    "max_length unique_targets on_missing",
    "run": "output_dir num_train_epochs steps_per_epoch per_device_train_batch_size task_batch_sizes num_processes "
    "resume_from_checkpoint resume_force",
    "loss": "temperature false_negative_margin gather_across_devices matryoshka_dims matryoshka_weights",
    "curriculum": "schedule sigma_min sigma_max probe_pairs probe_held_out probability_cap probability_floor task_priors "
    "unlock_margin transfer",
    "hard negatives": "num_negatives reference_negatives mined_negatives remine_every_epoch mine_corpus mine_min_rank mine_max_rank "
    "mine_ceiling mine_margin mine_sample mine_exclude mine_index",
    "optimizer": "learning_rate weight_decay lr_scheduler_type use_muon muon_learning_rate master_weights",
    "memory and speed": "cache_tokens compile_layers share_media decode_cache_mb vision_cache_dir vision_cache_dtype "
    "vision_cache_gb frame_cache_dir",
    "benchmark while training": "uvrb uvrb_sets uvrb_rows",
    "dry run": "dry_run shape sharding device_tflops",
}
"""What `--help` shows, by heading; `--help-all` adds the other settings of transformers and sentence-transformers."""

SECTIONS = {
    "lora": "lora_",
    "matryoshka": "matryoshka_",
    "mining": "mine_",
    "vision_cache": "vision_cache_",
    "frame_cache": "frame_cache_",
}
"""Nested parts of a recipe, each with the prefix of its flags: `lora: {rank: 16}` is `--lora_rank 16`."""


@dataclass
class TrainCommand:
    """What to train, on what; everything else is `GVETrainingArguments`."""

    model: str | None = setting(None, "Folder or Hub name of a GVE embedder.")
    data: str | None = setting(None, "Folder or Hub name of a UVRD data set, one config a task.")
    recipe: str | None = setting(None, "YAML file, or name of one in trainers/recipes; same as the first argument.")
    tasks: list[str] | None = setting(None, "Tasks to train; all by default.", nargs="+")
    prober: str | None = setting(
        None, "Model that scores alignment in the first epoch, which is uniform without one (paper, 3.3)."
    )
    dtype: str = setting("float32", "Number format of the weights.", choices=("float32", "bfloat16"))
    attention: str | None = setting(None, "eager, sdpa or flash_attention_2.")
    lora_rank: int = setting(0, "r of the adapters (paper: 16); 0 trains all weights.")
    lora_alpha: int = setting(32, "alpha of the adapters (paper, A.8).")
    lora_dropout: float = setting(0.1, "Dropout of the adapters (paper, A.8).")
    freeze_vision: bool = setting(False, "Keep vision tower and token embeddings as they are (paper, A.8).")
    num_processes: int | None = setting(
        None, "Processes the recipe is written for; with another number the run stops, since its batch would change."
    )
    uvrb: str | None = setting(None, "Folder or Hub name of a UVRB, scored at every evaluation (eval_strategy).")
    uvrb_sets: list[str] | None = setting(None, "Its sets, such as msrvtt crb-s; all by default.", nargs="+")
    uvrb_rows: int | None = setting(None, "Queries and corpus rows of a set at most; all by default.")
    dry_run: bool = setting(False, "Print mixture, steps, tokens, memory and schedule, and stop.")
    shape: str | None = setting(None, "Built-in shape or config folder, for a dry run without a model.")
    sharding: str = setting("none", "What the processes share, for a dry run.", choices=SHARDING)
    device_tflops: float | None = setting(None, "Peak TFLOP/s of a device, for a dry run's step time.")


def parse(argv: Sequence[str]) -> tuple[TrainCommand, GVETrainingArguments]:
    """Read a recipe as the first word and flags, which override it."""
    argv = _with_recipe_flag(list(argv))
    parser = make_parser()
    known = {action.dest for action in parser._actions}
    recipe = _flag(argv, "--recipe")
    if recipe is not None:
        values = read_recipe(recipe, known)
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


def make_parser(*, every: bool = False) -> HfArgumentParser:
    """The parser: every field of the two dataclasses is a flag, never abbreviated; `every` shows all in the help."""
    parser = HfArgumentParser(
        (TrainCommand, GVETrainingArguments),
        prog="gve train",
        usage="gve train [RECIPE] [--field value ...]",
        description="Train an embedder on UVRD pairs. RECIPE is a YAML file or one of "
        f"{', '.join(recipe_names())}. Flags override the recipe.",
        allow_abbrev=False,
        formatter_class=_OneName,
    )
    parser.add_argument("--help-all", action=_HelpAll, help="also show the settings of transformers and exit")
    actions = {action.dest: action for action in reversed(parser._actions)}  # of --x and --no_x the first
    actions["num_negatives"].type = str  # a number or JSON; the parser would take the first kind of the union, a dict
    _add_name(parser, actions["output_dir"], "--output")
    for section, prefix in SECTIONS.items():
        for name, action in actions.items():
            if name.startswith(prefix):
                _add_name(parser, action, f"--{section}.{name.removeprefix(prefix)}")
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        group._group_actions = [actions.pop(name) for name in names.split()]
    grouped = {id(action) for group in parser._action_groups[2:] for action in group._group_actions}
    others = [action for action in parser._optionals._group_actions if id(action) not in grouped]
    parser._optionals._group_actions = others
    for action in others:
        if not every and action.dest not in ("help", "==SUPPRESS=="):
            action.help = argparse.SUPPRESS
    return parser


class _OneName(argparse.HelpFormatter):
    """Each flag under one of its names, with its default where it has one."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        first, *others = action.option_strings
        name = others[-1] if others and ("." in others[-1] or others[-1] in ("--help", "--output")) else first
        if action.nargs == 0:
            return name
        return f"{name} {self._format_args(action, 'X')}"

    def _get_help_string(self, action: argparse.Action) -> str:
        plain = action.default in (None, False, [], argparse.SUPPRESS)
        return action.help if plain else f"{action.help} (%(default)s)"


class _HelpAll(argparse.Action):
    """`--help-all`, which leaves nothing in the namespace."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        make_parser(every=True).print_help()
        parser.exit()


def _add_name(parser: HfArgumentParser, action: argparse.Action, name: str) -> None:
    action.option_strings.append(name)
    parser._option_string_actions[name] = action


def recipe_names(folder: str = "") -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in (RECIPES / folder).glob("*.yaml"))


def read_recipe(name: str, known: Iterable[str] | None = None, *, folder: str = "") -> dict[str, Any]:
    """The values of a recipe by flag.

    Args:
        name: A YAML file, or the name of one in `trainers/recipes`.
        known: All flags; None accepts any.
        folder: The folder of `trainers/recipes` with the recipes of another command.
    """
    path = next((path for path in (Path(name), RECIPES / folder / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        names = ", ".join(recipe_names(folder))
        raise ValueError(f"recipe: got {name!r}; a YAML file or one of {names} is accepted; check the path")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(
            f"recipe: {name!r} is not YAML ({error}); a mapping of settings is accepted; correct it"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(
            f"recipe: {name!r} holds {type(values).__name__}; a mapping of settings is accepted; write `field: value`"
        )
    if old := [key for key in values if any(key.startswith(prefix) for prefix in SECTIONS.values())]:
        logger.warning(
            "recipe %s: %s: these names go in the next version; nest them, as lora: {rank: 16}", name, ", ".join(old)
        )
    flat = dict(_flatten(values))
    if known is not None and (unknown := [key for key in flat if key not in known]):
        raise ValueError(
            f"recipe: got {_with_nearest(unknown, known)}; names of flags are accepted; see gve train --help for them"
        )
    return flat


def _flatten(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in SECTIONS and isinstance(value, Mapping):
            yield from ((f"{SECTIONS[key]}{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _check(command: TrainCommand) -> None:
    """What must stand in a command before anything is loaded."""
    if command.num_processes is not None and command.num_processes < 1:
        raise ValueError(f"num_processes: got {command.num_processes}; 1 or more is accepted; correct it")
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
    nearest = {name: get_close_matches(name.replace("-", "_"), choices, n=1) for name in names}
    return ", ".join(f"{name} (nearest: {near[0]})" if near else name for name, near in nearest.items())


def _flag(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag that must be known before the others are read."""
    for place, word in enumerate(argv):
        if word == name and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None
