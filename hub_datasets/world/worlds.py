"""The two worlds: their shapes and actions, with the words for them. All else, such as colours, cameras, grammar, is shared.

`held-out` has the structure of `default` with nothing that moves or looks alike: a choice made on one is judged on the
other. A seed names the world (`seed_of`), the generators made from the seed carry it, and what is drawn follows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gve.media_gve import shown

DEFAULT = "default"


@dataclass(frozen=True)
class World:
    """Words of each shape; words and keyword of each action. Order decides which combinations training never shows."""

    shapes: dict[str, tuple[str, ...]]
    actions: dict[str, tuple[tuple[str, ...], str]]


WORLDS = {
    DEFAULT: World(
        {
            "circle": ("circle", "disc"),
            "square": ("square", "box"),
            "triangle": ("triangle",),
            "cross": ("cross", "plus sign"),
            "ring": ("ring", "hoop"),
            "bar": ("bar", "plank"),
        },
        {
            "left": (("moves left", "slides to the left"), "leftward"),
            "right": (("moves right", "slides to the right"), "rightward"),
            "up": (("rises", "moves up"), "rising"),
            "down": (("sinks", "moves down"), "sinking"),
            "grow": (("grows", "gets bigger"), "growing"),
            "shrink": (("shrinks", "gets smaller"), "shrinking"),
            "vanish": (("vanishes", "fades away"), "vanishing"),
            "blink": (("blinks", "flickers"), "blinking"),
            "jump": (("jumps", "hops"), "jumping"),
            "shake": (("trembles", "wobbles"), "trembling"),
        },
    ),
    "held-out": World(
        {
            "diamond": ("diamond", "rhombus"),
            "heart": ("heart",),
            "crescent": ("crescent", "half moon"),
            "arrow": ("arrow", "pointer"),
            "hourglass": ("hourglass", "egg timer"),
            "horseshoe": ("horseshoe", "magnet"),
        },
        {
            "northeast": (("heads northeast", "climbs diagonally"), "northeastward"),
            "southwest": (("heads southwest", "descends diagonally"), "southwestward"),
            "clockwise": (("orbits clockwise", "loops clockwise"), "clockwise"),
            "counterclockwise": (("orbits counterclockwise", "loops counterclockwise"), "counterclockwise"),
            "swing": (("swings", "sways"), "swinging"),
            "bob": (("bobs", "floats up and down"), "bobbing"),
            "zigzag": (("zigzags", "weaves upward"), "zigzagging"),
            "swell": (("swells", "puffs up"), "swelling"),
            "contract": (("contracts", "shrivels"), "contracting"),
            "dissolve": (("dissolves", "turns transparent"), "dissolving"),
        },
    ),
}
PLACES = {
    name: place
    for world in WORLDS.values()
    for table in (world.shapes, world.actions)
    for place, name in enumerate(table)
}
"""Place of each shape and action in its own world; no name stands twice."""
_WORLD_OF = {shape: world for world in WORLDS.values() for shape in world.shapes}


class WorldSeed(NamedTuple):
    """A seed of a world other than the default one; it passes wherever a seed does."""

    number: int
    world: str


Seed = int | WorldSeed


def seed_of(number: int, world: str = DEFAULT) -> Seed:
    """The seed with which `build_pairs`, `build_sets` and others draw from a world: the number itself for the default.

    Raises:
        ValueError: If no world has this name.
    """
    if world not in WORLDS:
        raise ValueError(f"world must be one of {', '.join(WORLDS)}, got {shown(world)}. Correct the name.")
    return number if world == DEFAULT else WorldSeed(number, world)


class WorldGenerator(np.random.Generator):
    """A random generator whose clips come from a world; plain generators draw from the default one."""

    def __init__(self, numbers: list[int], world: str) -> None:
        super().__init__(np.random.PCG64(numbers))
        self.world = world


def world_of(source: np.random.Generator | str) -> World:
    """The world that a generator draws from, or that a shape belongs to."""
    if isinstance(source, str):
        return _WORLD_OF[source]
    return WORLDS[source.world if isinstance(source, WorldGenerator) else DEFAULT]
