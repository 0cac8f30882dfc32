"""The Hub's side of publishing: who may push, what is there already, the upload, and the proof that it arrived."""

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import httpx2
import numpy as np
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import sha

from gve.eval.console import fail
from gve.model_cards import push_loadback
from gve.model_cards.push_files import Upload

BATCH_FILES = 16
"""Files sent between two lines of progress."""
CHILD_SECONDS = 3600

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Where an upload goes.

    Attributes:
        repo: Repository as organisation/name.
        repo_type: "model", "dataset" or "space".
        revision: Branch.
        private: Whether a repository that is made is private.
    """

    repo: str
    repo_type: str
    revision: str = "main"
    private: bool = False


def check_repo(repo: str) -> str:
    """Refuse a name that is none of a repository of an organisation or user.

    Args:
        repo: The name.

    Returns:
        The name.

    Raises:
        ValueError: If it has no organisation or more than one.
    """
    parts = repo.split("/")
    good = len(parts) == 2 and all(
        part and part.replace("-", "").replace("_", "").replace(".", "").isalnum() for part in parts
    )
    if not good or "--" in repo or ".." in repo:
        fail(f"--repo: {repo!r}; ORGANISATION/NAME is accepted, such as org/gve; name the account that it belongs to")
    return repo


def connect(api: HfApi) -> None:
    """Reach the Hub, as somebody whom it knows.

    Args:
        api: The Hub.

    Raises:
        ValueError: Without a connection or a valid token.
    """
    try:
        name = api.whoami()["name"]
    except LocalTokenNotFoundError:
        fail("token: none found; the Hub takes uploads of known users; run `hf auth login` or set HF_TOKEN")
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        fail(f"network: cannot reach {api.endpoint} ({_first_line(error)}); a connection is needed; nothing was done")
    except HfHubHTTPError as error:
        _refused(error, "token")
    logger.info("publishing to %s as %s", api.endpoint, name)


def check_card(upload: Upload) -> None:
    """Have the Hub check the metadata of a card, before anything is sent.

    Args:
        upload: Files, README.md among them.

    Raises:
        ValueError: With the Hub's words, if it would not take the card.
    """
    card = RepoCard((upload.folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True)
    try:
        card.validate(repo_type=upload.kind.repo_type)
    except HfHubHTTPError as error:
        _refused(error, "README.md")
    except ValueError as error:
        words = [found["message"] for found in json.loads(str(error))["errors"]]
        fail(f"README.md: the Hub does not take its metadata ({'; '.join(words)}); write the card again")


def upload_files(api: HfApi, target: Target, upload: Upload) -> str:
    """Send what is not there yet, then change the branch in one commit.

    Large files are sent first and stay with the Hub, so that a run that was killed goes on where it was; readers see
    the old revision until the commit, and all of the new one after it.

    Args:
        api: The Hub.
        target: Where to.
        upload: What.

    Returns:
        Id of the commit; that of the branch where nothing changed.

    Raises:
        ValueError: If the Hub refuses.
    """
    try:
        parent = _prepare_repo(api, target)
        there = remote_files(api, target, parent)
        changed = [name for name in upload.files if not _same(upload.folder / name, there.get(name))]
        gone = [name for name in there if upload.kind.allows(name) and name not in upload.files]
        additions = [CommitOperationAdd(name, upload.folder / name) for name in changed]
        logger.info("%d of %d files are new or changed, %d go", len(changed), len(upload.files), len(gone))
        for start in range(0, len(additions), BATCH_FILES):
            batch = additions[start : start + BATCH_FILES]
            api.preupload_lfs_files(
                target.repo, batch, repo_type=target.repo_type, revision=target.revision, free_memory=False
            )
            logger.info("sent %d of %d files", start + len(batch), len(additions))
        if not additions and not gone:
            return parent
        commit = api.create_commit(
            target.repo,
            [*additions, *map(CommitOperationDelete, gone)],
            commit_message=f"Publish {upload.kind.name}",
            repo_type=target.repo_type,
            revision=target.revision,
            parent_commit=parent,
        )
    except HfHubHTTPError as error:
        _refused(error, f"--repo: {target.repo}")
    except (httpx2.TransportError, RuntimeError) as error:  # the latter says which file, its cause says why
        cause = error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            _refused(cause, f"--repo: {target.repo}")
        fail(f"network: the upload to {target.repo} stopped ({_first_line(cause)}); run the same command to go on")
    return commit.oid


def _prepare_repo(api: HfApi, target: Target) -> str:
    """Make the repository and the branch if they are not there; the commit that the branch is at."""
    api.create_repo(
        target.repo,
        repo_type=target.repo_type,
        private=target.private or None,
        exist_ok=True,
        space_sdk="gradio" if target.repo_type == "space" else None,
    )
    if target.private and not api.repo_info(target.repo, repo_type=target.repo_type).private:
        fail(f"--private: {target.repo} is public already; make it private in its settings, or leave the option out")
    try:
        info = api.repo_info(target.repo, repo_type=target.repo_type, revision=target.revision)
    except RevisionNotFoundError:
        api.create_branch(target.repo, branch=target.revision, repo_type=target.repo_type)
        info = api.repo_info(target.repo, repo_type=target.repo_type, revision=target.revision)
    if not isinstance(info.sha, str):
        fail(f"--repo: the Hub tells no commit of {target.repo}; try again later")
    return info.sha


def remote_files(api: HfApi, target: Target, revision: str) -> dict[str, RepoFile]:
    """The files of a revision.

    Args:
        api: The Hub.
        target: Which repository.
        revision: Commit.

    Returns:
        What the Hub tells of each, by name.
    """
    found = api.list_repo_tree(target.repo, recursive=True, revision=revision, repo_type=target.repo_type)
    return {file.path: file for file in found if isinstance(file, RepoFile)}


def _same(path: Path, remote: RepoFile | None) -> bool:
    """Whether a file is there already, by size, then by digest."""
    if remote is None or remote.size != path.stat().st_size:
        return False
    if remote.lfs is None:
        return remote.blob_id == sha.git_hash(path.read_bytes())
    with path.open("rb") as file:
        return remote.lfs.sha256 == hashlib.file_digest(file, "sha256").hexdigest()


def check_arrived(api: HfApi, target: Target, upload: Upload, commit: str) -> None:
    """Compare every file's digest with the Hub's.

    Args:
        api: The Hub.
        target: Where it went.
        upload: What was sent.
        commit: The commit.

    Raises:
        ValueError: If a file is missing or another.
    """
    there = remote_files(api, target, commit)
    wrong = [name for name in upload.files if not _same(upload.folder / name, there.get(name))]
    if wrong:
        fail(f"{wrong[0]}: is not on the Hub as it is here (and {len(wrong) - 1} others); run the same command again")


def load_back(kind: str, target: Target, commit: str, configs: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Load what was published in a fresh process with an empty cache and without this package.

    Args:
        kind: Of the repository.
        target: Where it went.
        commit: The commit.
        configs: Of data, the configurations to open.

    Returns:
        What `push_loadback` found, by name.

    Raises:
        ValueError: If it does not load.
    """
    with tempfile.TemporaryDirectory(prefix="gve-push-") as home:
        out = Path(home) / "found.npz"
        own = {"HF_HOME": home, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        caches = ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "HF_EVALUATE_CACHE", "HF_METRICS_CACHE")
        environment = {key: value for key, value in os.environ.items() if key not in caches} | own
        token = get_token()
        environment |= {"HF_TOKEN": token} if token else {}  # it may lie in the cache that the process does not see
        command = [sys.executable, "-P", push_loadback.__file__, kind, target.repo, commit, str(out), *configs]
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CHILD_SECONDS,
            )
        except subprocess.TimeoutExpired:
            fail(f"--repo: {target.repo} is published but was not loaded in {CHILD_SECONDS} s; load it by hand")
        if done.returncode != 0:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            logger.info("%s", done.stderr)
            fail(
                f"--repo: {target.repo} at {commit[:12]} is published but does not load ({reason}); correct and push again"
            )
        with np.load(out) as found:
            return dict(found)


def _refused(error: HfHubHTTPError, what: str) -> NoReturn:
    """The Hub's own words, and what to do."""
    status = error.response.status_code if error.response is not None else None
    if isinstance(error, RepositoryNotFoundError):
        hint = "check the name; a private repository needs a token that may see it: `hf auth login`"
    elif status == 401:
        hint = "the token is not valid; make one with write access at the Hub's settings and run `hf auth login`"
    elif status == 403:
        hint = "the token may not write there; take one with write access, or a repository of your own"
    elif status == 412:
        hint = "somebody has pushed meanwhile; look at it and run the same command again"
    elif status is not None and status >= 500:
        hint = "the Hub has a fault; run the same command later to go on"
    else:
        hint = "see the Hub's words"
    words = " ".join(str(error).split())
    fail(f"{what}: refused by the Hub ({words}); {hint}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
