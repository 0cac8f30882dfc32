import pytest

from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world import captions
from gve.hub_datasets.world.captions import SCENE_WORDS, SHAPE_WORDS, answers, clip_facts, event_fact, fact
from gve.hub_datasets.world.sets import BASE_KINDS, DEFAULT_SIZES, Sizes, base_clips, build_sets, expected_score
from gve.hub_datasets.world.spec import SPLITS, held_out
from gve.hub_datasets.world.variants import action_facts, content_fact
from gve.hub_datasets.world.worlds import WORLDS, seed_of

CHANCE = {"CRB-S": 1 / 128, "CRB-T": 1 / 128, "CMRB": 10 / 96, "LoVR-TH": 10 / 80, "MS-TI": 0.1, "MS-TV": 0.1}


@pytest.fixture(scope="module", params=SPLITS)
def split(request):
    return request.param


@pytest.fixture(scope="module", params=WORLDS)
def sets(split, request):
    return build_sets(split, seed_of(0, request.param))


def test_all_sixteen_sets_hold_what_the_table_asks_for(sets, split):
    assert list(sets) == list(SETS)
    for name, mini in sets.items():
        assert mini.summary()["chance"] == round(CHANCE.get(name, 1 / 64), 4)
        assert set(mini.positives) == set(mini.queries)
        for side in mini.queries.values():
            held = {"text": side.text is not None, "image": side.picture is not None, "video": bool(side.clips)}
            assert {kind for kind, present in held.items() if present} == set(mini.task.query_modalities)
        things = [thing for clips in mini.corpus.values() for clip in clips for thing in clip.things]
        assert all(held_out(thing.color, thing.shape) == (split == "unseen") for thing in things)


def parse_event(text):
    shapes = {word: shape for shape, words in SHAPE_WORDS.items() for word in words}
    scenes = {words: scene for scene, options in SCENE_WORDS.items() for words in options}
    ending = next((words for words in scenes if text.endswith(" " + words)), "")
    text = text.removesuffix(ending).strip()
    color, rest = text.removeprefix("a ").split(" ", 1)
    word = next(word for word in sorted(shapes, key=len, reverse=True) if rest.startswith(word + " "))
    told = rest.removeprefix(word).strip()
    action = next(action for action, words in captions.ACTION_WORDS.items() if told in words)
    facts = {fact("event", f"{color} {shapes[word]}", action)}
    return facts | ({fact("scene", scenes[ending])} if ending else set())


def test_each_event_text_is_answered_by_its_clip_only(sets):
    mini = sets["DREAM-E"]
    assert len(mini.queries) == 2 * len(mini.corpus)
    truth = {name: clip_facts(clips[0]) for name, clips in mini.corpus.items()}
    for name, side in mini.queries.items():
        found = tuple(key for key, facts in truth.items() if answers(parse_event(side.text), facts))
        assert found == mini.positives[name]


def test_base_clips_differ_in_every_text(sets):
    clips = [clips[0] for clips in sets["MSRVTT"].corpus.values()]
    keys = [
        [(frozenset(t.name for t in c.things), c.scene) for c in clips],
        [(frozenset(event_fact(c, half) for half in (0, 1)), c.camera) for c in clips],
        [(event_fact(c, half), c.scene) for c in clips for half in (0, 1)],
    ]
    assert all(len(set(key)) == len(key) for key in keys)
    assert all(sets[name].corpus == sets["MSRVTT"].corpus for name in (*BASE_KINDS, "MSRVTT-I2V"))


def test_keyword_queries_are_answered_once(sets):
    mini = sets["PEV-K"]
    keywords = {word: action for action, word in captions.ACTION_KEYWORDS.items()}
    for name, side in mini.queries.items():
        found = []
        for key, (clip,) in mini.corpus.items():
            true = {clip.scene, clip.style, *(t.name for t in clip.things), *(action for _, action in clip.events)}
            if all(keywords.get(word, word) in true for word in side.text.split(", ")):
                found.append(key)
        assert tuple(found) == mini.positives[name]


