"""What a clip shows as class labels, for training that asks for facts instead of pairs.

Shapes: A attributes. Labels are canonical: they do not depend on which thing a text names first.
"""

from collections.abc import Container

from gve.hub_datasets.world.captions import event_fact, fact
from gve.hub_datasets.world.spec import ACTIONS, CAMERAS, COLORS, SCENES, STYLES, Clip, Thing
from gve.hub_datasets.world.worlds import PLACES

_COLOR_NAMES = tuple(COLORS)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "scene": SCENES,
    "style": STYLES,
    "axis": ("horizontal", "vertical"),
    "first_color": _COLOR_NAMES,
    "second_color": _COLOR_NAMES,
    "first_actor": _COLOR_NAMES,
    "second_actor": _COLOR_NAMES,
    "first_action": ACTIONS,
    "second_action": ACTIONS,
    "first_camera": CAMERAS,
    "second_camera": CAMERAS,
}
"""Options by attribute. The first colour is the left or upper thing's; actors are named by their colour; actions and
camera moves belong to the first and to the second half. Shapes are left out: training never shows a quarter of the
combinations of colour and shape, and a classifier of shapes would learn just that. Another world has as many actions;
its labels are their places."""
_PLACES = ("axis", "first_color", "second_color")
_EVENTS = ("first_actor", "first_action", "second_actor", "second_action")
_CAMERA = ("first_camera", "second_camera")
MOVING = frozenset((*_EVENTS, *_CAMERA))
"""Attributes that no single frame shows."""
STATED: dict[str, tuple[str, ...]] = {
    "spatial": ("scene", *_PLACES),
    "object": _PLACES,
    "temporal": _EVENTS,
    "camera": _CAMERA,
    "paragraph": (*_EVENTS, *_CAMERA),
    "general": ("scene", *_PLACES, *_EVENTS, *_CAMERA),
    "detailed": tuple(ATTRIBUTES),
    "theme": ("scene", "style"),
    "image": ("scene", *_PLACES),
}
"""Attributes that each kind of text states; `image` is a frame from the clip's start."""
ACTED = ("scene", "first_actor", "first_action")
"""Attributes that a picture of the first actor and `variants.action_text` state together."""
LOOSE = ("coarse", "keyword", "event")
"""Kinds of text that name things without their places, or events without their halves; see `loose_labels`."""
UNSTATED = -100
"""Label of an attribute that an input does not state; the cross-entropy of torch ignores it."""


def clip_labels(clip: Clip, stated: Container[str] = tuple(ATTRIBUTES)) -> list[int]:
    """(A,) labels of a clip; UNSTATED for attributes that are not in `stated`."""
    across, (first, second) = clip.relation in ("left", "right"), _by_place(clip)
    (actor, action), (next_actor, next_action) = clip.events
    shown = {
        "scene": clip.scene,
        "style": clip.style,
        "axis": "horizontal" if across else "vertical",
        "first_color": first.color,
        "second_color": second.color,
        "first_actor": clip.things[actor].color,
        "second_actor": clip.things[next_actor].color,
        "first_action": ACTIONS[PLACES[action]],
        "second_action": ACTIONS[PLACES[next_action]],
        "first_camera": clip.camera[0],
        "second_camera": clip.camera[1],
    }
    return [options.index(shown[name]) if name in stated else UNSTATED for name, options in ATTRIBUTES.items()]


def loose_labels(clip: Clip, facts: Container[int]) -> list[list[int]]:
    """(2, A) labels of a LOOSE text with these facts, both ways round: what it says may be true of either place or half."""
    stated = [name for name in ("scene", "style") if fact(name, getattr(clip, name)) in facts]
    for which, thing, half in zip(("first", "second"), _by_place(clip), range(2), strict=True):
        told, (_, action) = event_fact(clip, half) in facts, clip.events[half]
        stated += [f"{which}_color"] * (fact("thing", thing.name) in facts)
        stated += [f"{which}_actor"] * told + [f"{which}_action"] * (told or fact("action", action) in facts)
    straight = dict(zip(ATTRIBUTES, clip_labels(clip, stated), strict=True))
    return [list(straight.values()), [straight[_other_way(name)] for name in ATTRIBUTES]]


def _by_place(clip: Clip) -> list[Thing]:
    if len(clip.things) != 2:
        raise ValueError(f"clip must show two things, got {len(clip.things)}. Draw one by sample_clip.")
    across = clip.relation in ("left", "right")
    return sorted(clip.things, key=lambda thing: thing.x if across else thing.y)


def _other_way(name: str) -> str:
    which, _, rest = name.partition("_")
    return {"first": f"second_{rest}", "second": f"first_{rest}"}.get(which, name)
