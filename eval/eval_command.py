"""The command `gve eval`: score an embedder on UVRB or on video classification, or compare two reports."""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME

from gve.eval.benchmark import report_on
from gve.eval.checks import WHOLE, check_instructions, choose_split, load_checked, resolve_tasks
from gve.eval.compare import compare_reports, comparison_table, read_comparable
from gve.eval.console import fail, run_command
from gve.eval.encode import EmbeddingCache, EmbeddingStore, Encoder
from gve.eval.models import VideoSetting, load_encoder, model_fingerprint, model_prompts, weights_fingerprint
from gve.eval.report import to_table, write_report
from gve.eval.store import Store
from gve.hub_datasets.classification import ClassificationTask
from gve.hub_datasets.uvrb import EvaluationSet, RetrievalSet


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 with a report, 2 for bad usage or broken data, 130 when interrupted."""
    return run_command(_evaluate, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve eval",
        description="Score an embedder on UVRB, or on video classification (--sets ucf101). With --out, embeddings are "
        "kept as they are made, and a killed run resumes.",
    )
    parser.add_argument("--model", help="folder or Hub name of the embedder")
    parser.add_argument("--data", help="folder or Hub repository in the UVRB layout, or a folder of labelled videos")
    parser.add_argument(
        "--sets", nargs="+", metavar="SET", help="such as msrvtt crb-s, or ucf101 (default: all sixteen of UVRB)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse classification with another number of classes than published"
    )
    parser.add_argument("--split", help="split of the data (default: its only one, or unseen)")
    parser.add_argument("--frames", type=_numbers, metavar="N[,N...]", help="frames per video; several make a curve")
    parser.add_argument(
        "--tokens", type=_numbers, metavar="N[,N...]", help="most visual tokens per frame; several make a curve"
    )
    parser.add_argument(
        "--instructions",
        default="table",
        metavar="SOURCE",
        help="instructions of the queries: table (the benchmark's), model (the prompts it was saved with), none, or a "
        "JSON file of texts by set (%(default)s)",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="rows in one forward pass (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for report.json, report.md and charts")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder that keeps embeddings (default: DIR/embeddings of --out)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="compare two reports by a paired bootstrap"
    )
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.compare:
        return _compare(arguments)
    for option in ("model", "data"):
        if getattr(arguments, option) is None:
            fail(f"--{option}: missing. Name the embedder and the data, or use --compare with two reports.")
    tasks = resolve_tasks(arguments.sets)
    if arguments.batch_size < 1:
        fail(f"--batch-size: {arguments.batch_size}; must be at least 1")
    settings = [VideoSetting(*pair) for pair in product(arguments.frames or [None], arguments.tokens or [None])]
    for option in ("out", "cache"):
        _check_folder(option, getattr(arguments, option))
    from datasets import disable_progress_bars  # a second to import

    disable_progress_bars()  # one for each of 52 small files
    split = _split(arguments, tasks)
    names = [task.name for task in tasks]  # loaded before the model is, so that broken data show at once
    loaded = load_checked(arguments.data, names, split, strict=arguments.strict)
    encoder = load_encoder(arguments.model)
    instructions = _instructions(arguments.instructions, encoder, loaded)
    for setting in settings:
        setting.options(encoder)
    report = report_on(
        encoder,
        loaded,
        source=arguments.data,
        split=split,
        batch_size=arguments.batch_size,
        instructions=instructions,
        settings=settings,
        store=_store(arguments),
        model=arguments.model,
        fingerprint=weights_fingerprint(arguments.model),
    )
    report["settings"]["instructions"] = arguments.instructions
    sys.stdout.write(json.dumps(report) + "\n" if arguments.json else to_table(report))
    if arguments.out is not None:
        write_report(report, arguments.out)
    return 0


def _split(arguments: argparse.Namespace, tasks: Sequence[RetrievalSet | ClassificationTask]) -> str:
    """The given or default split; a folder of labelled videos has none."""
    split = choose_split(arguments.data, tasks)
    if split == WHOLE and arguments.split is not None:
        fail(
            f"--split: {arguments.split!r}; a folder of labelled videos has no splits. Leave it out, and give the "
            "split's own folder as --data."
        )
    return arguments.split or split


def _compare(arguments: argparse.Namespace) -> int:
    first, second = (read_comparable(path) for path in arguments.compare)
    if arguments.json:
        sys.stdout.write(json.dumps(compare_reports(first, second)) + "\n")
    else:
        sys.stdout.write(comparison_table(first, second))
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; must be whole numbers with commas, such as 8,16") from error


def _check_folder(option: str, folder: Path | None) -> None:
    """Refuse a path that cannot become a folder, before any work."""
    if folder is None:
        return
    if (folder.exists() and not folder.is_dir()) or not folder.absolute().parent.is_dir() or folder.suffix == ".json":
        fail(
            f"--{option}: cannot write to {str(folder)!r}; a folder, or a new one in an existing folder, is needed. "
            "Check the path."
        )


def _store(arguments: argparse.Namespace) -> Store:
    """On disk with --cache or --out, else in memory."""
    folder: Path | None = arguments.cache
    if folder is None and arguments.out is not None:
        arguments.out.mkdir(exist_ok=True)
        folder = arguments.out / "embeddings"
    if folder is None:
        return EmbeddingCache()
    return EmbeddingStore(folder, _identity(arguments.model))


def _identity(model: str) -> dict[str, Any]:
    """All that changes vectors besides rows and settings: weights, configuration, chat template, libraries."""
    identity = {name: version(name) for name in ("transformers", "sentence-transformers")}
    identity["model"] = model_fingerprint(model)
    if Path(model).is_dir():
        templates = b"".join(path.read_bytes() for path in sorted(Path(model).glob("*.jinja")))
        identity["templates"] = hashlib.blake2b(templates, digest_size=8).hexdigest()
    elif isinstance(path := try_to_load_from_cache(model, CONFIG_NAME), str):
        identity["revision"] = Path(path).parent.name  # of the snapshot that was loaded
    return identity


def _instructions(source: str, encoder: Encoder, loaded: Sequence[EvaluationSet]) -> Mapping[str, str | None] | None:
    """Instructions by set from the user's source; an unknown name, or a set without one, stops the run."""
    if source == "table":
        return None
    if source == "none":
        return {data.task.name: "" for data in loaded}
    if source == "model":
        prompts = model_prompts(encoder)
        lacking = [data.task.slug for data in loaded if data.task.slug not in prompts]
        if lacking:
            fail(
                f"--instructions: the model has no prompt named {', '.join(lacking)}; it has {', '.join(prompts)}. "
                "Use the table's, or save the model with prompts by set."
            )
        return {data.task.name: prompts[data.task.slug] for data in loaded}
    try:
        given: Any = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        fail(f"--instructions: {source!r} cannot be read ({error}). Give table, model, none or a JSON file.")
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        fail(f"--instructions: {source!r} must hold a JSON object of texts by set.")
    return check_instructions(loaded, given)
