import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.hub_datasets.world.captions import CLIP_KINDS, answers, caption, clip_facts, fact, image_caption
from gve.hub_datasets.world.spec import RELATIONS, sample_clip, telling
from gve.hub_datasets.world.variants import MODIFICATIONS, group, modify

seeds = st.integers(0, 10**6)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, split=st.sampled_from(("seen", "unseen")), kind=st.sampled_from(CLIP_KINDS))
def test_a_clip_answers_every_text_about_it(seed, split, kind):
    rng = np.random.default_rng(seed)
    clip = sample_clip(rng, split)
    told = caption(clip, kind, rng)
    assert told.facts and telling(clip.events)
    assert answers(told.facts, clip_facts(clip)) and answers(image_caption(clip, rng).facts, clip_facts(clip))


@settings(max_examples=60, deadline=None)
@given(seed=seeds, modification=st.sampled_from(MODIFICATIONS))
def test_a_detailed_text_is_not_answered_once_anything_is_modified(seed, modification):
    rng = np.random.default_rng(seed)
    clip = sample_clip(rng, "seen")
    changed = modify(clip, modification, rng, "seen")
    assert not answers(caption(clip, "detailed", rng).facts, clip_facts(changed))


def test_a_relation_group_shows_all_relations():
    clips = group("spatial", np.random.default_rng(0), "unseen")
    assert [clip.relation for clip in clips] == list(RELATIONS)
    for clip in clips:
        (first, second), along = clip.things, clip.relation in ("left", "right")
        gap = first.x - second.x if along else first.y - second.y
        assert (gap < -0.3) == (clip.relation in ("left", "above"))
        assert (gap > 0.3) == (clip.relation in ("right", "below"))


def test_facts_are_the_same_numbers_everywhere():
    assert fact("scene", "snow") == 2830873245640683583 and fact("scene", "snow") != fact("scene", "city")
    assert 0 <= fact("thing", "red ring") < 2**63


def test_unknown_names_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"kind .*got 'haiku'"):
        caption(sample_clip(rng, "seen"), "haiku", rng)
    with pytest.raises(ValueError, match=r"split .*got 'test'"):
        sample_clip(rng, "test")
    with pytest.raises(ValueError, match=r"kind .*got 'theme'"):
        group("theme", rng, "seen")
