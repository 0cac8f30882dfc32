"""What the demo will make and how long it will take, from a short measurement of this machine."""

import time
from dataclasses import dataclass, field

import numpy as np

from gve.hub_datasets.world.benchmark import Sizes
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes

PAIRS = {"t2v": 12000, "t2t": 3400, "t2i": 3400, "ti2v": 1600, "tv2v": 1000, "i2v": 1000, "v2v": 640}
"""Training pairs of a demo of 15 minutes; others scale with their minutes."""
CLIPS_OF = {"t2v": 0.5, "t2t": 0, "t2i": 0.2, "ti2v": 1.2, "tv2v": 2, "i2v": 1.2, "v2v": 3}
"""Clips that one pair of a task costs to render."""
BENCHMARK_CLIPS, SCORED_VIDEOS = 4600, 4200
"""Clips of the benchmark, and videos embedded to score it and to fill the corpus."""
SCORED_COST = 1.0
"""Embedding a video takes about as many times what rendering one takes."""
RAW, LEAST_RAW = 200, 48
"""Videos of the raw corpus of a demo of 15 minutes, and at least."""
RAW_COST, MARK_COST, SETS_COST = 7.0, 0.7, 700
"""What V-SynFlow takes, in clips rendered: of a raw video, of the fingerprint of a benchmark's, and of reading its sets."""
BENCHMARK_VIDEOS = 1900
LEAST_SHARE, MOST_SHARE = 0.04, 1.4
"""Bounds of minutes / 15; the upper one keeps every decoded clip in memory (2.6 GB), or each epoch would decode anew."""


@dataclass(frozen=True)
class Plan:
    """What a demo makes.

    Attributes:
        pairs: Training pairs by task.
        sizes: Of the benchmark's sets.
        raw: Videos of the raw corpus.
        workers: Processes that render.
        least_training: Seconds that the training gets even when the budget is over.
        seconds: Estimate by stage.
    """

    pairs: dict[str, int]
    sizes: Sizes = field(default_factory=Sizes)
    raw: int = RAW
    workers: int = 2
    least_training: float = 20.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def after_training(self) -> float:
        """Seconds that the stages behind the training take."""
        return sum(self.seconds.get(stage, 0.0) for stage in ("check", "score", "queries"))


def planned_pairs(minutes: float) -> dict[str, int]:
    """Pairs by task for a demo of so many minutes, whole groups of four."""
    share = min(MOST_SHARE, max(LEAST_SHARE, minutes / 15))
    return {task: max(80, int(count * share) // 4 * 4) for task, count in PAIRS.items()}


def clip_seconds(clips: int = 24) -> float:
    """Measured seconds to render and encode one clip."""
    rng = np.random.default_rng(0)
    drawn = [sample_clip(rng, "seen") for _ in range(clips)]
    video_bytes((drawn[0],))
    start = time.perf_counter()
    for clip in drawn[1:]:
        video_bytes((clip,))
    return (time.perf_counter() - start) / (clips - 1)


def make_plan(minutes: float) -> Plan:
    """Measure this machine and plan a demo.

    Args:
        minutes: Budget of the whole demo.
    """
    raw = int(RAW * min(MOST_SHARE, minutes / 15))
    plan, one = Plan(planned_pairs(minutes), raw=max(LEAST_RAW, raw)), clip_seconds()
    clips = sum(CLIPS_OF[task] * count for task, count in plan.pairs.items()) + BENCHMARK_CLIPS + plan.raw
    seconds = {"world": one * clips / plan.workers}
    seconds["synthesis"] = one * (RAW_COST * plan.raw + MARK_COST * BENCHMARK_VIDEOS + SETS_COST)
    seconds |= {"model": 5.0, "train": 0.0, "check": 5.0}
    seconds |= {"score": one * SCORED_COST * SCORED_VIDEOS, "queries": 20.0}
    seconds["train"] = max(plan.least_training, minutes * 60 - sum(seconds.values()))
    return Plan(plan.pairs, raw=plan.raw, seconds=seconds)
