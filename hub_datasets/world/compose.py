"""Composed pairs: a picture or a clip, plus words, queries for a clip (TI2V and TV2V; paper, Table 7).

The four targets of a group are near-identical, so neither the words nor the medium alone finds the right one.
"""

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
from gve.hub_datasets.world.spec import SIZES, Clip, Thing, choice, new_seed, sample_clip
from gve.hub_datasets.world.variants import (
    GROUP_SIZE,
    MODIFICATIONS,
    change_event,
    change_scene,
    change_thing,
    modify,
)

_SUBJECTS = ("the object from the image", "the thing in the picture", "the same object as in the image")
_SAME = ("the same clip", "the same video", "this clip")


@dataclass(frozen=True)
class Composed:
    """A composed query and its answer.

    Attributes:
        kind: What sets the target apart within its group.
        reference: A clip of one thing whose start is the query's picture (TI2V), or the query's clip (TV2V).
        text: What the target shows of the picture's thing, or how the target differs from the query's clip.
        facts: What the query states about the target.
    """

    kind: str
    reference: Clip
    text: str
    target: Clip
    facts: frozenset[int]


def content_fact(clip: Clip) -> int:
    """The id of everything a clip shows, whatever its texture's seed and the exact places of its things."""
    things = [part for t in clip.things for part in (t.color, t.shape, t.size)]
    events = [part for index, action in clip.events for part in (str(index), action)]
    return fact("content", *things, clip.relation, *events, *clip.camera, clip.scene, clip.style)


def reference_picture(thing: Thing, rng: Generator, split: str) -> Clip:
    """A still clip that shows one thing alone, of the same colour and shape, at another place and maybe size."""
    alone = replace(thing, size=choice(rng, SIZES), x=float(rng.uniform(0.3, 0.7)), y=float(rng.uniform(0.3, 0.7)))
    return replace(sample_clip(rng, split), things=(alone,), events=(), camera=("static", "static"))


def leading_thing(clip: Clip) -> Thing:
    """The thing that acts in the first half."""
    return clip.things[clip.events[0][0]]


def action_text(clip: Clip, rng: Generator) -> str:
    """What the picture's thing does in the first half of a clip, and where."""
    action, scene = ACTION_WORDS[clip.events[0][1]], SCENE_WORDS[clip.scene]
    return f"{choice(rng, _SUBJECTS)} {choice(rng, action)} {choice(rng, scene)}"


def action_facts(clip: Clip) -> frozenset[int]:
    """What a picture and `action_text` state together."""
    return frozenset({fact("thing", leading_thing(clip).name), event_fact(clip, 0), fact("scene", clip.scene)})


def image_group(rng: Generator, split: str) -> list[Composed]:
    """Four TI2V pairs: a target, and the same with another thing (same text), another action, another scene."""
    clip = sample_clip(rng, split)
    picture, text = reference_picture(leading_thing(clip), rng, split), action_text(clip, rng)
    swapped = change_thing(clip, rng, split, index=clip.events[0][0])
    other = reference_picture(leading_thing(swapped), rng, split)
    pairs = [Composed("same", picture, text, clip, action_facts(clip))]
    pairs.append(Composed("thing", other, text, swapped, action_facts(swapped)))
    for kind, target in (
        ("event", change_event(clip, rng, split, half=0)),
        ("scene", change_scene(clip, rng, split)),
    ):
        pairs.append(Composed(kind, picture, action_text(target, rng), target, action_facts(target)))
    return pairs


def modification_text(reference: Clip, target: Clip, modification: str, rng: Generator) -> str:
    """How a target, `variants.modify(reference, modification, ...)`, differs from its reference clip."""
    same = choice(rng, _SAME)
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
    """Four TV2V pairs about one reference clip: four kinds of modification or, half of the time, four of one kind."""
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
    """The clip recorded again: the same content, another texture."""
    return replace(clip, seed=new_seed(rng))
