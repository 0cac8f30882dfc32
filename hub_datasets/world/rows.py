"""Pairs before they are rendered: the words, pictures and clips of each side, and how they become a row."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from gve.hub_datasets.schema import media
from gve.hub_datasets.world.spec import Clip
from gve.hub_datasets.world.video import picture_bytes, video_bytes
from gve.hub_datasets.world.worlds import Seed, WorldGenerator, WorldSeed


@dataclass(frozen=True)
class Side:
    """One side of a pair: words, a picture (a clip and a time), and the clips of a video."""

    text: str | None = None
    picture: tuple[Clip, float] | None = None
    clips: tuple[Clip, ...] = ()

    def render(self) -> dict[str, Any]:
        """Media dict of the row schema, with encoded files."""
        image = None if self.picture is None else picture_bytes(*self.picture)
        return media(self.text, image, video_bytes(self.clips) if self.clips else None)


@dataclass(frozen=True)
class Pair:
    """A UVRD row before it is rendered, with the fields of `schema.pair_features`."""

    id: str
    task: str
    kind: str
    instruction: str
    query: Side
    target: Side
    group: str = ""
    query_facts: frozenset[int] = frozenset()
    target_facts: frozenset[int] = frozenset()
    negatives: tuple[Side, ...] = ()

    def render(self) -> dict[str, Any]:
        """The row, with encoded files."""
        return {
            "id": self.id,
            "task": self.task,
            "kind": self.kind,
            "instruction": self.instruction,
            "query": self.query.render(),
            "target": self.target.render(),
            "negatives": [side.render() for side in self.negatives],
            "group": self.group,
            "query_facts": sorted(self.query_facts),
            "target_facts": sorted(self.target_facts),
        }


def stream(seed: Seed, *path: str | int) -> np.random.Generator:
    """Random generator of one part of the seed's world: equal in every process, independent of all other parts."""
    parts = (*seed, *path) if isinstance(seed, WorldSeed) else (seed, *path)
    numbers = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return WorldGenerator(numbers, seed.world) if isinstance(seed, WorldSeed) else np.random.default_rng(numbers)
