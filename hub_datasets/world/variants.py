"""Near-identical clips: the same clip with one thing changed.

They make the benchmark's twin groups (naming the right things is not enough), the hard pairs of training, and the
reference-target pairs of the composed tasks.
"""

from collections.abc import Callable
from dataclasses import replace

from numpy.random import Generator

from gve.hub_datasets.world.spec import (
    RELATIONS,
    SCENES,
    Clip,
    choice,
    held_out_action,
    new_seed,
    place,
    sample_action,
    sample_camera,
    sample_clip,
    sample_thing,
    telling,
)
from gve.media_gve import shown

GROUP_SIZE = 4
GROUPED_KINDS = ("spatial", "temporal", "camera", "event")
"""Kinds of text whose training rows come in groups of near-identical clips."""
MODIFICATIONS = ("thing", "scene", "camera", "event")


def relation_group(clip: Clip, rng: Generator) -> list[Clip]:
    """The clip in all four relations."""
    return [
        replace(clip, things=place(rng, clip.things, relation), relation=relation, seed=new_seed(rng))
        for relation in RELATIONS
    ]


def order_group(clip: Clip, rng: Generator) -> list[Clip]:
    """The clip with both orders of events and both assignments of actions to things: four texts, one bag of words."""
    (first, one), (second, two) = clip.events
    orders = (
        ((first, one), (second, two)),
        ((second, two), (first, one)),
        ((first, two), (second, one)),
        ((second, one), (first, two)),
    )
    return [replace(clip, events=events, seed=new_seed(rng)) for events in orders]


def sample_order_clip(rng: Generator, split: str) -> Clip:
    """A clip with two different actions of two different things, all swaps allowed by the split."""
    while True:
        clip = sample_clip(rng, split)
        (first, one), (second, two) = clip.events
        swapped = ((clip.things[first].shape, two), (clip.things[second].shape, one))
        allowed = split == "unseen" or not any(held_out_action(shape, action) for shape, action in swapped)
        if first != second and one != two and allowed:
            return clip


def change_camera(clip: Clip, rng: Generator, split: str) -> Clip:
    """The clip under another camera program."""
    while True:
        camera = sample_camera(rng)
        if camera != clip.camera:
            return replace(clip, camera=camera, seed=new_seed(rng))


def change_event(clip: Clip, rng: Generator, split: str, *, half: int | None = None) -> Clip:
    """The clip with another action of the same thing in one half."""
    half = int(rng.integers(2)) if half is None else half
    index, old = clip.events[half]
    while True:
        action = sample_action(rng, split, clip.things[index].shape)
        events = [clip.events[0], clip.events[1]]
        events[half] = (index, action)
        if action != old and telling(events):
            return replace(clip, events=tuple(events), seed=new_seed(rng))


def change_scene(clip: Clip, rng: Generator, split: str) -> Clip:
    """The clip in another scene."""
    scene = choice(rng, [s for s in SCENES if s != clip.scene])
    return replace(clip, scene=scene, seed=new_seed(rng))


def change_thing(clip: Clip, rng: Generator, split: str, *, index: int | None = None) -> Clip:
    """The clip with another thing in the place of one of its things."""
    index = int(rng.integers(len(clip.things))) if index is None else index
    while True:
        new = sample_thing(rng, split)
        if new.name not in {t.name for t in clip.things}:
            things = list(clip.things)
            things[index] = replace(things[index], color=new.color, shape=new.shape)
            if _events_allowed(things[index].shape, index, clip, split):
                return replace(clip, things=tuple(things), seed=new_seed(rng))


def _events_allowed(shape: str, index: int, clip: Clip, split: str) -> bool:
    actions = [action for i, action in clip.events if i == index]
    return split == "unseen" or not any(held_out_action(shape, action) for action in actions)


def modify(clip: Clip, modification: str, rng: Generator, split: str) -> Clip:
    """The clip with one of the MODIFICATIONS applied; "event" changes the second half."""
    if modification == "event":
        return change_event(clip, rng, split, half=1)
    return {"thing": change_thing, "scene": change_scene, "camera": change_camera}[modification](clip, rng, split)


def group(kind: str, rng: Generator, split: str) -> list[Clip]:
    """Four near-identical clips that differ in what one of the GROUPED_KINDS of text describes."""
    if kind == "spatial":
        return relation_group(sample_clip(rng, split), rng)
    if kind == "temporal":
        return order_group(sample_order_clip(rng, split), rng)
    if kind in ("camera", "event"):
        change = change_camera if kind == "camera" else change_event
        return _distinct(sample_clip(rng, split), change, rng, split)
    raise ValueError(f"kind must be one of {', '.join(GROUPED_KINDS)}, got {shown(kind)}.")


def _distinct(clip: Clip, change: Callable[[Clip, Generator, str], Clip], rng: Generator, split: str) -> list[Clip]:
    clips = [clip]
    while len(clips) < GROUP_SIZE:
        new = change(clip, rng, split)
        if all((new.camera, new.events) != (c.camera, c.events) for c in clips):
            clips.append(new)
    return clips
