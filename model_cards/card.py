"""Writes the card of a model folder, and the command `gve card`."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from gve.eval.benchmark import SCHEMA
from gve.eval.console import fail, run_command
from gve.eval.files import write_atomic
from gve.eval.report import to_markdown
from gve.hub_datasets.uvrb import SETS
from gve.model_cards import template
from gve.model_cards.facts import read_model, read_training

TAGS = ["sentence-transformers", "feature-extraction", "video-retrieval", "multimodal", "gve"]
DECIMALS = 4
"""Of the scores in the metadata; the tables round as the paper does."""


@dataclass(frozen=True)
class CardOptions:
    """What no file of a model folder tells.

    Attributes:
        name: Repository or folder that users load; the folder's name if None.
        license: Identifier of the weights' licence; not stated if None.
        base_model: Model that training began with; not stated if None.
    """

    name: str | None = None
    license: str | None = None
    base_model: str | None = None


def render_model_card(
    model_folder: str | PathLike[str],
    report: Mapping[str, Any] | None = None,
    *,
    options: CardOptions | None = None,
) -> str:
    """The card of a model: metadata with a model-index, facts, use, training, results, limits.

    Args:
        model_folder: Written by `save_embedder` or training.
        report: What `gve eval` wrote, or None for a model that was not scored.
        options: What the folder does not tell.

    Returns:
        Markdown with a YAML head; equal input gives equal text.

    Raises:
        ValueError: If the folder is not complete or the report is of another kind.
    """
    options = options or CardOptions()
    name = options.name or Path(model_folder).resolve().name
    scored = None if report is None else _checked(report, name)
    data = ModelCardData(
        license=options.license,
        base_model=options.base_model,
        library_name="sentence-transformers",
        pipeline_tag="feature-extraction",
        tags=TAGS,
        model_name=name,
        eval_results=eval_results(scored) if scored else None,
    )
    entries = scored["sets"] if scored else {}
    card = ModelCard.from_template(
        data,
        template_str=template("model_card.md.jinja"),
        name=name,
        model=read_model(model_folder),
        training=read_training(model_folder),
        results=to_markdown(scored).strip() if scored else None,
        at_chance=[one for one, entry in entries.items() if not entry["above_chance"]],
    )
    return str(card).strip() + "\n"


def eval_results(report: Mapping[str, Any]) -> list[EvalResult]:
    """Entries of a model-index: every set, and the averages that could be formed.

    Args:
        report: What `gve eval` wrote.

    Returns:
        One entry a score.
    """
    results = [
        _result(report, name, SETS[name].slug, entry["metric"], entry["score"])
        for name, entry in report["sets"].items()
    ]
    averages = {name: entry for name, entry in report["averages"].items() if entry is not None}
    return results + [_result(report, name, None, name.lower(), entry["score"]) for name, entry in averages.items()]


def _result(report: Mapping[str, Any], name: str, slug: str | None, metric: str, score: float) -> EvalResult:
    """One entry; sets have a configuration of the data, averages have none."""
    return EvalResult(
        task_type="video-retrieval",
        task_name="Video retrieval",
        dataset_type=report["source"],
        dataset_name=f"UVRB {name}",
        dataset_config=None if slug is None else f"{slug}-queries",
        dataset_split=report["split"],
        metric_type=metric,
        metric_name=metric if slug else f"mean over sets ({name})",
        metric_value=round(score, DECIMALS),
    )


def _checked(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The report as a card may show it: local folders by their last name only."""
    if report.get("schema") != SCHEMA:
        fail(f"report: schema {report.get('schema')!r}; {SCHEMA!r} is accepted; write it with `gve eval --out`")
    others = [one for one in report["sets"] if one not in SETS]
    if others:
        fail(f"report: {', '.join(others)}; sets of UVRB are accepted; leave the others out with `gve eval --sets`")
    source = Path(report["source"])
    local = source.is_absolute() or source.exists()
    return {**report, "model": name, "source": source.resolve().name if local else report["source"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        0 with a card, 2 for bad usage or an incomplete folder, 130 when interrupted.
    """
    return run_command(_write, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve card", description="Write the card of a model folder.")
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="folder written by gve train or save_embedder")
    parser.add_argument("--report", type=Path, help="JSON file written by gve eval --out")
    parser.add_argument("--out", type=Path, help="file to write, such as MODEL_DIR/README.md; else standard output")
    parser.add_argument("--name", help="repository that users load; the folder's name when left out")
    parser.add_argument("--license", help="identifier of the weights' licence, such as apache-2.0")
    parser.add_argument("--base-model", help="model that training began with")
    return parser


def _write(arguments: argparse.Namespace) -> int:
    out: Path | None = arguments.out
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        fail(f"--out: cannot write {str(out)!r}; a file in an existing folder is accepted; check the path")
    options = CardOptions(arguments.name, arguments.license, arguments.base_model)
    text = render_model_card(arguments.model, _read_report(arguments.report), options=options)
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text.encode())
    return 0


def _read_report(path: Path | None) -> dict[str, Any] | None:
    """The report of a file, or None where none was named."""
    if path is None:
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--report: cannot read {str(path)!r} ({error}); a JSON file written by `gve eval --out` is accepted")
    if not isinstance(report, dict):
        fail(f"--report: {str(path)!r} holds no report; a JSON file written by `gve eval --out` is accepted")
    return report
