"""The demo's folder: where each thing lies, what is done, and whether the folder may be used at all."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gve.eval.files import write_atomic

SCHEMA = "gve-demo/1"
STATE_FILE = "demo.json"
BYTES_PER_MINUTE, BYTES_FIXED = 40 << 20, 400 << 20
"""Disk that a demo needs: videos and pairs grow with its minutes, checkpoints and the benchmark do not."""


@dataclass
class Workspace:
    """The folder of one demo.

    Attributes:
        root: The folder.
        minutes: Budget of the whole demo.
        seed: Of everything random.
        stages: Seconds by finished stage.
        facts: What stages leave for later ones and for the report.
    """

    root: Path
    minutes: float
    seed: int
    stages: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def uvrd(self) -> Path:
        """The training pairs."""
        return self.root / "data" / "uvrd"

    @property
    def synflow(self) -> Path:
        """V-SynFlow's work on the raw corpus; its pairs lie in `uvrd` there."""
        return self.root / "data" / "synflow"

    @property
    def uvrb(self) -> Path:
        """The benchmark."""
        return self.root / "data" / "uvrb"

    @property
    def untrained(self) -> Path:
        """The model before all training."""
        return self.root / "training" / "untrained"

    @property
    def pretrained(self) -> Path:
        """The model that can tell what it sees, before the contrastive training."""
        return self.root / "training" / "pretrained"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the training."""
        return self.root / "training" / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.root / "model"

    def save(self) -> None:
        """Write the state at once, so that a demo killed at any instant can go on."""
        state = {"schema": SCHEMA, "minutes": self.minutes, "seed": self.seed}
        content = state | {"stages": self.stages, "facts": self.facts}
        write_atomic(self.root / STATE_FILE, (json.dumps(content, indent=2) + "\n").encode())

    @contextmanager
    def stage(self, name: str, write: Callable[[str], Any]) -> Iterator[bool]:
        """Run a stage unless it is done; its time and facts are kept when it ends well.

        Args:
            name: Of the stage.
            write: Shows a line to the user.

        Yields:
            Whether there is anything to do.
        """
        if name in self.stages:
            write(f"[{name}] done before, in {self.stages[name]:.0f} s")
            yield False
            return
        write(f"[{name}] ...")
        start = time.monotonic()
        yield True
        self.stages[name] = round(time.monotonic() - start, 1)
        self.save()
        write(f"[{name}] {self.stages[name]:.0f} s")


def open_workspace(root: Path, *, minutes: float, seed: int, resume: bool) -> Workspace:
    """Begin a demo in an empty folder, or go on with one.

    Args:
        root: The folder; made when it does not exist.
        minutes: Budget of the whole demo.
        seed: Of everything random.
        resume: Whether to go on with the demo that lies there, with its own minutes and seed.

    Returns:
        The workspace.

    Raises:
        ValueError: When the folder holds something else, or the disk is too small.
    """
    state = root / STATE_FILE
    if root.exists() and not root.is_dir():
        raise ValueError(f"--out: {str(root)!r} is a file; an empty or new folder is accepted; choose another name")
    if state.is_file():
        if not resume:
            raise ValueError(
                f"--out: {str(root)!r} holds a demo already; add --resume to go on with it, or choose another folder"
            )
        return _reopen(root, state)
    if root.is_dir() and any(root.iterdir()):
        raise ValueError(
            f"--out: {str(root)!r} is not empty and holds no demo; an empty or new folder is accepted; choose another"
        )
    if resume:
        raise ValueError(f"--resume: {str(root)!r} holds no demo; start one without --resume")
    check_disk(root, minutes)
    root.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(root, minutes, seed)
    workspace.save()
    return workspace


def _reopen(root: Path, state: Path) -> Workspace:
    try:
        content = json.loads(state.read_text())
    except json.JSONDecodeError:
        content = {}
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"--resume: {str(state)!r} is not a state of {SCHEMA}; it was written by another version; start anew "
            "in another folder"
        )
    return Workspace(root, content["minutes"], content["seed"], content["stages"], content["facts"])


def check_disk(root: Path, minutes: float) -> None:
    """Refuse a disk that would fill up in the middle.

    Args:
        root: Where the demo is to lie.
        minutes: Its budget.

    Raises:
        ValueError: When there is too little room.
    """
    existing = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    free, need = shutil.disk_usage(existing).free, int(BYTES_FIXED + minutes * BYTES_PER_MINUTE)
    if free < need:
        raise ValueError(
            f"--out: {free >> 20} MiB are free below {str(existing)!r}; a demo of {minutes:g} minutes needs "
            f"{need >> 20} MiB; make room, or choose another disk"
        )
