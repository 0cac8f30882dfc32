"""What a clip of the rendered world holds: two things, their relation, two events, a camera program, a scene, a style.

A `Clip` is the exact truth of a video: the renderer draws it and the caption grammar describes it, so pairs and
positives are right by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from numpy.random import Generator

from gve.hub_datasets.world.worlds import DEFAULT, PLACES, WORLDS, world_of
from gve.media_gve import shown

COLORS = {
    "red": (235, 25, 25),
    "green": (25, 215, 25),
    "blue": (35, 35, 245),
    "yellow": (245, 235, 25),
    "cyan": (25, 230, 235),
    "magenta": (235, 25, 230),
    "white": (252, 252, 252),
    "black": (5, 5, 5),
}
SHAPES = tuple(WORLDS[DEFAULT].shapes)
SIZES = ("small", "large")
SCENES = ("desert", "ocean", "forest", "city", "night", "snow", "meadow", "volcano")
STYLES = ("clean", "grainy", "dim", "faded", "striped")
CAMERAS = ("static", "left", "right", "up", "down", "in", "out", "shake")
ACTIONS = tuple(WORLDS[DEFAULT].actions)
RELATIONS = ("left", "right", "above", "below")
INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
SPLITS = ("seen", "unseen")
_COLOR_NAMES = tuple(COLORS)
Option = TypeVar("Option")


@dataclass(frozen=True)
class Thing:
    """One object and the centre it starts from (0 to 1, x right, y down)."""

    color: str
    shape: str
    size: str
    x: float = 0.5
    y: float = 0.5

    @property
    def name(self) -> str:
        """Colour and shape, the identity in texts."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Clip:
    """The truth of one clip."""

    things: tuple[Thing, ...]  # two, or one in a reference picture
    relation: str  # of the first thing, seen from the second
    events: tuple[tuple[int, str], ...]  # (index of the thing, action) by half
    camera: tuple[str, str]  # motion by half
    scene: str
    style: str
    seed: int  # of background phases and grain


def held_out(color: str, shape: str) -> bool:
    """Whether training never shows this colour on this shape (12 of the 48 combinations)."""
    return (_COLOR_NAMES.index(color) + PLACES[shape]) % 4 == 0


def held_out_action(shape: str, action: str) -> bool:
    """Whether training never shows this shape do this action (8 of the 60 combinations)."""
    return (3 * PLACES[shape] + PLACES[action]) % 8 == 0


def choice(rng: Generator, options: Sequence[Option]) -> Option:
    """One option, uniformly; indexing keeps its type, unlike `rng.choice`."""
    return options[int(rng.integers(len(options)))]


def new_seed(rng: Generator) -> int:
    """A fresh seed for a clip's texture."""
    return int(rng.integers(2**31))


def sample_thing(rng: Generator, split: str) -> Thing:
    """A thing whose colour and shape belong to the split, of the generator's world."""
    shapes = tuple(world_of(rng).shapes)
    while True:
        color, shape = choice(rng, _COLOR_NAMES), choice(rng, shapes)
        if held_out(color, shape) == (split == "unseen"):
            return Thing(color, shape, choice(rng, SIZES))


def sample_action(rng: Generator, split: str, shape: str) -> str:
    """An action of the shape's world that the split allows for it."""
    actions = tuple(world_of(shape).actions)
    while True:
        action = choice(rng, actions)
        if split == "unseen" or not held_out_action(shape, action):
            return action


def sample_camera(rng: Generator) -> tuple[str, str]:
    """A camera program: a third static, a quarter one motion throughout, the rest two different motions."""
    draw = rng.random()
    if draw < 0.35:
        return ("static", "static")
    if draw < 0.6:
        motion = choice(rng, CAMERAS[1:])
        return (motion, motion)
    first = choice(rng, CAMERAS)
    return (first, choice(rng, [c for c in CAMERAS if c != first]))


def place(rng: Generator, things: tuple[Thing, Thing], relation: str) -> tuple[Thing, Thing]:
    """Put two things in a relation, well apart along its axis."""
    gap, middle, jitter = rng.uniform(0.4, 0.48), rng.uniform(0.42, 0.58), rng.uniform(-0.07, 0.07)
    near, far = 0.5 - gap / 2, 0.5 + gap / 2
    along = {"left": (near, far), "right": (far, near), "above": (near, far), "below": (far, near)}[relation]
    across = (middle + jitter, middle - jitter)
    if relation in ("left", "right"):
        return tuple(replace(t, x=a, y=c) for t, a, c in zip(things, along, across, strict=True))
    return tuple(replace(t, x=c, y=a) for t, a, c in zip(things, along, across, strict=True))


def telling(events: Sequence[tuple[int, str]]) -> bool:
    """Whether both events differ and are visible: a thing that vanished shows nothing in the second half."""
    return events[0] != events[1] and not (events[0][1] == "vanish" and events[0][0] == events[1][0])


def sample_events(rng: Generator, split: str, things: tuple[Thing, ...]) -> tuple[tuple[int, str], ...]:
    """Two different events; six times in ten the second is about the other thing."""
    first = int(rng.integers(2))
    second = 1 - first if rng.random() < 0.6 else first
    while True:
        events = tuple((i, sample_action(rng, split, things[i].shape)) for i in (first, second))
        if telling(events):
            return events


def sample_clip(
    rng: Generator,
    split: str,
    *,
    things: tuple[Thing, Thing] | None = None,
    camera: tuple[str, str] | None = None,
    scene: str | None = None,
    style: str | None = None,
) -> Clip:
    """A random clip of the generator's world; "unseen" means held-out combinations in both things. Given parts are kept."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {shown(split)}.")
    while things is None:
        pair = (sample_thing(rng, split), sample_thing(rng, split))
        alike = (pair[0].color == pair[1].color) + (pair[0].shape == pair[1].shape)
        if alike == 0 or (alike == 1 and rng.random() < 0.5):
            things = pair
    relation = choice(rng, RELATIONS)
    things = place(rng, things, relation)
    return Clip(
        things=things,
        relation=relation,
        events=sample_events(rng, split, things),
        camera=camera or sample_camera(rng),
        scene=scene or choice(rng, SCENES),
        style=style or choice(rng, STYLES),
        seed=new_seed(rng),
    )
