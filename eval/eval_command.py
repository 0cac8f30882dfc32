"""The command `gve eval`: score an embedder on UVRB or on video classification, or compare reports."""

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME

from gve.eval import rerank
from gve.eval.benchmark import report_on
from gve.eval.checks import WHOLE, check_instructions, choose_split, load_checked, resolve_tasks
from gve.eval.compare import compare_reports, comparison_table, read_comparable, write_comparison
from gve.eval.console import check_out, fail, printable, run_command
from gve.eval.encode import EmbeddingCache, EmbeddingStore, Encoder
from gve.eval.media_encoder import NUM_FRAMES, MediaEncoder, left_out
from gve.eval.models import (
    KEY_VARIABLE,
    VideoSetting,
    benchmark_encoder,
    is_address,
    load_encoder,
    model_fingerprint,
    model_prompts,
    weights_fingerprint,
)
from gve.eval.moments.options import add_options, levels_of, moment_instructions
from gve.eval.moments.scoring import moment_report
from gve.eval.moments.sets import load_moments
from gve.eval.report import to_table, write_report
from gve.eval.store import Store
from gve.hub_datasets.classification import ClassificationTask
from gve.hub_datasets.uvrb import EvaluationSet, RetrievalSet

logger = logging.getLogger(__name__)

ALONE = "all"
"""Split in the report of --moments without --data."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 with a report, 2 for bad usage or broken data, 130 when interrupted."""
    return run_command(_evaluate, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve eval",
        description="Score an embedder on UVRB, or on video classification (--sets ucf101). With --out, embeddings are "
        "kept as they are made, and a killed run resumes.",
    )
    parser.add_argument(
        "--model",
        help="folder or Hub name of any model that sentence-transformers opens, or an OpenAI-compatible address such as "
        f"http://127.0.0.1:8000/v1, whose key stands in the environment variable {KEY_VARIABLE}",
    )
    parser.add_argument("--served-name", metavar="NAME", help="model at the address (default: the only one served)")
    parser.add_argument(
        "--served-images", action="store_true", help="the address takes images, as data URLs in messages (vLLM does)"
    )
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
        default="uvrb",
        metavar="SOURCE",
        help="instructions of the queries: uvrb (the benchmark's), model (its prompt of the set's name, or else its own "
        "for queries), none, or a JSON file of texts by set (%(default)s)",
    )
    add_options(parser)
    rerank.add_options(parser)
    parser.add_argument("--batch-size", type=int, default=64, help="rows in one forward pass (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for report.json, report.md and charts")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder that keeps embeddings (default: DIR/embeddings of --out)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        metavar="REPORT",
        help="compare reports with the first by a paired bootstrap; --out takes the table and a radar",
    )
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.compare:
        return _compare(arguments)
    tasks, settings = _check(arguments)
    from datasets import disable_progress_bars  # a second to import

    disable_progress_bars()  # one for each of 52 small files
    levels, moments = levels_of(arguments), load_moments(arguments.moments) if arguments.moments else []
    split = _split(arguments, tasks) if tasks else ALONE
    names = [task.name for task in tasks]  # loaded before the model is, so that broken data show at once
    loaded = load_checked(arguments.data, names, split, strict=arguments.strict) if tasks else []
    encoder, name = _open(arguments)
    refused = left_out(
        encoder, {data.task.name: (data.task.query_modalities, data.task.corpus_modality) for data in loaded}
    )
    refused |= left_out(encoder, {data.name: (data.kind, "video") for data in moments})
    for one, reason in refused.items():
        logger.warning("%s is not scored: %s", one, reason)
    loaded = [data for data in loaded if data.task.name not in refused]
    moments = [data for data in moments if data.name not in refused]
    if not loaded and not moments:
        fail(f"--model: {name!r} takes none of the sets ({', '.join(refused)}). Name others, or use another model.")
    instructions = _instructions(arguments.instructions, encoder, loaded)
    for setting in settings:
        setting.options(encoder)
    store = _store(arguments, name)
    report = report_on(
        encoder,
        loaded,
        source=arguments.data if tasks else printable(arguments.moments),
        split=split,
        batch_size=arguments.batch_size,
        instructions=instructions,
        settings=settings,
        store=store,
        model=name,
        fingerprint=weights_fingerprint(arguments.model),
        reranker=rerank.load_named(arguments),
        pair_store=_pair_store(arguments),
    )
    report["settings"]["instructions"] = arguments.instructions
    report["settings"] |= {"videos": encoder.videos} if isinstance(encoder, MediaEncoder) else {}
    report |= {"left_out": refused} if refused else {}
    if moments:
        report["moments"] = {"source": printable(arguments.moments)} | moment_report(
            encoder,
            moments,
            levels,
            num_frames=settings[0].described(encoder)["num_frames"] or NUM_FRAMES,
            instructions=moment_instructions(arguments.instructions, encoder, moments),
            batch_size=arguments.batch_size,
            store=store,
        )
    sys.stdout.write(json.dumps(report) + "\n" if arguments.json else to_table(report))
    if arguments.out is not None:
        write_report(report, arguments.out)
    return 0


