"""`gve push KIND PATH --repo ORG/NAME`: check a folder, show what would go, upload it, and load it back."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import HfApi, RepoCard

from gve.eval.console import INTERRUPTED, fail, run_command
from gve.model_cards.push_data import check_data
from gve.model_cards.push_files import KINDS, Upload, collect, describe
from gve.model_cards.push_hub import Target, check_arrived, check_card, check_repo, connect, load_back, upload_files
from gve.model_cards.push_loadback import load_metric
from gve.model_cards.push_model import check_model, largest_difference, tolerance
from gve.model_cards.results import read_report

METRIC = "video_retrieval"
ALL = ("model", "uvrb", "uvrd", "metric")
"""What `all` publishes: the model under the name given, the others beside it under their own names."""
OPENED_CONFIGS = 4
"""Configurations of data that are opened after the upload."""

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        0 with everything published (or shown, with --dry-run), 2 where something was refused, 130 when interrupted.
    """
    return run_command(_push, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve push",
        description="Publish a model, data, the metric or a Space on the Hugging Face Hub.",
        epilog="Checks everything before anything is sent; run it again after an interruption, and it goes on. "
        "Prints one JSON line a repository.",
    )
    parser.add_argument("kind", choices=(*KINDS, "all"), metavar="KIND", help=f"{', '.join(KINDS)} or all")
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="PATH",
        help="folder to publish; for metric, this package's own if left out; for all, a folder of `gve demo`",
    )
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository; for all, that of the model")
    parser.add_argument("--report", type=Path, help="JSON file of gve eval that the scores in the card come from")
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="branch, made if missing (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="check and show, without the network")
    parser.add_argument("--yes", action="store_true", help="do not ask before uploading")
    return parser


def _push(arguments: argparse.Namespace) -> int:
    target = Target(check_repo(arguments.repo), "model", arguments.revision, arguments.private)
    report = read_report(arguments.report)
    folders = _folders(arguments)
    api = HfApi()
    if not arguments.dry_run:
        connect(api)  # before the checks, which may take minutes
    jobs = []
    for kind, folder, repo in folders:
        upload = collect(KINDS[kind], folder)
        logger.info("checking %s", folder)
        expected = CHECKS[kind](upload, repo, report)
        jobs.append((upload, replace(target, repo=repo, repo_type=upload.kind.repo_type), expected))
    for upload, place, _ in jobs:
        sys.stderr.write(f"{upload.kind.name}: {upload.folder} to {place.repo_type} {place.repo}@{place.revision}\n")
        sys.stderr.write(describe(upload))
    if arguments.dry_run:
        for upload, place, _ in jobs:
            _say(upload, place, commit=None)
        return 0
    for upload, _, _ in jobs:
        check_card(upload)
    _confirm(arguments)
    try:
        for upload, place, expected in jobs:
            commit = upload_files(api, place, upload)
            logger.info("comparing what arrived")
            check_arrived(api, place, upload, commit)
            VERIFIERS[upload.kind.name](upload, place, commit, expected)
            _say(upload, place, commit=commit)
    except KeyboardInterrupt:
        sys.stderr.write(f"gve push: interrupted at {place.repo}; run the same command to go on\n")
        return INTERRUPTED
    return 0


def _folders(arguments: argparse.Namespace) -> list[tuple[str, Path, str]]:
    """Kind, folder and repository of everything that was asked for."""
    kind, path = arguments.kind, arguments.path
    own_metric = Path(str(files("gve.eval.video_retrieval")))
    if path is None and kind != "metric":
        fail(f"PATH: missing; the folder to publish as {kind} is needed; name it")
    if kind != "all":
        return [(kind, own_metric if path is None else path, arguments.repo)]
    org = arguments.repo.partition("/")[0]
    places = {"model": path / "model", "uvrb": path / "data/uvrb", "uvrd": path / "data/uvrd", "metric": own_metric}
    names = {"model": arguments.repo, "uvrb": f"{org}/uvrb", "uvrd": f"{org}/uvrd", "metric": f"{org}/{METRIC}"}
    return [(one, places[one], names[one]) for one in ALL]


def _confirm(arguments: argparse.Namespace) -> None:
    """Ask, unless told not to."""
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        fail("--yes: missing, and nobody can be asked here; pass it to upload without a question")
    sys.stderr.write("upload this? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("upload: not confirmed; answer y, or pass --yes; nothing was sent")


def _say(upload: Upload, target: Target, *, commit: str | None) -> None:
    facts = {"kind": upload.kind.name, "repo": target.repo, "repo_type": target.repo_type, "revision": target.revision}
    facts |= {"commit": commit, "files": len(upload.files), "bytes": upload.total}
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _check_data(upload: Upload, repo: str, report: Mapping[str, Any] | None) -> list[str]:
    return check_data(upload)


def _check_space(upload: Upload, repo: str, report: Mapping[str, Any] | None) -> None:
    """The front matter must name the app; a metric must have the repository's name."""
    card = RepoCard.load(upload.folder / "README.md", ignore_metadata_errors=False).data.to_dict()
    lacking = [key for key in ("title", "sdk", "app_file") if not card.get(key)]
    if lacking:
        fail(f"README.md: has no {', '.join(lacking)}; a Space needs title, sdk and app_file; add them")
    if card["app_file"] not in upload.files:
        fail(f"README.md: app_file {card['app_file']!r} is not among the files; name one that is")
    if upload.kind.name == "metric":
        name = repo.partition("/")[2]
        if f"{name}.py" not in upload.files:
            fail(f"--repo: a metric is loaded from the file of its repository's name, {name}.py; use ORG/{METRIC}")
        _check_mrr(load_metric(str(upload.folder / f"{name}.py"), None), str(upload.folder))


def _verify_model(upload: Upload, target: Target, commit: str, expected: Mapping[str, np.ndarray]) -> None:
    worst = largest_difference(expected, load_back("model", target, commit))
    if not worst <= tolerance(upload.folder):
        fail(f"--repo: {target.repo} gives other vectors than {upload.folder}, by {worst:.1e}; report this")
    logger.info("loaded back without this package: vectors differ by at most %.1e", worst)


def _verify_data(upload: Upload, target: Target, commit: str, expected: Sequence[str]) -> None:
    opened = expected[:: max(1, len(expected) // OPENED_CONFIGS)][:OPENED_CONFIGS]
    load_back("data", target, commit, opened)
    logger.info("loaded back: %s", ", ".join(opened))


def _verify_metric(upload: Upload, target: Target, commit: str, expected: None) -> None:
    _check_mrr(load_back("metric", target, commit), target.repo)
    logger.info("loaded back by evaluate")


def _check_mrr(found: Mapping[str, np.ndarray], where: str) -> None:
    """Of two queries, whose answers stand second and first."""
    if float(found["mrr"]) != 0.75:
        fail(f"{where}: gives a mean reciprocal rank of {found['mrr']}, not 0.75; report this")


def _verify_space(upload: Upload, target: Target, commit: str, expected: None) -> None:
    logger.info("a Space starts on the Hub; look at its page")


CHECKS: dict[str, Callable[[Upload, str, Mapping[str, Any] | None], Any]] = {
    "model": check_model,
    "uvrb": _check_data,
    "uvrd": _check_data,
    "metric": _check_space,
    "space": _check_space,
}
VERIFIERS: dict[str, Callable[[Upload, Target, str, Any], None]] = {
    "model": _verify_model,
    "uvrb": _verify_data,
    "uvrd": _verify_data,
    "metric": _verify_metric,
    "space": _verify_space,
}

if __name__ == "__main__":
    sys.exit(main())
