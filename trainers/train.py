"""`gve train`: train an embedder on a UVRD folder."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
from sentence_transformers import SentenceTransformer
from transformers import HfArgumentParser

from gve import lora_config
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.uvrb import instructions
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.trainer import GVETrainer

RECIPES = Path(__file__).parent / "recipes"
logger = logging.getLogger(__name__)


@dataclass
class TrainCommand:
    """What to train, on what; everything else is `GVETrainingArguments`.

    Args:
        model: A folder or Hub name of a GVE embedder.
        data: A folder or Hub name of a UVRD data set.
        recipe: A YAML file, or the name of one in `trainers/recipes`.
        tasks: Tasks to train; all that the data set has if not given.
        prober: The embedder that the first epoch asks (section 3.3).
        dtype: Number format of the weights.
        attention: Attention of the model.
        lora_rank: r of the adapters; 0 trains all weights.
        lora_alpha: alpha of the adapters.
        lora_dropout: Dropout of the adapters.
        freeze_vision: Whether vision tower and token embeddings keep their weights.
    """

    model: str = field(metadata={"help": "Folder or Hub name of a GVE embedder."})
    data: str = field(metadata={"help": "Folder or Hub name of a UVRD data set, one config a task."})
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Flags; those of the process if None.

    Returns:
        0.
    """
    command, args = parse(sys.argv[1:] if argv is None else list(argv))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    model = load_model(command, seed=args.seed)
    prober = None if command.prober is None else SentenceTransformer(command.prober)
    trainer = GVETrainer(model, args, load_tasks(command.data, command.tasks), prober=prober)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    logger.info("saved %s", args.output_dir)
    return 0


def parse(argv: list[str]) -> tuple[TrainCommand, GVETrainingArguments]:
    """Read the flags; a recipe's values stand in for flags that are not given.

    Args:
        argv: Flags.

    Returns:
        The command and the settings of the run.

    Raises:
        ValueError: Where the recipe is not there or names an unknown setting.
    """
    parser = HfArgumentParser((TrainCommand, GVETrainingArguments), prog="gve train", description=__doc__)
    for action in parser._actions:  # --output is the house's word for --output_dir
        if action.dest == "output_dir":
            action.option_strings.append("--output")
            parser._option_string_actions["--output"] = action
    recipe = _flag(argv, "--recipe")
    if recipe is not None:
        values = read_recipe(recipe)
        known = {action.dest for action in parser._actions}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"recipe: got {', '.join(unknown)}; names of flags are accepted; see gve train --help for them"
            )
        parser.set_defaults(**values)
        for action in parser._actions:
            action.required = action.required and action.dest not in values
    command, args = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    return command, args


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe.

    Args:
        name: A YAML file, or the name of one in `trainers/recipes`.

    Returns:
        Values by flag.

    Raises:
        ValueError: Where there is no such recipe.
    """
    path = next((path for path in (Path(name), RECIPES / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        shipped = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise ValueError(f"recipe: got {name!r}; a YAML file or one of {shipped} is accepted; check the path")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load_tasks(data: str, tasks: Sequence[str] | None = None) -> DatasetDict:
    """The training sets of a UVRD folder or Hub data set.

    Args:
        data: Where it is.
        tasks: Which; all if None.

    Returns:
        Rows by task, in the order of `TASKS`.

    Raises:
        ValueError: Where a task is not there.
    """
    there = get_dataset_config_names(data)
    wanted = [task for task in TASKS if task in there] if not tasks else list(tasks)
    if missing := [task for task in wanted if task not in there] or ([] if wanted else list(TASKS)):
        raise ValueError(
            f"tasks: got {', '.join(missing)}; {data!r} has {', '.join(there)}; choose among those or build the others"
        )
    loaded: dict[str, Dataset] = {task: load_dataset(data, task, split="train") for task in wanted}
    return DatasetDict(loaded)


def load_model(command: TrainCommand, *, seed: int) -> SentenceTransformer:
    """The embedder, with adapters or frozen parts as the command says.

    Args:
        command: What to train.
        seed: Of the adapters' weights.

    Returns:
        The model.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, command.dtype)}
    if command.attention is not None:
        options["attn_implementation"] = command.attention
    model = SentenceTransformer(command.model, model_kwargs=options)
    model.prompts = instructions() | model.prompts  # what the model brings goes before
    inner = model[0].model
    if command.freeze_vision:
        inner.visual.requires_grad_(False)
        inner.get_input_embeddings().requires_grad_(False)
    if command.lora_rank:
        torch.manual_seed(seed)
        model.add_adapter(
            lora_config(inner, r=command.lora_rank, lora_alpha=command.lora_alpha, lora_dropout=command.lora_dropout)
        )
    return model


def _flag(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag that must be known before the others are read."""
    for place, word in enumerate(argv):
        if word == name and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


if __name__ == "__main__":
    sys.exit(main())
