import numpy as np
import pytest

from gve.hub_datasets.world.captions import answers, clip_facts
from gve.hub_datasets.world.spec import held_out, sample_clip
from gve.hub_datasets.world.variants import content_fact, image_group, leading_thing, retake, video_group


@pytest.mark.parametrize("split", ["seen", "unseen"])
def test_image_group_has_one_answer_each_and_shows_the_leading_thing_alone(split):
    rng = np.random.default_rng(1)
    for _ in range(30):
        pairs = image_group(rng, split)
        truth = [[answers(query.facts, clip_facts(other.target)) for other in pairs] for query in pairs]
        assert truth == np.eye(4, dtype=bool).tolist()
        for pair in pairs:
            (thing,) = pair.reference.things
            assert thing.name == leading_thing(pair.target).name
            assert held_out(thing.color, thing.shape) == (split == "unseen")


def test_image_group_varies_one_thing_at_a_time():
    base, thing, event, scene = image_group(np.random.default_rng(2), "seen")
    assert base.text == thing.text and base.reference != thing.reference
    assert base.reference == event.reference == scene.reference and event.target.scene == base.target.scene
    assert event.target.events[0] != base.target.events[0] and scene.target.events == base.target.events


@pytest.mark.parametrize("split", ["seen", "unseen"])
def test_video_group_modifies_one_reference_in_four_ways_and_says_what_changed(split):
    rng, kinds = np.random.default_rng(4), set()
    for _ in range(30):
        pairs = video_group(rng, split)
        assert len({pair.reference for pair in pairs}) == 1
        contents = {content_fact(pair.target) for pair in pairs}
        assert len(contents) == 4 and content_fact(pairs[0].reference) not in contents
        for pair in pairs:
            assert pair.facts == {content_fact(pair.target)}
            old, new = pair.reference, pair.target
            changed = {
                "thing": [t.name for t in old.things] != [t.name for t in new.things],
                "scene": old.scene != new.scene,
                "camera": old.camera != new.camera,
                "event": old.events != new.events,
            }
            assert [kind for kind, differs in changed.items() if differs] == [pair.kind]
            if pair.kind == "thing":
                (now,) = {t.color for t in new.things if t not in old.things}
                assert now in pair.text
            assert ("camera" in pair.text) == (pair.kind == "camera")
            kinds.add(pair.kind)
    assert kinds == {"thing", "scene", "camera", "event"}


def test_retake_keeps_the_content():
    rng = np.random.default_rng(6)
    clip = sample_clip(rng, "seen")
    again = retake(clip, rng)
    assert again != clip and content_fact(again) == content_fact(clip)
