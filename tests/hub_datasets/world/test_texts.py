import pytest

from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.captions import CAMERA_WORDS, SCENE_WORDS, STYLE_WORDS
from gve.hub_datasets.world.spec import COLORS
from gve.hub_datasets.world.texts import RICHER, instructions, training_texts
from gve.hub_datasets.world.worlds import WORLDS, seed_of


@pytest.mark.parametrize("world", WORLDS)
def test_training_texts_hold_every_instruction_and_word_repeat_and_may_be_cut(world):
    texts, keywords = list(training_texts(seed_of(0, world), 800)), [one for _, one in WORLDS[world].actions.values()]
    assert len(texts) == 800 and {task.instruction for task in SETS.values()} <= set(texts)
    told = " ".join(texts)
    tables = (CAMERA_WORDS, SCENE_WORDS, STYLE_WORDS)
    words = [word for table in tables for options in table.values() for word in options]
    assert [word for word in (*COLORS, *keywords, *words) if word not in told] == []
    assert (
        list(training_texts(seed_of(0, world), 60)) == texts[:60] and list(training_texts(1, 3)) == instructions()[:3]
    )
    assert list(training_texts(2, 800)) != texts
    assert all(kind not in targets for kind, targets in RICHER.items())
