"""The demo's folder, its finished stages, and its size, which follows from a short measurement of this machine."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gve.hub_datasets.files import write_json
from gve.hub_datasets.world.sets import Sizes
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes
from gve.media_gve import shown

SCHEMA = "gve-demo/1"
STATE_FILE = "demo.json"
BYTES_PER_MINUTE, BYTES_FIXED = 40 << 20, 400 << 20
"""Disk space of a demo: videos and pairs grow with its minutes, checkpoints and the benchmark do not."""
PAIRS = {"t2v": 12000, "t2t": 3400, "t2i": 3400, "ti2v": 1600, "tv2v": 1000, "i2v": 1000, "v2v": 640}
"""Training pairs of a demo of 15 minutes; others scale with their minutes."""
CLIPS_OF = {"t2v": 0.5, "t2t": 0, "t2i": 0.2, "ti2v": 1.2, "tv2v": 2, "i2v": 1.2, "v2v": 3}
"""Clips to render for one pair of a task."""
BENCHMARK_CLIPS, BENCHMARK_VIDEOS = 4850, 1900
SCORED_VIDEOS, SCORE_COST = 4800, 0.9
"""Videos and windows embedded to score the benchmark and to fill the corpus, and the time of one in rendered clips."""
RAW, LEAST_RAW = 200, 48
"""Videos of the raw corpus of a demo of 15 minutes, and at least."""
RAW_COST, MARK_COST, SETS_COST = 10.0, 1.4, 700
"""Time of V-SynFlow in rendered clips: a raw video, the fingerprint of a benchmark video, and reading its sets."""
LEAST_SHARE, MOST_SHARE = 0.04, 1.4
"""Bounds of minutes / 15; above the upper one decoded clips (2.6 GB) would not fit in memory, and every epoch would
decode them again."""


@dataclass(frozen=True)
class DemoSize:
    """What a demo makes: pairs by task, sizes of the benchmark, raw videos; and estimated seconds by stage."""

    pairs: dict[str, int]
    sizes: Sizes = field(default_factory=Sizes)
    raw: int = RAW
    workers: int = 2
    least_training: float = 20.0  # seconds of training even if the time is up
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def after_training(self) -> float:
        """Seconds of the stages after the training."""
        return sum(self.seconds.get(stage, 0.0) for stage in ("check", "score", "queries"))


def pairs_for(minutes: float) -> dict[str, int]:
    """Pairs by task, in whole groups of four."""
    share = min(MOST_SHARE, max(LEAST_SHARE, minutes / 15))
    return {task: max(80, int(count * share) // 4 * 4) for task, count in PAIRS.items()}


def size_for(minutes: float) -> DemoSize:
    """Measure this machine and choose the size of a demo that takes so many minutes."""
    pairs, raw = pairs_for(minutes), max(LEAST_RAW, int(RAW * min(MOST_SHARE, minutes / 15)))
    size, one = DemoSize(pairs, raw=raw), _clip_seconds()
    clips = sum(CLIPS_OF[task] * count for task, count in pairs.items()) + BENCHMARK_CLIPS + raw
    seconds = {"world": one * clips / size.workers}
    seconds["synthesis"] = one * (RAW_COST * raw + MARK_COST * BENCHMARK_VIDEOS + SETS_COST)
    seconds |= {"model": 5.0, "train": 0.0, "check": 3.0, "score": one * SCORE_COST * SCORED_VIDEOS, "queries": 12.0}
    seconds["train"] = max(size.least_training, minutes * 60 - sum(seconds.values()))
    return DemoSize(pairs, raw=raw, seconds=seconds)


def _clip_seconds(clips: int = 24) -> float:
    """Measured seconds to render and encode one clip."""
    rng = np.random.default_rng()  # clips that were rendered before are kept
    drawn = [sample_clip(rng, "seen") for _ in range(clips)]
    video_bytes((drawn[0],))
    start = time.perf_counter()
    for clip in drawn[1:]:
        video_bytes((clip,))
    return (time.perf_counter() - start) / (clips - 1)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


@dataclass
class Workspace:
    """The folder of one demo."""

    root: Path
    minutes: float  # time for the whole demo
    seed: int
    stages: dict[str, float] = field(default_factory=dict)  # seconds by finished stage
    facts: dict[str, Any] = field(default_factory=dict)  # what stages leave for later ones and for the report
    write: Callable[[str], Any] = _to_stderr  # shows a line to the user

    def __post_init__(self) -> None:
        self.uvrd, self.uvrb = self.root / "data" / "uvrd", self.root / "data" / "uvrb"
        self.synflow = self.root / "data" / "synflow"
        training = self.root / "training"
        self.untrained, self.pretrained = training / "untrained", training / "pretrained"
        self.lessons, self.checkpoints = training / "lessons", training / "checkpoints"
        self.model = self.root / "model"

    def save(self) -> None:
        """Write the state in one step, so that a demo killed at any instant can continue."""
        state = {"schema": SCHEMA, "minutes": self.minutes, "seed": self.seed}
        write_json(self.root / STATE_FILE, state | {"stages": self.stages, "facts": self.facts})

    @contextmanager
    def stage(self, name: str) -> Iterator[bool]:
        """Yield whether a stage is still to do; its time and facts are kept when the block ends well."""
        if name in self.stages:
            self.write(f"[{name}] done before, in {self.stages[name]:.0f} s")
            yield False
            return
        self.write(f"[{name}] ...")
        start = time.monotonic()
        yield True
        self.stages[name] = round(time.monotonic() - start, 1)
        self.save()
        self.write(f"[{name}] {self.stages[name]:.0f} s")


def open_workspace(
    root: Path, *, minutes: float, seed: int, resume: bool, write: Callable[[str], Any] = _to_stderr
) -> Workspace:
    """Begin a demo in an empty or new folder, or continue one with its own minutes and seed."""
    state, name = root / STATE_FILE, shown(str(root))
    if root.exists() and not root.is_dir():
        raise ValueError(f"--out: {name} is a file; it must be an empty or new folder. Choose another name.")
    if state.is_file():
        if resume:
            return _reopen(root, state, write)
        raise ValueError(f"--out: {name} holds a demo. Add --resume to continue it, or choose another folder.")
    if root.is_dir() and any(root.iterdir()):
        raise ValueError(
            f"--out: {name} is not empty and holds no demo; it must be empty or new. Choose another folder."
        )
    if resume:
        raise ValueError(f"--resume: {name} holds no demo. Start one without --resume.")
    _check_disk(root, minutes)
    root.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(root, minutes, seed, write=write)
    workspace.save()
    return workspace


def _reopen(root: Path, state: Path, write: Callable[[str], Any]) -> Workspace:
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        content = {}
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"--resume: {shown(str(state))} was written by another version (not {SCHEMA}). Start in another folder."
        )
    return Workspace(root, content["minutes"], content["seed"], content["stages"], content["facts"], write)


def _check_disk(root: Path, minutes: float) -> None:
    existing = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    free, need = shutil.disk_usage(existing).free, int(BYTES_FIXED + minutes * BYTES_PER_MINUTE)
    if free < need:
        raise ValueError(
            f"--out: {free >> 20} MiB are free below {shown(str(existing))}; a demo of {minutes:g} minutes needs "
            f"{need >> 20} MiB. Make room, or choose another disk."
        )
