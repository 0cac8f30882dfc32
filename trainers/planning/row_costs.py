"""What a task's batch costs in tokens, from the headers of sampled rows or the paper's tables; nothing is decoded.

Shapes: B rows of a batch, K hard negatives of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from datasets import Dataset
from transformers import AutoProcessor, Qwen2VLImageProcessorPil
from transformers.utils import PROCESSOR_NAME

from gve.hub_datasets.schema import task_of
from gve.inputs_gve import parse_inputs
from gve.plan_gve import CallLimits, Plan, estimate_text, see, systems_of
from gve.trainers.planning.estimates import Load
from gve.video_processing_gve import GVEVideoProcessor


class PaperSource(NamedTuple):
    """One source of pairs."""

    rows: int  # its pairs (3B column)
    batch_size: int  # rows of a process's batch
    negatives: int  # hard negatives of a row


UVRD = {
    "t2t": PaperSource(100_000, 64, 0),
    "t2i": PaperSource(210_000, 32, 0),
    "t2v": PaperSource(879_000, 64, 1),
    "ti2v": PaperSource(89_000, 64, 1),
    "tv2v": PaperSource(35_000, 64, 1),
    "i2v": PaperSource(200_000, 64, 0),
    "v2v": PaperSource(36_000, 64, 0),
}
"""UVRD (Table 7)."""

COLLECTED = {
    "t2t-msmarco": PaperSource(300_000, 64, 2),
    "t2t-hotpotqa": PaperSource(69_000, 64, 1),
    "t2t-webqa": PaperSource(11_000, 32, 1),
    "t2i-fashion200k": PaperSource(4_000, 32, 1),
    "t2i-visualnews": PaperSource(40_000, 64, 1),
    "t2i-cc3m": PaperSource(200_000, 32, 3),
    "t2i-laion": PaperSource(300_000, 32, 3),
    "t2i-vl3-short": PaperSource(300_000, 32, 3),
    "t2i-vl3-detailed": PaperSource(200_000, 32, 3),
    "t2v-vast": PaperSource(1_600_000, 32, 0),
    "t2v-internvid": PaperSource(1_700_000, 32, 0),
    "t2v-pe-video": PaperSource(104_000, 64, 1),
    "t2v-webvid": PaperSource(5_400_000, 32, 0),
}
"""The collected sources (Table 6) of the kinds that a UVRD row can be; composed and image-to-text ones are left out."""

SOURCES = UVRD | COLLECTED

TEXT_TOKENS = 64
"""Tokens of a text without data; a general caption of the paper has 30 to 80 words."""
IMAGE_TOKENS, VIDEO_TOKENS = 256, 800
"""Most tokens of an image, and of a video of eight frames (two share their tokens) of 200."""
CHAT_TOKENS = 40
"""Tokens of a row besides its content: the chat's frame and a system message of usual length."""


SAMPLE = 64
"""Rows of a task whose headers are read."""
FRAMES = 8
IMAGE_PIXELS = {"shortest_edge": 4 * 28 * 28, "longest_edge": IMAGE_TOKENS * 28 * 28}


class Planner(Protocol):
    """What knows the cost of rows: a processor, or `HeaderPlanner`."""

    def plan(self, inputs: Sequence[Any], *, instruction: Sequence[str | None] | None = None) -> list[Plan]:
        """One plan a row."""


@dataclass(frozen=True)
class Column:
    """Tokens of one side of a task's batches, a row."""

    tokens: float  # mean of all tokens
    vision: float  # mean over images and videos
    longest: int  # of the sample's longest row, to which a batch is padded


