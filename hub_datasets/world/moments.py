"""Long videos with exact true moments, to score moment retrieval offline: texts, and a picture with words.

A video shows eight clips of four to eight seconds, cut hard: some are near-identical, one comes twice. A moment is a
longest stretch whose clips all answer the query.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from gve.hub_datasets.files import write_atomic, write_text
from gve.hub_datasets.world.captions import answers, caption, clip_facts
from gve.hub_datasets.world.render import frame_times, render
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.spec import Clip, choice, sample_clip
from gve.hub_datasets.world.variants import (
    action_facts,
    action_text,
    change_scene,
    change_thing,
    leading_thing,
    reference_picture,
    retake,
)
from gve.hub_datasets.world.video import FRAME_SIZE, picture_bytes
from gve.hub_datasets.world.worlds import Seed
from gve.media_gve import MP4, PNG
from gve.video_writer import encode_mp4

SPLIT, CLIPS = "unseen", 8
FPS, FRAMES = 2, (8, 12, 16)
"""Frames a second, and those of a clip: four, six or eight seconds."""
MOMENT_FILES = ("text.jsonl", "text-image.jsonl")


@dataclass(frozen=True)
class MomentVideo:
    """A long video before it is rendered, with its queries."""

    name: str
    parts: tuple[tuple[Clip, int], ...]  # clips and their frames
    queries: tuple[tuple[str, dict[str, Any], Clip | None], ...]  # file, row, clip of the picture

    @property
    def seconds(self) -> float:
        """Its length."""
        return sum(frames for _, frames in self.parts) / FPS

    def render(self) -> bytes:
        """The MP4."""
        shown = [render(clip, frame_times(frames), size=FRAME_SIZE) for clip, frames in self.parts]
        return encode_mp4(np.concatenate(shown), FPS)


def moment_video(number: int, seed: Seed) -> MomentVideo:
    """One long video, independent of all others, with two queries of text and two of a picture with words."""
    rng = stream(seed, "moments", number)
    clips = _clips(rng)
    parts = tuple((clips[int(place)], choice(rng, FRAMES)) for place in rng.permutation(len(clips)))
    asked = [clips[int(place)] for place in rng.permutation(len(clips))[:4]]
    name, queries = f"m{number:03d}", []
    for place, clip in enumerate(asked):
        row: dict[str, Any] = {"qid": f"{name}-{place}"}
        if place < 2:
            told = caption(clip, "coarse", rng)
            row["query"], facts, picture = told.text, told.facts, None
        else:
            row["query"], facts = action_text(clip, rng), action_facts(clip)
            row["image"], picture = f"pictures/{name}-{place}{PNG}", reference_picture(leading_thing(clip), rng, SPLIT)
        row |= {"vid": name, "relevant_windows": _moments(parts, facts)}
        queries.append((MOMENT_FILES[place // 2], row, picture))
    return MomentVideo(name, parts, tuple(queries))


def media_files(folder: Path, number: int, seed: Seed) -> tuple[Path, ...]:
    """The files that `write_media` makes."""
    video = moment_video(number, seed)
    pictures = [folder / row["image"] for _, row, clip in video.queries if clip is not None]
    return (folder / "videos" / f"{video.name}{MP4}", *pictures)


def write_media(folder: Path, number: int, seed: Seed) -> None:
    """Render one video and the pictures of its queries."""
    video = moment_video(number, seed)
    for _, row, clip in video.queries:
        if clip is not None:
            write_atomic(folder / row["image"], picture_bytes(clip, 0.0))
    write_atomic(folder / "videos" / f"{video.name}{MP4}", video.render())


def write_queries(folder: Path, count: int, seed: Seed) -> None:
    """Write the annotations of all videos, in QVHighlights' fields."""
    videos = [moment_video(number, seed) for number in range(count)]
    for file in MOMENT_FILES:
        rows = [row | {"duration": one.seconds} for one in videos for name, row, _ in one.queries if name == file]
        write_text(folder / file, "".join(json.dumps(row) + "\n" for row in rows))


def _clips(rng: Generator) -> list[Clip]:
    """Three clips, variants of the first two that differ in the scene or in a thing, and one of them once more."""
    one, two, three = (sample_clip(rng, SPLIT) for _ in range(3))
    clips = [one, two, three, retake(choice(rng, (one, two, three)), rng)]
    for clip in (one, two):
        clips += [change_scene(clip, rng, SPLIT), change_thing(clip, rng, SPLIT)]
    return clips


def _moments(parts: Iterable[tuple[Clip, int]], facts: frozenset[int]) -> list[list[float]]:
    """Start and end of each longest stretch of clips that answer."""
    moments, time = [], 0.0
    for fits, stretch in groupby(parts, lambda part: answers(facts, clip_facts(part[0]))):
        begun, time = time, time + sum(frames for _, frames in stretch) / FPS
        moments += [[begun, time]] if fits else []
    return moments