def _check(
    arguments: argparse.Namespace,
) -> tuple[list[RetrievalSet | ClassificationTask], list[VideoSetting]]:
    """Tasks and settings; stops at bad usage."""
    if arguments.model is None or (arguments.data is None and arguments.moments is None):
        option = "data" if arguments.model else "model"
        fail(f"--{option}: missing. Name the embedder and the data, or use --compare with reports.")
    for option in ("sets", "split", "rerank", "strict"):
        if arguments.data is None and getattr(arguments, option):
            fail(f"--{option}: needs --data; --moments alone has none. Add it, or leave --{option} out.")
    if not is_address(arguments.model) and (arguments.served_name or arguments.served_images):
        fail(f"--served-name, --served-images: {arguments.model!r} is not an http address. Leave them out.")
    tasks = resolve_tasks(arguments.sets) if arguments.data else []
    for option in ("batch_size", "rerank_top"):
        if getattr(arguments, option) < 1:
            fail(f"--{option.replace('_', '-')}: {getattr(arguments, option)}; must be at least 1")
    for option in ("out", "cache"):
        check_out(getattr(arguments, option), folder=True, option=option)
    return tasks, [VideoSetting(*pair) for pair in product(arguments.frames or [None], arguments.tokens or [None])]


def _open(arguments: argparse.Namespace) -> tuple[Encoder, str]:
    """The encoder and its name in the report."""
    if not is_address(arguments.model):
        return benchmark_encoder(load_encoder(arguments.model)), arguments.model
    from gve.eval.endpoint import EndpointEncoder  # pyarrow comes with it

    served = EndpointEncoder(arguments.model, arguments.served_name, images=arguments.served_images)
    return MediaEncoder(served), served.name


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
    if len(arguments.compare) < 2:
        fail("--compare: got 1 report; at least two are needed. Name another.")
    check_out(arguments.out, folder=True)
    reports = [read_comparable(path) for path in arguments.compare]
    if arguments.json:
        sys.stdout.write(json.dumps([compare_reports(reports[0], other) for other in reports[1:]]) + "\n")
    else:
        sys.stdout.write(comparison_table(reports))
    if arguments.out is not None:
        write_comparison(reports, arguments.out)
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; must be whole numbers with commas, such as 8,16") from error


def _store(arguments: argparse.Namespace, name: str) -> Store:
    """On disk with --cache or --out, else in memory."""
    folder = _store_folder(arguments)
    if folder is None:
        return EmbeddingCache()
    if is_address(arguments.model):
        served = {"address": model_fingerprint(arguments.model), "served": name, "images": arguments.served_images}
        return EmbeddingStore(folder, served)
    return EmbeddingStore(folder, _identity(arguments.model))


def _pair_store(arguments: argparse.Namespace) -> Store | None:
    """Where a second stage keeps its scores: beside the embeddings, under the reranker's identity."""
    folder = _store_folder(arguments)
    if folder is None or arguments.rerank is None:
        return None
    return EmbeddingStore(folder, {"pairs": True, **_identity(arguments.rerank)})


def _store_folder(arguments: argparse.Namespace) -> Path | None:
    """The folder that keeps vectors, if any; made where needed."""
    if arguments.cache is None and arguments.out is not None:
        arguments.out.mkdir(exist_ok=True)
        return arguments.out / "embeddings"
    return arguments.cache


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
    if source == "uvrb":
        return None
    if source == "none":
        return {data.task.name: "" for data in loaded}
    if source == "model":
        prompts = model_prompts(encoder)
        return {data.task.name: prompts.get(data.task.slug) or prompts.get("query") or None for data in loaded}
    try:
        given: Any = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        fail(f"--instructions: {source!r} cannot be read ({error}). Give uvrb, model, none or a JSON file.")
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        fail(f"--instructions: {source!r} must hold a JSON object of texts by set.")
    return check_instructions(loaded, given)