class HeaderPlanner:
    """Plans rows by the paper's budgets where a model has no processor yet; texts count four bytes a token."""

    def __init__(self) -> None:
        video = GVEVideoProcessor(num_frames=FRAMES)
        self.processors = {"image": Qwen2VLImageProcessorPil(size=dict(IMAGE_PIXELS)), "video": video}
        self.budget = CallLimits(FRAMES, True, video.budget(None), dict(IMAGE_PIXELS))

    def plan(self, inputs: Sequence[Any], *, instruction: Sequence[str | None] | None = None) -> list[Plan]:
        """One plan a row."""
        rows = parse_inputs(inputs)
        plans = []
        for index, (row, system) in enumerate(zip(rows, systems_of(rows, instruction), strict=True)):
            row, seen = see(row, index, self.budget, self.processors)
            vision = sum(medium.tokens for medium in seen)
            text = CHAT_TOKENS + estimate_text(system) + estimate_text(row.text)
            plans.append(Plan(text + vision, vision, sum(medium.pixels for medium in seen), row))
        return plans


def make_planner(model: str | None) -> Planner:
    """The processor of a model folder or Hub name, or a stand-in without one."""
    if model is None or (Path(model).is_dir() and not (Path(model) / PROCESSOR_NAME).is_file()):
        return HeaderPlanner()
    return AutoProcessor.from_pretrained(model)


def measure_columns(
    rows: Dataset,
    negatives: int,
    planner: Planner,
    *,
    reference: bool = False,
    seed: int = 0,
    mined: bool = False,
) -> list[Column]:
    """Tokens of the query, the target, perhaps what the query shows, and each hard negative of sampled rows."""
    picks = np.sort(np.random.default_rng(seed).permutation(len(rows))[:SAMPLE])
    sample = (rows if negatives and not mined else rows.remove_columns("negatives")).select(picks).to_list()
    columns = [
        _column(planner.plan([_present(row["query"]) for row in sample], instruction=_instructions(sample))),
        _column(planner.plan([_present(row["target"]) for row in sample])),
    ]
    if reference:
        columns.append(_column(planner.plan([_present({**row["query"], "text": None}) for row in sample])))
    if mined:
        return [*columns, *[columns[1]] * negatives]
    for number in range(negatives):
        held = [row["negatives"][number] for row in sample if len(row["negatives"]) > number]
        if not held:
            raise ValueError(
                f"num_negatives: got {negatives} for {sample[0]['task']}, whose sampled rows have {number}; lower the "
                "number or mine more"
            )
        columns.append(_column(planner.plan([_present(media) for media in held])))
    return columns


def assume_columns(task: str, negatives: int, *, reference: bool = False) -> list[Column]:
    """The same without rows: every image and video at its budget, texts of usual length."""
    kind = task_of(task)
    if kind is None:
        raise ValueError(f"tasks: got {task!r}; a kind such as t2v, with a suffix or without, is needed; rename it")
    query, target = kind.split("2")
    shown = [_assumed(query.removeprefix("t"))] if reference else []
    return [_assumed(query), _assumed(target), *shown, *[_assumed(target)] * negatives]


def batch_load(columns: Sequence[Column], batch_size: int) -> Load:
    """What a process computes in one batch."""
    largest = max(columns, key=lambda column: column.longest)
    return Load(
        tokens=batch_size * sum(column.longest for column in columns),
        vision=round(batch_size * sum(column.vision for column in columns)),
        largest=batch_size * largest.longest,
        largest_vision=round(batch_size * max(column.vision for column in columns)),
        longest=largest.longest,
    )


def _assumed(side: str) -> Column:
    vision = IMAGE_TOKENS * side.count("i") + VIDEO_TOKENS * side.count("v")
    tokens = CHAT_TOKENS + TEXT_TOKENS * side.count("t") + vision
    return Column(float(tokens), float(vision), tokens)


def _column(plans: Sequence[Plan]) -> Column:
    tokens = [plan.tokens for plan in plans]
    return Column(float(np.mean(tokens)), float(np.mean([plan.vision for plan in plans])), max(tokens))


def _present(media: Mapping[str, Any]) -> dict[str, Any]:
    """One side of a row without what it lacks; files as their bytes or paths."""
    present: dict[str, Any] = {}
    for name in ("text", "image", "video"):
        value = media[name]
        if value is not None:
            present[name] = (
                value if name == "text" else value["bytes"] if value["bytes"] is not None else value["path"]
            )
    return present


def _instructions(sample: Sequence[Mapping[str, Any]]) -> list[str | None]:
    return [row["instruction"] for row in sample]
