"""Counterfactual pairs: a clip, the same clip with one statement made false, and the two texts that tell them apart.

A row's only hard negative is its counterfactual. Both clips of a unit are targets once, so that no side of an edit is
always the wrong one. Off by default: name the sources of `schema.COUNTERFACTUALS` to build them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.captions import (
    ACTION_WORDS,
    SCENE_WORDS,
    SHAPE_WORDS,
    Caption,
    answers,
    caption,
    clip_facts,
    event_fact,
    fact,
    name_thing,
)
from gve.hub_datasets.world.rows import Pair, Side, stream
from gve.hub_datasets.world.spec import (
    INVERSE,
    Clip,
    choice,
    held_out,
    held_out_action,
    new_seed,
    sample_clip,
    telling,
)
from gve.hub_datasets.world.texts import KIND_SETS, TASK_INSTRUCTIONS
from gve.hub_datasets.world.variants import SAME_CLIP, change_event, content_fact
from gve.hub_datasets.world.worlds import Seed, world_of

V2T_INSTRUCTION = "Find the text that describes the video."
OPPOSITE = {**INVERSE, "up": "down", "down": "up", "in": "out", "out": "in"}
"""Relations and camera motions whose reversal is another one of them; static and shake are their own."""
_NUMBERS = ("one", "two", "three")


def other_order(clip: Clip) -> Clip | None:
    """The events in the other order; None where a thing would act after it vanished."""
    events = clip.events[::-1]
    return replace(clip, events=events) if telling(events) else None


def other_relation(clip: Clip) -> Clip:
    """The things in each other's places."""
    (first, last) = clip.things
    things = (replace(first, x=last.x, y=last.y), replace(last, x=first.x, y=first.y))
    return replace(clip, things=things, relation=INVERSE[clip.relation])


def other_colors(clip: Clip) -> Clip | None:
    """Colours exchanged; None if that changes no name, or shows a combination that training must not see."""
    (first, last) = clip.things
    if first.shape == last.shape or first.color == last.color:
        return None
    if held_out(last.color, first.shape) or held_out(first.color, last.shape):
        return None
    return replace(clip, things=(replace(first, color=last.color), replace(last, color=first.color)))


def other_camera(clip: Clip) -> Clip | None:
    """The camera as if the video ran backwards; None if that is the same program."""
    camera = tuple(OPPOSITE.get(motion, motion) for motion in clip.camera[::-1])
    return None if camera == clip.camera else replace(clip, camera=camera)


def other_actors(clip: Clip) -> Clip | None:
    """The two actions exchanged between the things; None if one acts alone, both act alike, or training must not see it."""
    (first, one), (second, two) = clip.events
    hidden = any(held_out_action(clip.things[index].shape, action) for index, action in ((first, two), (second, one)))
    if first == second or one == two or hidden:
        return None
    return replace(clip, events=((first, two), (second, one)))


CHANGES: dict[str, Callable[[Clip], Clip | None]] = {
    "order": other_order,
    "relation": other_relation,
    "attribute": other_colors,
    "camera": other_camera,
    "actor": other_actors,
}
"""What has a counterfactual in every clip, or None where a clip is symmetric."""
TEXT_KINDS = {
    "order": "temporal",
    "relation": "spatial",
    "attribute": "coarse",
    "camera": "camera",
    "actor": "temporal",
    "negation": "event",
    "count": "coarse",
}
"""The kinds of counterfactuals, and the kind of text that states what each changes."""


def true_facts(clip: Clip) -> frozenset[int]:
    """`clip_facts`, with numbers of equal things, and what each thing never does."""
    names = [thing.name for thing in clip.things]
    done = {(names[index], action) for index, action in clip.events}
    facts = {fact("count", name, str(names.count(name))) for name in names}
    actions = world_of(clip.things[0].shape).actions
    facts |= {fact("never", name, action) for name in names for action in actions if (name, action) not in done}
    return clip_facts(clip) | {content_fact(clip)} | facts


Told = tuple[Clip, Caption]


def _negated(rng: Generator) -> tuple[Told, Told]:
    clip = sample_clip(rng, "seen")
    half = int(rng.integers(2))
    index, action = clip.events[half]
    other, words = change_event(clip, rng, "seen", half=half), np.random.default_rng(new_seed(rng))
    name = name_thing(clip.things[index], words, article="the")
    scene = choice(words, SCENE_WORDS[clip.scene])
    does, never = (f"{name} {adverb}{choice(words, ACTION_WORDS[action])} {scene}" for adverb in ("", "never "))
    where, thing = fact("scene", clip.scene), clip.things[index].name
    return (
        (clip, Caption(does, frozenset({event_fact(clip, half), where}))),
        (other, Caption(never, frozenset({fact("never", thing, action), where}))),
    )


