import math

import pytest
import torch
from torch import nn

from gve.hub_datasets.world.attributes import ATTRIBUTES, MOVING, UNSTATED
from gve.hub_datasets.world.texts import training_texts
from gve.tiny import build_tiny
from gve.trainers.demo.pretraining import (
    IMAGE_EVERY,
    MOTION_WEIGHT,
    Course,
    FactReader,
    Lessons,
    lesson_seconds,
    pretrain,
)


def make():
    return build_tiny(list(training_texts(0, 400)), vocab_size=400, text_layers=1, vision_depth=1)


@pytest.fixture(scope="module")
def tiny():
    return make()


def test_lessons_are_pure_functions_of_their_number_and_every_fourth_asks_about_frames(tiny):
    lessons, again = (Lessons(tiny[1], 9, seed=3, size=8) for _ in range(2))
    first, second = lessons[5], again[5]
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["video_labels"], lessons[6]["video_labels"])
    for step in range(1, 6):
        batch = lessons[step]
        assert ("image_labels" in batch) == (step % IMAGE_EVERY == 0)
        assert (batch["video_labels"] >= 0).all()
    camera = list(ATTRIBUTES).index("first_camera")
    assert (lessons[4]["image_labels"][:, camera] == UNSTATED).all()


def test_loss_of_silent_classifiers_is_one_attribute_each(tiny):
    """Uniform answers cost log C, which is 1 in units of log C, times the weight; what is not told costs nothing."""
    reader = FactReader(tiny[0])
    for parameter in reader.heads.parameters():
        nn.init.zeros_(parameter)
    labels, vectors = torch.zeros(4, len(ATTRIBUTES), dtype=torch.long), torch.randn(4, 128)
    expected = (len(ATTRIBUTES) - len(MOVING) + MOTION_WEIGHT * len(MOVING)) / len(ATTRIBUTES)
    assert reader.score(vectors, labels).item() == pytest.approx(expected, abs=1e-6)
    labels[:, 2:] = UNSTATED
    assert reader.score(vectors, labels).item() == pytest.approx(2 / len(ATTRIBUTES), abs=1e-6)


def test_a_few_lessons_teach_scenes_and_a_finished_course_is_not_run_again(tmp_path, capsys):
    model, processor = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert lesson_seconds(model, processor, lessons=1) > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    lines, course = [], Course(tmp_path / "lessons", 24, math.inf, 0)
    lessons, right = pretrain(model, processor, course, lines.append)
    assert lessons == 24 and set(right) == set(ATTRIBUTES)
    assert capsys.readouterr().out == ""  # the log goes beside the bar
    assert right["scene"] > 0.3  # of 8 scenes
    assert all(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    again, _ = make()
    pretrain(again, processor, course, lines.append)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())


def test_time_ends_a_course_early_and_the_lessons_given_are_counted_and_saved(tmp_path):
    lines = []
    learnt = pretrain(*make(), Course(tmp_path / "lessons", 24, 1e-3, 0), lines.append)
    assert learnt.lessons == 1 and lines == ["  the time is up at step 1 of 24; training ends here"]
    assert [path.name for path in (tmp_path / "lessons").iterdir()] == ["checkpoint-1"]
