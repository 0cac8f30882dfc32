"""Writes the card of a model folder, and the command `gve card`."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from gve.eval.console import fail, run_command
from gve.eval.files import write_atomic
from gve.eval.report import to_markdown
from gve.model_cards import render
from gve.model_cards.demo import DemoFacts, read_demo
from gve.model_cards.energy import emissions, energy_of
from gve.model_cards.facts import read_model
from gve.model_cards.plan_card import read_plan, render_plan_card
from gve.model_cards.results import checked_report, eval_results, read_report
from gve.model_cards.training import TrainingFacts, read_training

TAGS = ["sentence-transformers", "feature-extraction", "video-retrieval", "multimodal", "gve"]
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class CardOptions:
    """What no file of a model folder tells.

    Attributes:
        name: Repository or folder that users load; the folder's name if None.
        license: Identifier of the weights' licence.
        base_model: Model that training began with, or whose weights these are; that of the training's record if None.
        training: Folder that training wrote; the model's own if None.
        watts: Mean power of a device while it trained; None where it was not metered.
        grams_per_kwh: Carbon intensity of the grid.
        draft: Whether a card is made although facts are missing; it names them.
    """

    name: str | None = None
    license: str | None = None
    base_model: str | None = None
    training: str | PathLike[str] | None = None
    watts: float | None = None
    grams_per_kwh: float | None = None
    draft: bool = False


def render_model_card(
    model_folder: str | PathLike[str],
    report: Mapping[str, Any] | None = None,
    *,
    options: CardOptions | None = None,
    demo: DemoFacts | None = None,
) -> str:
    """The card of a model: metadata with a model-index, facts, use, training, results, limits.

    Args:
        model_folder: Written by `save_embedder` or training.
        report: What `gve eval` wrote, or None for a model that was not scored.
        options: What the folder does not tell.
        demo: The demo that the model is the result of.

    Returns:
        Markdown with a YAML head; equal input gives equal text.

    Raises:
        ValueError: If the folder is not complete, the report is of other weights or of another kind, or facts are
            missing and it is to be no draft.
    """
    options = options or CardOptions()
    name = options.name or Path(model_folder).resolve().name
    model = read_model(model_folder)
    training = read_training(model_folder if options.training is None else options.training)
    missing = missing_facts(training, options)
    if missing and not options.draft:
        fail(
            f"card: lacks {'; '.join(missing)}; a card that states them is accepted; give them, or write a draft that "
            "names them (--draft)"
        )
    scored = None if report is None else checked_report(model_folder, report, name)
    energy = energy_of(training, options.watts, options.grams_per_kwh)
    base_model = options.base_model or (training.record["base_model"] if training and training.record else None)
    data = ModelCardData(
        license=options.license,
        base_model=base_model if base_model and _HUB_NAME.fullmatch(base_model) else None,
        datasets=_hub_names(training),
        library_name="sentence-transformers",
        pipeline_tag="feature-extraction",
        tags=TAGS,
        model_name=name,
        eval_results=eval_results(scored) if scored else None,
        co2_eq_emissions=emissions(energy, training),
    )
    entries = scored["sets"] if scored else {}
    text = render(
        "model_card.md.jinja",
        name=name,
        model=model,
        training=training,
        demo=demo,
        energy=energy,
        base_model=base_model,
        results=to_markdown(scored).strip() if scored else None,
        at_chance=[one for one, entry in entries.items() if not entry["above_chance"]],
        missing=missing,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")).strip() + "\n"


def missing_facts(training: TrainingFacts | None, options: CardOptions) -> list[str]:
    """What a card must tell and neither folder nor options do.

    Args:
        training: What training left.
        options: What was given.

    Returns:
        Each with what would give it.
    """
    missing = [] if options.license else ["the licence (--license)"]
    if training is not None:
        return missing + training.missing()
    if options.base_model is None:
        missing.append(
            "where the weights come from (--training FOLDER, or --base-model for weights in another layout)"
        )
    return missing


def _hub_names(training: TrainingFacts | None) -> list[str] | None:
    """Training data that anybody can find."""
    data = training.record["data"] if training and training.record else []
    return [one for one in data if _HUB_NAME.fullmatch(one)] or None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        0 with a card, 2 for bad usage or an incomplete folder, 130 when interrupted.
    """
    return run_command(_write, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve card", description="Write the card of a model, or of a planned one.")
    parser.add_argument(
        "model", metavar="MODEL_DIR", nargs="?", type=Path, help="folder of gve train, gve demo or save_embedder"
    )
    parser.add_argument("--report", type=Path, help="JSON file written by gve eval --out; of a demo, its own")
    parser.add_argument("--training", type=Path, help="folder that training wrote, where it is not MODEL_DIR")
    parser.add_argument("--out", type=Path, help="file to write, such as MODEL_DIR/README.md; else standard output")
    parser.add_argument("--name", help="repository that users load; the folder's name when left out")
    parser.add_argument("--license", help="identifier of the weights' licence, such as apache-2.0")
    parser.add_argument("--base-model", help="model that training began with, or whose weights these are")
    parser.add_argument("--watts", type=float, help="mean power of a device while training, for the energy")
    parser.add_argument("--grams-per-kwh", type=float, help="carbon intensity of the grid, for the carbon")
    parser.add_argument("--draft", action="store_true", help="write a card that names the facts it lacks")
    parser.add_argument("--plan", type=Path, help="instead of MODEL_DIR: JSON of gve train RECIPE --dry-run --json")
    parser.add_argument("--recipe", type=Path, help="with --plan: the recipe's YAML file")
    return parser


def _write(arguments: argparse.Namespace) -> int:
    out: Path | None = arguments.out
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        fail(f"--out: cannot write {str(out)!r}; a file in an existing folder is accepted; check the path")
    text = _planned(arguments) if arguments.plan or arguments.recipe else _made(arguments)
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text.encode())
    return 0


def _planned(arguments: argparse.Namespace) -> str:
    if arguments.model is not None or not (arguments.plan and arguments.recipe and arguments.name):
        fail("--plan: goes with --recipe and --name and without MODEL_DIR; give all three")
    return render_plan_card(*read_plan(arguments.plan, arguments.recipe), name=arguments.name)


def _made(arguments: argparse.Namespace) -> str:
    if arguments.model is None:
        fail("MODEL_DIR: missing; a folder of gve train, gve demo or save_embedder is accepted; name it, or --plan")
    demo = read_demo(arguments.model)
    folder, training, report = arguments.model, arguments.training, arguments.report
    if demo is not None:
        folder, training, report = demo.model, training or demo.training, report or demo.report
    options = CardOptions(
        name=arguments.name,
        license=arguments.license,
        base_model=arguments.base_model,
        training=training,
        watts=arguments.watts,
        grams_per_kwh=arguments.grams_per_kwh,
        draft=arguments.draft,
    )
    return render_model_card(folder, read_report(report), options=options, demo=demo)
