"""`gve push KIND PATH --repo ORG/NAME`: check a folder, show what would go, upload it, and load it back."""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from gve.eval.console import INTERRUPTED, fail, run_command
from gve.media_gve import shown
from gve.model_cards import loadback
from gve.model_cards.push_checks import (
    KINDS,
    Upload,
    check_model,
    check_space,
    collect,
    describe,
    read_card,
    tolerance_of,
)
from gve.model_cards.push_licences import check_data
from gve.model_cards.results import read_report

METRIC = "video_retrieval"
OPENED_CONFIGS = 4
"""Configurations of data that are opened after the upload."""
LOAD_SECONDS = 3600
HINTS = {
    401: "Make a token with write access in the Hub's settings and run `hf auth login`.",
    403: "Take a token with write access, or a repository of your own.",
    404: "Check the name; a private repository needs a token that can see it.",
    412: "Somebody has pushed meanwhile; look at it and run the same command again.",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """One repository to fill; `expected` is compared with what loads back."""

    upload: Upload
    repo: str
    expected: Any

    @property
    def place(self) -> dict[str, str]:
        """The repository as arguments of HfApi."""
        return {"repo_id": self.repo, "repo_type": self.upload.kind.repo_type}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if published or shown, 2 if refused, 130 if interrupted."""
    return run_command(_push, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve push",
        description="Publish a model, data, the metric or a Space on the Hugging Face Hub.",
        epilog="Checks everything before it sends anything. After an interruption, run it again to continue. Prints one "
        "JSON line per repository.",
    )
    parser.add_argument("kind", choices=(*KINDS, "all"), metavar="KIND", help=f"{', '.join(KINDS)} or all")
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="PATH",
        help="folder to publish; `metric` defaults to this package's own, `all` takes a folder of `gve demo`",
    )
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository; with `all`, the model's")
    parser.add_argument("--report", type=Path, help="JSON file of gve eval that the scores in the card come from")
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="branch, created if new (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="check and show, without the network")
    parser.add_argument("--yes", action="store_true", help="upload without asking")
    return parser


def _push(arguments: argparse.Namespace) -> int:
    check_repo(arguments.repo)
    report = read_report(arguments.report)
    folders = _folders(arguments)
    api = HfApi()
    if not arguments.dry_run:
        connect(api)  # before the checks, which may take minutes
    publications = [_checked(kind, folder, repo, report) for kind, folder, repo in folders]
    for one in publications:
        kind, folder = one.upload.kind, one.upload.folder
        sys.stderr.write(f"{kind.name}: {folder} to {kind.repo_type} {one.repo}@{arguments.revision}\n")
        sys.stderr.write(describe(one.upload))
    if arguments.dry_run:
        for one in publications:
            _print_line(one, arguments.revision, commit=None)
        return 0
    for one in publications:
        check_card(one.upload)
    _confirm(arguments)
    for one in publications:
        try:
            commit = upload_files(api, one, revision=arguments.revision, private=arguments.private)
            _verify(one, commit)
        except KeyboardInterrupt:
            sys.stderr.write(f"gve push: interrupted at {one.repo}; run the same command to go on\n")
            return INTERRUPTED
        _print_line(one, arguments.revision, commit=commit)
    return 0


def _folders(arguments: argparse.Namespace) -> list[tuple[str, Path, str]]:
    """Kind, folder and repository of everything to publish."""
    kind, path, repo = arguments.kind, arguments.path, arguments.repo
    metric = Path(str(files("gve.eval.video_retrieval")))
    if path is None and kind != "metric":
        fail(f"PATH: missing. Name the folder to publish as {kind}.")
    if kind != "all":
        return [(kind, path or metric, repo)]
    org = repo.partition("/")[0]
    data = [(kind, path / "data" / kind, f"{org}/{kind}") for kind in ("uvrb", "uvrd")]
    return [("model", path / "model", repo), *data, ("metric", metric, f"{org}/{METRIC}")]


def _checked(kind: str, folder: Path, repo: str, report: Mapping[str, Any] | None) -> Publication:
    upload = collect(KINDS[kind], folder)
    logger.info("checking %s", folder)
    if kind == "model":
        return Publication(upload, repo, check_model(upload, repo, report))
    if upload.kind.repo_type == "dataset":
        return Publication(upload, repo, check_data(upload))
    return Publication(upload, repo, check_space(upload, repo))


def _confirm(arguments: argparse.Namespace) -> None:
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        fail("--yes: missing, and nobody can be asked here. Pass it to upload without a question.")
    sys.stderr.write("upload this? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("upload: not confirmed, so nothing was sent. Answer y, or pass --yes.")


def _print_line(one: Publication, revision: str, *, commit: str | None) -> None:
    facts = {"kind": one.upload.kind.name, "repo": one.repo, "repo_type": one.upload.kind.repo_type}
    facts |= {"revision": revision, "commit": commit, "files": len(one.upload.files), "bytes": one.upload.total}
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def check_repo(repo: str) -> str:
    """Reject malformed repo ids; the owner is required."""
    try:
        validate_repo_id(repo)
        good = repo.count("/") == 1
    except HFValidationError:
        good = False
    if not good:
        fail(f"--repo: must be ORGANISATION/NAME such as org/gve, got {shown(repo)}. Name the account that owns it.")
    return repo


def connect(api: HfApi) -> None:
    """Check the login on the Hub."""
    with _plain_errors("token"):
        logger.info("publishing to %s as %s", api.endpoint, api.whoami()["name"])


def check_card(upload: Upload) -> None:
    """Let the Hub validate a card's metadata."""
    with _plain_errors("README.md"):
        try:
            read_card(upload).validate(repo_type=upload.kind.repo_type)
        except ValueError as error:
            words = "; ".join(found["message"] for found in json.loads(str(error))["errors"])
            fail(f"README.md: the Hub does not take its metadata ({words}). Write the card again.")


def upload_files(api: HfApi, one: Publication, *, revision: str, private: bool) -> str:
    """Bring a branch to the state of the folder, and return its commit.

    Files of an earlier push that are gone here are deleted; files of other kinds stay.
    """
    allows, names = one.upload.kind.allows, one.upload.files
    with _plain_errors(f"--repo: {one.repo}"):
        sdk = "gradio" if one.upload.kind.repo_type == "space" else None
        api.create_repo(**one.place, private=private or None, exist_ok=True, space_sdk=sdk)
        api.create_branch(**one.place, branch=revision, exist_ok=True)
        info = api.repo_info(**one.place, revision=revision)
        if private and not info.private:
            fail(f"--private: {one.repo} is public already. Make it private in its settings, or leave the option out.")
        there = api.list_repo_files(**one.place, revision=info.sha)
        gone = [name for name in there if allows(name) and name not in names]
        # one commit, so that readers see the old state or the new one: `upload_folder` may split it
        operations = [CommitOperationAdd(name, one.upload.folder / name) for name in names]
        return api.create_commit(
            **one.place,
            operations=[*operations, *map(CommitOperationDelete, gone)],
            commit_message=f"Publish {one.upload.kind.name}",
            revision=revision,
            parent_commit=info.sha,
        ).oid


def _verify(one: Publication, commit: str) -> None:
    """Load the published commit and compare it with the folder."""
    kind = one.upload.kind
    if kind.name == "model":
        worst = loadback.largest_difference(one.expected, load_back("model", one.repo, commit))
        if not worst <= tolerance_of(one.upload.folder):
            fail(f"--repo: vectors of {one.repo} differ from {one.upload.folder} by {worst:.1e}. Report this.")
        logger.info("loaded back without this package: vectors differ by at most %.1e", worst)
    elif kind.repo_type == "dataset":
        opened = one.expected[:: max(1, len(one.expected) // OPENED_CONFIGS)][:OPENED_CONFIGS]
        load_back("data", one.repo, commit, opened)
        logger.info("loaded back: %s", ", ".join(opened))
    elif kind.name == "metric":
        load_back("metric", one.repo, commit)
        logger.info("loaded back by evaluate")
    else:
        logger.info("a Space starts on the Hub; look at its page")


def load_back(kind: str, repo: str, commit: str, configs: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """What `loadback` finds in a commit, in a fresh process with an empty cache and without this package."""
    with tempfile.TemporaryDirectory(prefix="gve-push-") as home:
        out = Path(home) / "found.npz"
        caches = ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "HF_EVALUATE_CACHE", "HF_METRICS_CACHE")
        environment = {key: value for key, value in os.environ.items() if key not in caches}
        environment |= {"HF_HOME": home, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        token = get_token()  # its file may lie in the cache that the process does not see
        environment |= {"HF_TOKEN": token} if token else {}
        try:
            done = subprocess.run(
                [sys.executable, "-P", loadback.__file__, kind, repo, commit, str(out), *configs],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LOAD_SECONDS,
            )
        except subprocess.TimeoutExpired:
            fail(f"--repo: {repo} is published but did not load in {LOAD_SECONDS} s. Load it by hand.")
        if done.returncode != 0:
            logger.info("%s", done.stderr)
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            fail(f"--repo: {repo} at {commit[:12]} is published but does not load ({reason}). Correct and push again.")
        with np.load(out) as found:
            return dict(found)


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turn the Hub's refusals and lost connections into one line with a remedy."""
    try:
        yield
    except LocalTokenNotFoundError:
        fail("token: none found. Run `hf auth login` or set HF_TOKEN.")
    except (HfHubHTTPError, httpx2.TransportError, OfflineModeIsEnabled, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        words = " ".join(str(cause).split()) or type(cause).__name__
        if not isinstance(cause, HfHubHTTPError):
            problem = "the upload stopped" if isinstance(error, RuntimeError) else "cannot reach the Hub"
            fail(f"network: {problem} ({words}). Check the connection and run the same command to go on.")
        status = cause.response.status_code
        hint = HINTS.get(status, "The Hub has a fault; run the same command later to go on." if status >= 500 else "")
        fail(f"{what}: refused by the Hub ({words}). {hint}".strip())
