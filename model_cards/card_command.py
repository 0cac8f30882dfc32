"""Writes the card of a model folder, and the command `gve card`."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from gve.eval.console import check_out, fail, run_command
from gve.eval.report import to_markdown
from gve.hub_datasets.files import write_atomic
from gve.model_cards import render
from gve.model_cards.demo import DemoFacts, read_demo
from gve.model_cards.facts import read_model
from gve.model_cards.results import at_chance, checked_report, eval_results, read_report
from gve.model_cards.training import TrainingFacts, emissions, energy_of, read_training

METADATA: dict[str, Any] = {
    "library_name": "sentence-transformers",
    "pipeline_tag": "feature-extraction",
    "tags": ["sentence-transformers", "feature-extraction", "video-retrieval", "multimodal", "gve"],
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def render_model_card(
    model_folder: str | PathLike[str],
    report: Mapping[str, Any] | None = None,
    *,
    demo: DemoFacts | None = None,
    name: str | None = None,
    license: str | None = None,  # noqa: A002 - the Hub's word
    base_model: str | None = None,
    training: str | PathLike[str] | None = None,
    watts: float | None = None,
    grams_per_kwh: float | None = None,
    draft: bool = False,
) -> str:
    """The card of a model in Markdown: metadata with a model-index, facts, use, training, results, limits.

    Args:
        model_folder: Written by `save_embedder` or training.
        report: Output of `gve eval`.
        name: Repository or folder that users load; the folder's name by default.
        base_model: Where training began, or whose weights these are; by default as training recorded it.
        training: Folder that training wrote; the model's own by default.
        watts: Mean power of a device while it trained.
        draft: Write a card that lacks facts and names them.

    Raises:
        ValueError: If the folder is incomplete, the report is about other weights, or facts are missing.
    """
    name = name or Path(model_folder).resolve().name
    model = read_model(model_folder)
    trained = read_training(model_folder if training is None else training)
    missing = _missing_facts(trained, license, base_model, draft=draft)
    scored = None if report is None else checked_report(model_folder, report, name)
    energy = energy_of(trained, watts, grams_per_kwh)
    record = trained.record if trained else None
    base_model = base_model or (record["base_model"] if record else None)
    data = ModelCardData(
        license=license,
        base_model=base_model if base_model and _HUB_NAME.fullmatch(base_model) else None,
        datasets=[one for one in record["data"] if _HUB_NAME.fullmatch(one)] or None if record else None,
        model_name=name,
        eval_results=eval_results(scored) if scored else None,
        co2_eq_emissions=emissions(energy, record),
        **METADATA,
    )
    text = render(
        "model_card.md.jinja",
        name=name,
        model=model,
        training=trained,
        demo=demo,
        energy=energy,
        base_model=base_model,
        results=to_markdown(scored).strip() if scored else None,
        at_chance=at_chance(scored) if scored else [],
        missing=missing,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")).strip() + "\n"


def _missing_facts(
    training: TrainingFacts | None, licence: str | None, base_model: str | None, *, draft: bool
) -> list[str]:
    """Facts a card needs and lacks, each with its remedy; ValueError unless for a draft."""
    missing = [] if licence else ["the licence (--license)"]
    if training is not None:
        missing += training.missing()
    elif base_model is None:
        missing.append(
            "where the weights come from (--training FOLDER, or --base-model for weights in another layout)"
        )
    if missing and not draft:
        fail(f"card: lacks {'; '.join(missing)}. Give them, or write a draft that names them (--draft).")
    return missing


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 with a card, 2 for bad usage or an incomplete folder, 130 if interrupted."""
    return run_command(_write, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve card", description="Write the card of a model.")
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="folder of gve train, gve demo or save_embedder")
    parser.add_argument("--report", type=Path, help="JSON file of gve eval --out; a demo has its own")
    parser.add_argument("--training", type=Path, help="folder that training wrote, if it is not MODEL_DIR")
    parser.add_argument("--out", type=Path, help="file to write, such as MODEL_DIR/README.md; else standard output")
    parser.add_argument("--name", help="repository that users load; the folder's name by default")
    parser.add_argument("--license", help="identifier of the weights' licence, such as apache-2.0")
    parser.add_argument("--base-model", help="model that training began with, or whose weights these are")
    parser.add_argument("--watts", type=float, help="mean power of a device while training, to estimate energy")
    parser.add_argument("--grams-per-kwh", type=float, help="carbon intensity of the grid, to estimate carbon")
    parser.add_argument("--draft", action="store_true", help="write a card that names the facts it lacks")
    return parser


def _write(arguments: argparse.Namespace) -> int:
    options = vars(arguments)
    out, folder, report = options.pop("out"), options.pop("model"), options.pop("report")
    check_out(out, folder=False)
    demo = read_demo(folder)
    if demo is not None:
        folder, report = demo.model, report or demo.report
        options["training"] = options["training"] or demo.training
    text = render_model_card(folder, read_report(report), demo=demo, **options)
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text.encode())
    return 0
