"""A raw corpus: videos with weak, partly wrong titles, as input of the data flow that makes pairs.

The truth about every title is kept beside it, so that a quality filter can be scored.
"""

import csv
import io
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.random import Generator

from gve.hub_datasets.files import write_atomic, write_text
from gve.hub_datasets.schema import media
from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.captions import SCENE_WORDS, event_text, name_thing
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.spec import COLORS, SCENES, Clip, choice, sample_clip
from gve.hub_datasets.world.video import video_bytes
from gve.hub_datasets.world.worlds import Seed
from gve.media_gve import MP4

TITLE_KINDS = {"plain": 0.6, "wrong color": 0.13, "wrong scene": 0.12, "vague": 0.1, "duplicate": 0.05}
"""Shares of the titles by kind; a duplicate shows an earlier clip again under another title."""
_VAGUE = ("my clip {:04d} final", "untitled {:d}", "VID_{:05d}", "test render {:d} v2", "new video {:d}")


@dataclass(frozen=True)
class RawVideo:
    """One video of the raw corpus; a duplicate names its original."""

    file: str
    title: str
    kind: str
    clip: Clip
    original: str = ""

    @property
    def correct(self) -> bool:
        """Whether the title describes the video."""
        return self.kind in ("plain", "duplicate")


def weak_title(clip: Clip, rng: Generator) -> str:
    """A short title that describes part of a clip."""
    thing, scene = choice(rng, clip.things), choice(rng, SCENE_WORDS[clip.scene])
    draw = rng.random()
    if draw < 0.4:
        return f"{name_thing(thing, rng, article='')} {scene}"
    if draw < 0.7:
        return f"{event_text(clip, int(rng.integers(2)), rng, article='')} {scene}".strip()
    return f"{name_thing(clip.things[0], rng, article='')} and {name_thing(clip.things[1], rng, article='')} {scene}"


def _mistaken(clip: Clip, kind: str, rng: Generator) -> Clip:
    """The clip as somebody who misremembers it would describe it."""
    if kind == "wrong scene":
        return replace(clip, scene=choice(rng, [scene for scene in SCENES if scene != clip.scene]))
    taken = {thing.color for thing in clip.things}
    colors = [choice(rng, [color for color in COLORS if color not in taken]) for _ in clip.things]
    return replace(clip, things=tuple(replace(t, color=c) for t, c in zip(clip.things, colors, strict=True)))


@lru_cache(maxsize=2)
def raw_videos(count: int, seed: Seed) -> tuple[RawVideo, ...]:
    """The raw corpus, nothing rendered yet; cached, because each part of the files begins with all of it."""
    videos: list[RawVideo] = []
    originals: list[RawVideo] = []
    for number in range(count):
        rng = stream(seed, "raw", number)
        kind = str(rng.choice(list(TITLE_KINDS), p=list(TITLE_KINDS.values())))
        kind = "plain" if kind == "duplicate" and not originals else kind
        clip, original, file = sample_clip(rng, "seen"), "", f"v{number:05d}{MP4}"
        if kind == "duplicate":
            earlier = choice(rng, originals)
            clip, original = earlier.clip, earlier.file
        if kind == "vague":
            title = choice(rng, _VAGUE).format(int(rng.integers(10000)))
        else:
            title = weak_title(clip if kind in ("plain", "duplicate") else _mistaken(clip, kind, rng), rng)
        videos.append(RawVideo(file, title, kind, clip, original))
        originals += videos[-1:] if kind != "duplicate" else []
    return tuple(videos)


def write_raw_videos(folder: Path, count: int, seed: Seed, start: int, stop: int) -> None:
    """Render the missing files from `start` to `stop`."""
    for video in raw_videos(count, seed)[start:stop]:
        if not (folder / "videos" / video.file).exists():
            write_atomic(folder / "videos" / video.file, video_bytes((video.clip,)))


def write_titles(folder: Path, count: int, seed: Seed) -> None:
    """Write titles.csv (file, title) and truth.jsonl (file, title, kind, correct, original, clip)."""
    videos = raw_videos(count, seed)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file", "title"))
    writer.writerows((video.file, video.title) for video in videos)
    truth = [json.dumps({**asdict(video), "correct": video.correct}) for video in videos]
    write_text(folder / "truth.jsonl", "\n".join(truth) + "\n")
    write_text(folder / "titles.csv", table.getvalue())


def raw_rows(folder: Path) -> list[dict[str, Any]]:
    """The corpus as T2V rows, right titles and wrong ones; facts are empty because none are known."""
    with (folder / "titles.csv").open(newline="", encoding="utf-8") as file:
        titles = list(csv.DictReader(file))
    return [
        {
            "id": f"collected-{entry['file'].removesuffix(MP4)}",
            "task": "t2v",
            "kind": "collected",
            "instruction": SETS["MSRVTT"].instruction,
            "query": media(entry["title"]),
            "target": media(video=(folder / "videos" / entry["file"]).read_bytes()),
            "negatives": [],
            "group": "",
            "query_facts": [],
            "target_facts": [],
        }
        for entry in titles
    ]
