"""Near-identical clips, the same clip with one thing changed, and composed queries made of them.

They make the benchmark's twin groups and the hard pairs of training. Composed queries are a picture or a clip plus
words (TI2V and TV2V; paper, Table 7). The four targets of a group are near-identical, so neither the words nor the
medium alone finds the right one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from numpy.random import Generator

from gve.hub_datasets.world.captions import (
    ACTION_WORDS,
    SCENE_WORDS,
    camera_text,
    event_fact,
    event_text,
    fact,
    name_thing,
)
from gve.hub_datasets.world.spec import (
    RELATIONS,
    SCENES,
    SIZES,
    Clip,
    Thing,
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
_SUBJECTS = ("the object from the image", "the thing in the picture", "the same object as in the image")
SAME_CLIP = ("the same clip", "the same video", "this clip")


def relation_group(clip: Clip, rng: Generator) -> list[Clip]:
    """The clip in all four relations."""
    return [
        replace(clip, things=place(rng, clip.things, relation), relation=relation, seed=new_seed(rng))
        for relation in RELATIONS
    ]


def order_group(clip: Clip, rng: Generator) -> list[Clip]:
    """Both orders of events and both assignments of actions to things: four texts, one bag of words."""
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
    """Four near-identical clips that differ in what one of the GROUPED_KINDS describes."""
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


@dataclass(frozen=True)
class Composed:
    """A composed query and its answer."""

    kind: str  # what sets the target apart in its group
    reference: Clip  # its first frame is the query's picture (TI2V), or it is the query's clip (TV2V)
    text: str
    target: Clip
    facts: frozenset[int]  # what the query states about the target


def content_fact(clip: Clip) -> int:
    """Id of everything a clip shows, whatever its texture seed and exact places."""
    things = [part for t in clip.things for part in (t.color, t.shape, t.size)]
    events = [part for index, action in clip.events for part in (str(index), action)]
    return fact("content", *things, clip.relation, *events, *clip.camera, clip.scene, clip.style)


def reference_picture(thing: Thing, rng: Generator, split: str) -> Clip:
    """A still clip of one thing alone, same colour and shape, at another place and maybe size."""
    alone = replace(thing, size=choice(rng, SIZES), x=float(rng.uniform(0.3, 0.7)), y=float(rng.uniform(0.3, 0.7)))
    return replace(sample_clip(rng, split), things=(alone,), events=(), camera=("static", "static"))


def leading_thing(clip: Clip) -> Thing:
    """The thing that acts in the first half."""
    return clip.things[clip.events[0][0]]


def action_text(clip: Clip, rng: Generator) -> str:
    """What the picture's thing does in the first half, and where."""
    action, scene = ACTION_WORDS[clip.events[0][1]], SCENE_WORDS[clip.scene]
    return f"{choice(rng, _SUBJECTS)} {choice(rng, action)} {choice(rng, scene)}"


def action_facts(clip: Clip) -> frozenset[int]:
    """Facts that a picture and `action_text` state together."""
    return frozenset({fact("thing", leading_thing(clip).name), event_fact(clip, 0), fact("scene", clip.scene)})


def image_group(rng: Generator, split: str) -> list[Composed]:
    """Four TI2V pairs: a target, then another thing (same text), another action, another scene."""
    clip = sample_clip(rng, split)
    picture, text = reference_picture(leading_thing(clip), rng, split), action_text(clip, rng)
    swapped = change_thing(clip, rng, split, index=clip.events[0][0])
    other = reference_picture(leading_thing(swapped), rng, split)
    pairs = [Composed("same", picture, text, clip, action_facts(clip))]
    pairs.append(Composed("thing", other, text, swapped, action_facts(swapped)))
    for kind, target in (("event", change_event(clip, rng, split, half=0)), ("scene", change_scene(clip, rng, split))):
        pairs.append(Composed(kind, picture, action_text(target, rng), target, action_facts(target)))
    return pairs


def modification_text(reference: Clip, target: Clip, modification: str, rng: Generator) -> str:
    """How `modify(reference, modification, ...)` differs from its reference."""
    same = choice(rng, SAME_CLIP)
    if modification == "thing":
        (old, new) = next(pair for pair in zip(reference.things, target.things, strict=True) if pair[0] != pair[1])
        gone = name_thing(old, rng, article="the")
        come = name_thing(new, rng)
        return choice(rng, (f"{same} with {come} instead of {gone}", f"{same} but {gone} is replaced by {come}"))
    if modification == "scene":
        old, new = (choice(rng, SCENE_WORDS[clip.scene]) for clip in (reference, target))
        return choice(rng, (f"{same} but {new}", f"{same} {new} instead of {old}"))
    if modification == "camera":
        return f"{same} but {choice(rng, ('', 'now '))}{camera_text(target.camera, rng)}"
    told = event_text(target, 1, rng)
    return choice(rng, (f"{same} but at the end {told}", f"{same} but in the second half {told}"))


def modified(reference: Clip, modification: str, rng: Generator, split: str) -> Composed:
    """One TV2V pair about a reference clip."""
    target = modify(reference, modification, rng, split)
    text = modification_text(reference, target, modification, rng)
    return Composed(modification, reference, text, target, frozenset({content_fact(target)}))


def video_group(rng: Generator, split: str) -> list[Composed]:
    """Four TV2V pairs about one reference clip: four kinds of modification or, half of the time, one kind."""
    reference = sample_clip(rng, split)
    mixed = rng.random() < 0.5
    kinds = MODIFICATIONS if mixed else (choice(rng, MODIFICATIONS),) * GROUP_SIZE
    pairs: list[Composed] = []
    while len(pairs) < GROUP_SIZE:
        pair = modified(reference, kinds[len(pairs)], rng, split)
        if all(pair.facts != other.facts for other in pairs):
            pairs.append(pair)
    return pairs


def retake(clip: Clip, rng: Generator) -> Clip:
    """The clip recorded again: same content, another texture."""
    return replace(clip, seed=new_seed(rng))
