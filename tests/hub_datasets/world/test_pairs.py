import re
from collections import Counter
from itertools import groupby

import numpy as np
import pytest

from gve.hub_datasets.schema import TASKS, pair_features
from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.captions import ACTION_WORDS, KINDS, SHAPE_WORDS, answers, clip_facts
from gve.hub_datasets.world.pairs import KIND_WEIGHTS, TWINS, build_pairs
from gve.hub_datasets.world.spec import held_out, held_out_action
from gve.hub_datasets.world.texts import KIND_SETS, TASK_INSTRUCTIONS
from gve.hub_datasets.world.worlds import WORLDS, seed_of


def shown(side):
    return [*side.clips, *([side.picture[0]] if side.picture else [])]


@pytest.mark.parametrize("task", TASKS)
def test_ranges_and_longer_runs_hold_the_same_rows_which_fit_the_schema(task):
    pairs = list(build_pairs(task, 60, 3))
    assert len(pairs) == 60 and [pair.id for pair in pairs] == [f"{task}-{number:06d}" for number in range(60)]
    assert list(build_pairs(task, 41, 3, start=18)) == pairs[18:41] and list(build_pairs(task, 60, 4)) != pairs
    row = pairs[0].render()
    assert list(row) == list(pair_features())
    query, target = ({name for name, value in row[side].items() if value is not None} for side in ("query", "target"))
    letters = {"t": "text", "i": "image", "v": "video"}
    asked, answer = task.split("2")
    assert query == {letters[letter] for letter in asked} and target == {letters[answer]}
    if answer == "v":
        assert row["target"]["video"]["bytes"][4:8] == b"ftyp"
    for name, count, message in (("v2t", 1, "got 'v2t'"), (task, -1, "must not be negative")):
        with pytest.raises(ValueError, match=message):
            build_pairs(name, count, 0)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("task", TASKS)
def test_targets_answer_and_training_never_shows_a_held_out_combination(task, world):
    pairs = list(build_pairs(task, 400, seed_of(1, world), num_negatives=1))
    names = [name for name, _ in groupby(pair.group for pair in pairs) if name]
    assert len(names) == len(set(names)), "groups are consecutive"
    sizes = Counter(pair.group for pair in pairs if pair.group)
    assert set(list(sizes.values())[:-1]) <= {4} and bool(sizes) == (task not in ("i2v", "v2v"))
    for pair in pairs:
        assert pair.query_facts and answers(pair.query_facts, pair.target_facts)
        for side in (pair.query, pair.target, *pair.negatives):
            for clip in shown(side):
                assert {thing.shape for thing in clip.things} <= set(WORLDS[world].shapes)
                assert {action for _, action in clip.events} <= set(WORLDS[world].actions)
                assert not any(held_out(thing.color, thing.shape) for thing in clip.things)
                assert not any(held_out_action(clip.things[i].shape, action) for i, action in clip.events)


def grouped(kind, count=6000, seed=5):
    rows = [pair for pair in build_pairs("t2v", count, seed) if pair.kind == kind and pair.group]
    return [list(rows) for _, rows in groupby(rows, key=lambda pair: pair.group)][:-1]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["spatial", "temporal", "camera"])
def test_group_mates_do_not_answer_one_another(kind, world):
    groups = grouped(kind, seed=seed_of(5, world))
    assert len(groups) > 15
    for mates in groups:
        truth = [[answers(query.query_facts, mate.target_facts) for mate in mates] for query in mates]
        assert truth == np.eye(4, dtype=bool).tolist()
        if kind == "temporal":
            bags = [bag_of_words(mate.query.text) for mate in mates]
            assert bags == [bags[0]] * 4 and sum(bags[0].values()) == 8


def bag_of_words(text):
    names = {word: name for table in (SHAPE_WORDS, ACTION_WORDS) for name, words in table.items() for word in words}
    words = "|".join(sorted(names, key=len, reverse=True))
    text = re.sub("at first |first |, then|, after that| before", " ", text)
    return Counter(re.sub(words, lambda match: names[match[0]], text).split())


def test_event_groups_ask_for_the_rarer_event():
    others = [
        answers(query.query_facts, mate.target_facts)
        for mates in grouped("event", 16000)
        for query in mates
        for mate in mates
        if mate is not query
    ]
    assert len(others) > 1000 and sum(others) / len(others) < 0.25


def test_text_kinds_have_their_shares_and_instructions():
    pairs = list(build_pairs("t2v", 20000, 0))
    counts = Counter(pair.kind + TWINS * bool(pair.group) for pair in pairs)
    assert set(counts) == set(KIND_WEIGHTS) >= set(KINDS)
    total = sum(KIND_WEIGHTS.values())
    for kind, weight in KIND_WEIGHTS.items():
        assert counts[kind] / len(pairs) == pytest.approx(weight / total, rel=0.35)
    assert all(pair.instruction == SETS[KIND_SETS[pair.kind]].instruction for pair in pairs)
    for task, instruction in TASK_INSTRUCTIONS.items():
        assert {pair.instruction for pair in build_pairs(task, 20, 0)} == {instruction}


def test_long_videos_hold_the_query_clip_and_pictures_of_texts_come_before_any_event():
    for pair in build_pairs("v2v", 20, 0):
        assert len(pair.target.clips) == 4 and pair.query.clips[0] in pair.target.clips
    assert all(pair.target.picture[1] < 0.1 for pair in build_pairs("t2i", 40, 0))


@pytest.mark.parametrize("task", TASKS)
def test_negatives_are_near_and_wrong(task):
    plain = list(build_pairs(task, 300, 0))
    pairs = list(build_pairs(task, 300, 0, num_negatives=2))
    for pair, bare in zip(pairs, plain, strict=True):
        assert (pair.id, pair.query, pair.target) == (bare.id, bare.query, bare.target)
        assert len(pair.negatives) == (2 if task in ("t2v", "ti2v", "tv2v") else 0)
        for side in pair.negatives:
            assert len(side.clips) == len(pair.target.clips) and side.clips != pair.target.clips
            if len(side.clips) == 1:
                assert not answers(pair.query_facts, clip_facts(side.clips[0]))
