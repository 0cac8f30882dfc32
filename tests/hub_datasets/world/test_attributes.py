from dataclasses import replace

import numpy as np
import pytest

from gve.hub_datasets.world.attributes import ATTRIBUTES, LOOSE, STATED, UNSTATED, clip_labels, loose_labels
from gve.hub_datasets.world.captions import CLIP_KINDS, caption
from gve.hub_datasets.world.spec import INVERSE, Clip, Thing, sample_clip

RED, BLUE = Thing("red", "ring", "large", x=0.3, y=0.5), Thing("blue", "square", "small", x=0.7, y=0.5)
CLIP = Clip((BLUE, RED), "right", ((0, "jump"), (1, "grow")), ("static", "in"), "snow", "dim", seed=5)


def named(labels):
    return {
        name: None if label == UNSTATED else options[label]
        for (name, options), label in zip(ATTRIBUTES.items(), labels, strict=True)
    }


def test_labels_of_a_known_clip():
    told = named(clip_labels(CLIP))
    assert (told["scene"], told["style"], told["axis"]) == ("snow", "dim", "horizontal")
    assert [told[f"{place}_color"] for place in ("first", "second")] == ["red", "blue"]  # by place
    assert [told[f"{half}_actor"] for half in ("first", "second")] == ["blue", "red"]  # by time
    assert [told[f"{half}_action"] for half in ("first", "second")] == ["jump", "grow"]
    assert [told[f"{half}_camera"] for half in ("first", "second")] == ["static", "in"]
    stated = named(clip_labels(CLIP, STATED["camera"]))
    assert {name for name, value in stated.items() if value} == {"first_camera", "second_camera"}
    with pytest.raises(ValueError, match="must show two things, got 1"):
        clip_labels(replace(CLIP, things=(RED,)))


def test_labels_do_not_depend_on_which_thing_comes_first():
    rng = np.random.default_rng(0)
    for _ in range(50):
        clip = sample_clip(rng, "seen")
        events = tuple((1 - index, action) for index, action in clip.events)
        turned = replace(clip, things=clip.things[::-1], relation=INVERSE[clip.relation], events=events)
        assert clip_labels(clip) == clip_labels(turned)


def test_texts_of_a_kind_tell_the_attributes_stated():
    """Two clips that differ in a stated attribute never share a text; kinds are those of the grammar and `image`."""
    assert set(STATED) - {"image"} <= set(CLIP_KINDS)
    rng = np.random.default_rng(1)
    changes = {
        "first_camera": replace(CLIP, camera=("left", "in")),
        "first_action": replace(CLIP, events=((0, "shake"), (1, "grow"))),
        "scene": replace(CLIP, scene="city"),
        "style": replace(CLIP, style="clean"),
    }
    for kind in set(STATED) - {"image"}:
        texts = {caption(CLIP, kind, rng).text for _ in range(300)}
        for attribute, other in changes.items():
            if attribute in STATED[kind]:
                assert texts.isdisjoint(caption(other, kind, rng).text for _ in range(300))


def test_loose_texts_tell_things_of_either_place_and_events_of_either_half():
    assert set(LOOSE) == set(CLIP_KINDS) - set(STATED)
    rng = np.random.default_rng(2)

    def told(facts):
        return [{name: value for name, value in named(row).items() if value} for row in loose_labels(CLIP, facts)]

    assert told(caption(CLIP, "coarse", rng).facts) == [
        {"scene": "snow", "first_color": "red", "second_color": "blue"},
        {"scene": "snow", "first_color": "blue", "second_color": "red"},
    ]
    events = [told(caption(CLIP, "event", rng).facts) for _ in range(20)]
    first = [{f"{half}_actor": "blue", f"{half}_action": "jump"} for half in ("first", "second")]
    assert first in events and all(len(way) == 2 for ways in events for way in ways)
    for _ in range(40):
        text = caption(CLIP, "keyword", rng)
        straight, crossed = told(text.facts)
        assert len(straight) == len(crossed) == len(text.facts) == 4
        assert ("dim" in text.text) == (straight.get("style") == "dim")
        assert ("jumping" in text.text) == (straight.get("first_action") == crossed.get("second_action") == "jump")