def _counted(rng: Generator) -> tuple[Told, Told]:
    clip, numbers = sample_clip(rng, "seen"), rng.permutation(len(_NUMBERS))[:2] + 1
    thing, height = replace(clip.things[0], size="small"), float(rng.uniform(0.35, 0.65))
    noun, scene = choice(rng, SHAPE_WORDS[thing.shape]), choice(rng, SCENE_WORDS[clip.scene])
    told = []
    for number in numbers.tolist():
        things = tuple(replace(thing, x=(place + 0.5) / number, y=height) for place in range(number))
        ending = "" if number == 1 else "es" if noun.endswith(("x", "s")) else "s"
        text = f"{_NUMBERS[number - 1]} {thing.color} {noun}{ending} {scene}"
        facts = frozenset({fact("count", thing.name, str(number)), fact("scene", clip.scene)})
        told.append((replace(clip, things=things, events=(), seed=new_seed(rng)), Caption(text, facts)))
    return told[0], told[1]


def _changed(kind: str, rng: Generator) -> tuple[Told, Told]:
    other = None
    while other is None:
        clip = sample_clip(rng, "seen")
        other = CHANGES[kind](clip)
    words = new_seed(rng)  # the same choice of words in both texts
    told = (caption(one, TEXT_KINDS[kind], np.random.default_rng(words)) for one in (clip, other))
    one, two = told
    return (clip, one), (replace(other, seed=new_seed(rng)), two)


def counterfactual(kind: str, rng: Generator) -> tuple[Told, Told]:
    """Two clips with their texts, each text true of its own clip and false of the other; a kind of TEXT_KINDS."""
    make = {"negation": _negated, "count": _counted}.get(kind)
    while True:
        first, second = _changed(kind, rng) if make is None else make(rng)
        wrong = answers(first[1].facts, true_facts(second[0])) or answers(second[1].facts, true_facts(first[0]))
        if not wrong:
            return first, second


def _in_full(clip: Clip, told: Caption, kind: str, words: int) -> str:
    """A text that names the clip's things and scene too: other videos of a batch hardly answer it."""
    if TEXT_KINDS[kind] == "coarse":
        return told.text
    return f"{caption(clip, 'coarse', np.random.default_rng(words)).text} . {told.text}"


def _row(source: str, kind: str, own: Told, other: Told, words: int) -> Pair:
    (clip, told), wrong = own, other[0]
    task = source.partition("-")[0]
    video, true = Side(clips=(clip,)), true_facts(clip)
    if task == "v2t":
        unique = frozenset({content_fact(clip)})
        right, negative = (Side(_in_full(*one, kind, words)) for one in (own, other))
        return Pair("", task, kind, V2T_INSTRUCTION, video, right, "", unique, unique, (negative,))
    negatives = (Side(clips=(wrong,)),)
    if task == "tv2v":
        query = Side(f"{choice(np.random.default_rng(words), SAME_CLIP)} but {told.text}", clips=(wrong,))
        stated = frozenset({content_fact(clip)})
        return Pair("", task, kind, TASK_INSTRUCTIONS[task], query, video, "", stated, true, negatives)
    instruction = SETS[KIND_SETS[TEXT_KINDS[kind]]].instruction
    return Pair("", task, kind, instruction, Side(told.text), video, "", told.facts, true, negatives)


def counterfactual_pairs(source: str, count: int, seed: Seed, start: int = 0) -> Iterator[Pair]:
    """Rows `start` to `count` of one of `schema.COUNTERFACTUALS`; two rows, a group, make a unit."""
    kinds = tuple(TEXT_KINDS)
    for unit in range(start // 2, -(-count // 2)):
        rng = stream(seed, source, "unit", unit)
        kind = kinds[unit % len(kinds)]
        told, words = counterfactual(kind, rng), new_seed(rng)
        for place, (own, other) in enumerate((told, told[::-1])):
            number = 2 * unit + place
            row = _row(source, kind, own, other, words)
            if start <= number < count:
                yield replace(row, id=f"{source}-{number:06d}", group=f"{source}-g{unit:06d}")