@pytest.mark.parametrize("name", ["CRB-S", "CRB-T"])
def test_twin_groups(sets, name):
    mini = sets[name]
    assert list(mini.corpus)[:5] == ["g00/0", "g00/1", "g00/2", "g00/3", "g01/0"]
    asked = []
    for clip in (clips[0] for clips in mini.corpus.values()):
        events = [(clip.things[i].name, action) for i, action in clip.events]
        things = (clip.things[0].name, clip.relation, clip.things[1].name, clip.scene, *(t.size for t in clip.things))
        asked.append(things if name == "CRB-S" else tuple(events))
    assert len(set(asked)) == len(asked) and list(mini.positives.values()) == [(key,) for key in mini.corpus]


@pytest.mark.parametrize(("name", "label"), [("CMRB", "camera"), ("LoVR-TH", "theme")])
def test_label_sets_have_all_clips_of_the_label(sets, name, label):
    mini = sets[name]
    labels = {key: c.camera if label == "camera" else (c.scene, c.style) for key, (c,) in mini.corpus.items()}
    for positives in mini.positives.values():
        wanted = labels[positives[0]]
        assert tuple(key for key, found in labels.items() if found == wanted) == positives
    assert len({labels[positives[0]] for positives in mini.positives.values()}) == len(mini.queries)


def test_long_videos_are_told_apart(sets):
    text, clip = sets["LoVR-V"], sets["LoVR-C2V"]
    assert text.corpus == clip.corpus
    told = [tuple((frozenset(t.name for t in c.things), c.scene) for c in clips) for clips in text.corpus.values()]
    assert len(set(told)) == len(told)
    for name, side in clip.queries.items():
        wanted = content_fact(side.clips[0])
        found = [key for key, clips in clip.corpus.items() if wanted in {content_fact(c) for c in clips}]
        assert tuple(found) == clip.positives[name]


def test_pools_have_one_answer(sets):
    mini = sets["MS-TI"]
    places = set()
    for name, side in mini.queries.items():
        (right,) = mini.positives[name]
        facts = action_facts(mini.corpus[right][0])
        (thing,) = side.picture[0].things
        assert fact("thing", thing.name) in facts
        pool = mini.pools[name]
        truth = {key: clip_facts(mini.corpus[key][0]) for key in pool}
        assert [key for key in pool if answers(facts, truth[key])] == [right]
        assert sum(fact("thing", thing.name) in true for true in truth.values()) >= 4 and len(set(pool)) == 10
        places.add(pool.index(right))
    assert len(places) == 10
    mini = sets["MS-TV"]
    for name, side in mini.queries.items():
        contents = [content_fact(mini.corpus[key][0]) for key in mini.pools[name]]
        assert len(set(contents)) == 10 and content_fact(side.clips[0]) in contents
        assert content_fact(mini.corpus[mini.positives[name][0]][0]) != content_fact(side.clips[0])


def test_seeds_and_sizes():
    small = Sizes(base=6, groups=2, programs=3, themes=4, longs=3, composed=4)
    first = build_sets("unseen", 1, small)
    build_sets.cache_clear()
    assert build_sets("unseen", 1, small) == first and build_sets("unseen", 2, small) != first
    assert first["CRB-S"].summary()["candidates"] == 8 and first["CMRB"].summary()["positives"] == 3
    for seed in range(1, 4):
        assert len(base_clips("unseen", seed, DEFAULT_SIZES.base)) == DEFAULT_SIZES.base
    with pytest.raises(ValueError, match="Ask for fewer"):
        base_clips("unseen", 0, 700)
    scores = [("recall@10", 80, 2, 0.125), ("recall@10", 8, 2, 1), ("precision@1", 10, 1, 0.1)]
    for metric, candidates, positives, score in scores:
        assert expected_score(metric, candidates=candidates, positives=positives) == score
