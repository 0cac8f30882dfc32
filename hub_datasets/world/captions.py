"""The caption grammar: 12 kinds of text about a clip, each with the exact statements it makes.

A statement ("fact") is a string hashed to an integer; a clip answers a text if its facts include the text's.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

from numpy.random import Generator

from gve.hub_datasets.world.spec import INVERSE, Clip, Thing, choice
from gve.hub_datasets.world.worlds import WORLDS
from gve.media_gve import shown

SHAPE_WORDS = {shape: words for world in WORLDS.values() for shape, words in world.shapes.items()}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
SCENE_WORDS = {
    "desert": ("in the desert", "on sand dunes"),
    "ocean": ("in the ocean", "over sea waves"),
    "forest": ("in the forest", "among dark trees"),
    "city": ("in the city", "in front of office windows"),
    "night": ("in the night sky", "under the stars"),
    "snow": ("in the snow", "on a snowy field"),
    "meadow": ("in a meadow", "on green grass"),
    "volcano": ("in a volcano", "over hot lava"),
}
STYLE_WORDS = {
    "clean": ("clean", "sharp"),
    "grainy": ("grainy", "noisy"),
    "dim": ("dim", "dark"),
    "faded": ("faded", "washed out"),
    "striped": ("striped", "scan lined"),
}
ACTION_WORDS = {action: words for world in WORLDS.values() for action, (words, _) in world.actions.items()}
ACTION_KEYWORDS = {action: keyword for world in WORLDS.values() for action, (_, keyword) in world.actions.items()}
CAMERA_WORDS = {
    "static": ("stays still", "does not move"),
    "left": ("pans left", "turns to the left"),
    "right": ("pans right", "turns to the right"),
    "up": ("tilts up", "turns upward"),
    "down": ("tilts down", "turns downward"),
    "in": ("zooms in", "moves closer"),
    "out": ("zooms out", "pulls back"),
    "shake": ("shakes", "is handheld and shaky"),
}
RELATION_WORDS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


@dataclass(frozen=True)
class Caption:
    """A text and the statements it makes."""

    text: str
    facts: frozenset[int]


@cache
def fact(*parts: str) -> int:
    """Id of a statement: 63 bits of a hash, equal in every run and on every machine."""
    return int.from_bytes(blake2b("|".join(parts).encode(), digest_size=8).digest(), "big") >> 1


def event_fact(clip: Clip, half: int) -> int:
    """Fact that a certain thing does a certain action."""
    index, action = clip.events[half]
    return fact("event", clip.things[index].name, action)


def _order_fact(clip: Clip) -> int:
    return fact("order", *(part for i, action in clip.events for part in (clip.things[i].name, action)))


def _still_facts(clip: Clip) -> set[int]:
    moved = {index for index, _ in clip.events}
    return {fact("still", t.name) for i, t in enumerate(clip.things) if i not in moved}


def clip_facts(clip: Clip) -> frozenset[int]:
    """Every statement of the grammar that is true of a clip."""
    first, last = clip.things[0], clip.things[-1]
    facts = {fact("thing", t.name) for t in clip.things}
    facts |= {fact("size", t.name, t.size) for t in clip.things}
    facts |= {fact("scene", clip.scene), fact("style", clip.style), fact("camera", *clip.camera)}
    facts |= {fact("relation", first.name, clip.relation, last.name)}
    facts |= {fact("relation", last.name, INVERSE[clip.relation], first.name)}
    facts |= {event_fact(clip, half) for half in range(len(clip.events))}
    facts |= {fact("action", action) for _, action in clip.events} | _still_facts(clip)
    return frozenset(facts | {_order_fact(clip)})


def name_thing(thing: Thing, rng: Generator, *, article: str = "a", size: bool = False) -> str:
    """A noun phrase, such as "a small red disc"."""
    words = f"{thing.color} {choice(rng, SHAPE_WORDS[thing.shape])}"
    if size:
        words = f"{choice(rng, SIZE_WORDS[thing.size])} {words}"
    return f"{article} {words}".strip()


def camera_text(camera: tuple[str, str], rng: Generator) -> str:
    """What the camera does."""
    first = choice(rng, CAMERA_WORDS[camera[0]])
    if camera[0] == camera[1]:
        return f"the camera {first}"
    return f"the camera {first}{choice(rng, (', then ', ' and then '))}{choice(rng, CAMERA_WORDS[camera[1]])}"


def event_text(clip: Clip, half: int, rng: Generator, *, article: str = "the") -> str:
    """What one thing does in one half."""
    index, action = clip.events[half]
    return f"{name_thing(clip.things[index], rng, article=article)} {choice(rng, ACTION_WORDS[action])}"


def _coarse(clip: Clip, rng: Generator) -> Caption:
    first, second = clip.things if rng.random() < 0.5 else clip.things[::-1]
    text = (
        f"{choice(rng, ('', 'a video of ', 'a clip with '))}{name_thing(first, rng)}{choice(rng, (' and ', ' with '))}"
    )
    text += f"{name_thing(second, rng)} {choice(rng, SCENE_WORDS[clip.scene])}"
    return Caption(text, coarse_facts(clip))


def coarse_facts(clip: Clip) -> frozenset[int]:
    """What a coarse text of a clip states: its things and its scene."""
    return frozenset({*(fact("thing", thing.name) for thing in clip.things), fact("scene", clip.scene)})


def _paragraph(clip: Clip, rng: Generator) -> Caption:
    text = f"{event_text(clip, 0, rng, article='a')} . {event_text(clip, 1, rng)} . {camera_text(clip.camera, rng)}"
    return Caption(text, frozenset({event_fact(clip, 0), event_fact(clip, 1), fact("camera", *clip.camera)}))


def _spatial(clip: Clip, rng: Generator) -> Caption:
    first, last = clip.things
    text = f"{name_thing(first, rng, size=True)} is {choice(rng, RELATION_WORDS[clip.relation])} "
    text += f"{name_thing(last, rng, size=True)} {choice(rng, SCENE_WORDS[clip.scene])}"
    facts = {fact("size", t.name, t.size) for t in clip.things} | {fact("scene", clip.scene)}
    return Caption(text, frozenset(facts | {fact("relation", first.name, clip.relation, last.name)}))


def _temporal(clip: Clip, rng: Generator) -> Caption:
    text = choice(rng, ("first ", "at first ", "")) + event_text(clip, 0, rng)
    text += choice(rng, (", then ", ", after that ", " before ")) + event_text(clip, 1, rng)
    return Caption(text, frozenset({_order_fact(clip)}))


def _camera(clip: Clip, rng: Generator) -> Caption:
    return Caption(camera_text(clip.camera, rng), frozenset({fact("camera", *clip.camera)}))


def _event(clip: Clip, rng: Generator) -> Caption:
    half = int(rng.integers(2))
    return Caption(event_text(clip, half, rng, article="a"), frozenset({event_fact(clip, half)}))


def event_caption(clip: Clip, half: int, rng: Generator, *, in_scene: bool) -> Caption:
    """The text of the event of one half, with or without its scene."""
    text, facts = event_text(clip, half, rng, article="a"), {event_fact(clip, half)}
    if in_scene:
        text, facts = f"{text} {choice(rng, SCENE_WORDS[clip.scene])}", facts | {fact("scene", clip.scene)}
    return Caption(text, frozenset(facts))


def _theme(clip: Clip, rng: Generator) -> Caption:
    text = choice(rng, ("a ", "the overall look is a ")) + choice(rng, STYLE_WORDS[clip.style])
    text += choice(rng, (" scene ", " shot ", " view ")) + choice(rng, SCENE_WORDS[clip.scene])
    return Caption(text, frozenset({fact("style", clip.style), fact("scene", clip.scene)}))


def _object(clip: Clip, rng: Generator) -> Caption:
    first, last = clip.things
    text = (
        f"the main object is {name_thing(first, rng, size=True)}, placed {choice(rng, RELATION_WORDS[clip.relation])} "
    )
    text += name_thing(last, rng, size=True)
    halves = [half for half, (index, _) in enumerate(clip.events) if index == 0]
    text += f", it {choice(rng, ACTION_WORDS[clip.events[halves[0]][1]])}" if halves else ", it stays in place"
    facts = {fact("size", t.name, t.size) for t in clip.things}
    facts |= {fact("relation", first.name, clip.relation, last.name)}
    return Caption(text, frozenset(facts | {event_fact(clip, halves[0]) if halves else fact("still", first.name)}))


def _keyword(clip: Clip, rng: Generator) -> Caption:
    words = [(t.name, fact("thing", t.name)) for t in clip.things]
    words += [(clip.scene, fact("scene", clip.scene)), (clip.style, fact("style", clip.style))]
    words += [(ACTION_KEYWORDS[action], fact("action", action)) for _, action in clip.events]
    kept = [words[i] for i in rng.permutation(len(words))[:4]]
    return Caption(", ".join(word for word, _ in kept), frozenset(f for _, f in kept))


def _join(*parts: Caption) -> Caption:
    return Caption(" . ".join(p.text for p in parts), frozenset().union(*(p.facts for p in parts)))


def _general(clip: Clip, rng: Generator) -> Caption:
    return _join(_spatial(clip, rng), _temporal(clip, rng), _camera(clip, rng))


def _detailed(clip: Clip, rng: Generator) -> Caption:
    return _join(_theme(clip, rng), _spatial(clip, rng), _temporal(clip, rng), _camera(clip, rng))


_GRAMMAR: dict[str, Callable[[Clip, Generator], Caption]] = {
    "coarse": _coarse,
    "paragraph": _paragraph,
    "general": _general,
    "spatial": _spatial,
    "object": _object,
    "temporal": _temporal,
    "camera": _camera,
    "event": _event,
    "theme": _theme,
    "keyword": _keyword,
    "detailed": _detailed,
}
CLIP_KINDS = tuple(_GRAMMAR)
KINDS = (*CLIP_KINDS, "long")
"""The 12 kinds of text; "long" describes a video of several clips."""


def caption(clip: Clip, kind: str, rng: Generator) -> Caption:
    """A text of one of the CLIP_KINDS about a clip."""
    if kind not in _GRAMMAR:
        raise ValueError(f"kind must be one of {', '.join(CLIP_KINDS)}, got {shown(kind)}.")
    return _GRAMMAR[kind](clip, rng)


def long_caption(clips: Sequence[Clip], rng: Generator) -> str:
    """Coarse texts of a long video's clips, in order."""
    return " . ".join(_coarse(clip, rng).text for clip in clips)


def image_caption(clip: Clip, rng: Generator) -> Caption:
    """A text about one frame: things, their relation and the scene."""
    first, last = clip.things
    text = choice(rng, ("an image of ", "a picture of ", "")) + name_thing(first, rng)
    text += (
        f" {choice(rng, RELATION_WORDS[clip.relation])} {name_thing(last, rng)} {choice(rng, SCENE_WORDS[clip.scene])}"
    )
    facts = {fact("relation", first.name, clip.relation, last.name), fact("scene", clip.scene)}
    return Caption(text, frozenset(facts))


def answers(query: Iterable[int], target: frozenset[int]) -> bool:
    """Whether a target makes every statement of a query."""
    return target.issuperset(query)
