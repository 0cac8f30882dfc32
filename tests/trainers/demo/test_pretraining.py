import math

import numpy as np
import pytest
import torch
from torch import nn

from gve.hub_datasets.world.attributes import ACTED, ATTRIBUTES, MOVING, UNSTATED
from gve.hub_datasets.world.texts import training_texts
from gve.hub_datasets.world.variants import MODIFICATIONS
from gve.hub_datasets.world.worlds import WORLDS, seed_of
from gve.tiny import build_tiny
from gve.trainers.demo.pretraining import (
    COMPOSED_EVERY,
    IMAGE_EVERY,
    MOTION_WEIGHT,
    Course,
    FactReader,
    Lessons,
    find_long,
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
        assert ("edited_labels" in batch) == (step % COMPOSED_EVERY == COMPOSED_EVERY // 2)
        assert ("set_going_labels" in batch) == (step == COMPOSED_EVERY), "half as often"
        assert (batch["video_labels"] >= 0).all()
        assert "long_input_ids" in batch and "told_input_ids" in batch
    assert len(first["long_input_ids"]) == len(first["told_input_ids"]) == 2, "of eight clips"
    assert torch.equal(first["long_labels"], first["video_labels"].reshape(2, 4, -1)), "what each of its clips shows"
    assert first["long_second_per_grid_ts"].tolist() == [
        4 * second for second in first["video_second_per_grid_ts"][:2]
    ]
    assert "long_input_ids" not in Lessons(tiny[1], 9, seed=3, size=7)[5], "one long video leaves nothing to find"
    other = Lessons(tiny[1], 9, seed=seed_of(3, "held-out"), size=8)[5]
    assert not torch.equal(other["video_labels"], first["video_labels"]) and (other["video_labels"][..., 7] < 10).all()
    camera = list(ATTRIBUTES).index("first_camera")
    assert (lessons[4]["image_labels"][..., camera] == UNSTATED).all()


def test_words_that_change_a_clip_are_answered_by_what_the_changed_clip_shows(tiny):
    lesson = Lessons(tiny[1], 9, seed=3, size=8)[2]
    shown, asked = lesson["video_labels"][:, 0], lesson["edited_labels"][:, 0]
    names = np.array(list(ATTRIBUTES))
    for place, kind in enumerate(MODIFICATIONS * 2):
        changed = set(names[(shown[place] != asked[place]).numpy()])
        allowed = {
            "thing": {"first_color", "second_color", "first_actor", "second_actor"},
            "scene": {"scene"},
            "camera": {"first_camera", "second_camera"},
            "event": {"second_action"},
        }[kind]
        assert changed <= allowed and (changed or kind == "thing"), "another shape may keep its colour"
    assert lesson["edited_input_ids"].shape[1] > lesson["video_input_ids"].shape[1]
    told = [list(ATTRIBUTES).index(name) for name in ACTED]
    going = Lessons(tiny[1], 9, seed=3, size=8)[COMPOSED_EVERY]
    answers, shown = going["set_going_labels"][:, 0], going["video_labels"][:, 0]
    assert torch.equal(answers[:, told], shown[:, told]) and (answers >= 0).sum() == 8 * len(told)
    assert len(going["set_going_image_grid_thw"]) == 8


def test_texts_without_places_have_both_answers(tiny):
    lessons = Lessons(tiny[1], 40, seed=3, size=4)
    loose = [labels for labels in (lessons[step]["text_labels"] for step in range(12)) if labels.shape[1] == 2]
    assert loose, "3 of 12 kinds"
    exchanged = [list(ATTRIBUTES).index(f"{a}_{rest}") for a, rest in (("first", "color"), ("second", "color"))]
    assert all(torch.equal(labels[:, 0, exchanged], labels[:, 1, exchanged[::-1]]) for labels in loose)


def test_loss_of_silent_classifiers_is_one_attribute_each(tiny):
    """Uniform answers cost log C, which is 1 in units of log C, times the weight; what is not told costs nothing."""
    reader = FactReader(tiny[0])
    for parameter in reader.heads.parameters():
        nn.init.zeros_(parameter)
    labels, vectors = torch.zeros(4, 3, len(ATTRIBUTES), dtype=torch.long), torch.randn(4, 128)
    expected = (len(ATTRIBUTES) - len(MOVING) + MOTION_WEIGHT * len(MOVING)) / len(ATTRIBUTES)
    assert reader.score(vectors, labels).item() == pytest.approx(expected, abs=1e-6)
    labels[..., 2:] = UNSTATED
    assert reader.score(vectors, labels).item() == pytest.approx(2 / len(ATTRIBUTES), abs=1e-6)


def test_several_right_answers_cost_least_when_each_gets_its_share():
    reader, scene = FactReader(make()[0]), list(ATTRIBUTES).index("scene")
    labels = torch.full((1, 4, len(ATTRIBUTES)), UNSTATED)
    labels[0, :, scene] = torch.tensor([0, 0, 1, 2])
    with torch.no_grad():
        nn.init.zeros_(reader.heads["scene"].weight)
        reader.heads["scene"].bias.copy_(torch.tensor([0.5, 0.25, 0.25, *[1e-9] * 5]).log())
        shared = reader.score(torch.randn(1, 128), labels).item()
        reader.heads["scene"].bias.copy_(torch.tensor([1.0, *[0.01] * 7]).log())
        assert reader.score(torch.randn(1, 128), labels).item() > shared
    assert shared == pytest.approx(0.5 * math.log(8) / math.log(8) / len(ATTRIBUTES), abs=1e-6), "1.5 of 3 bits"


def test_each_clip_and_each_text_finds_its_long_video():
    longs, far = torch.eye(3, 8), torch.eye(8)[6:].repeat(6, 1)
    clips = longs.repeat_interleave(4, 0)
    assert find_long(torch.zeros(12, 8), longs, far).item() == pytest.approx(1.0, abs=1e-6), "a guess"
    assert find_long(longs, longs, far).item() < 1e-6 and find_long(clips.clone(), longs, far).item() < 1e-6
    assert find_long(clips.roll(4, 0), longs, far).item() > 7, "each finds the next one"
    with_rest = torch.cat([clips, far[:2]])
    assert find_long(with_rest, longs, far).item() < 1e-6, "clips beyond the last long video are left out"
    alike = find_long(clips, longs, clips).item()
    assert alike == pytest.approx(math.log(4) / math.log(15), abs=1e-6), "three clips as near as the video, not itself"


def test_a_few_lessons_teach_scenes_and_a_finished_course_is_not_run_again(tmp_path, capsys):
    model, processor = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert lesson_seconds(model, processor, lessons=1) > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    lines, course = [], Course(tmp_path / "lessons", 24, math.inf, 0, rate=2.5)  # so few need a higher one
    lessons, right = pretrain(model, processor, course, lines.append)
    assert lessons == 24 and set(right) == set(ATTRIBUTES)
    assert capsys.readouterr().out == ""  # the log goes beside the bar
    assert right["scene"] > 0.25  # of 8 scenes
    assert all(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    again, _ = make()
    pretrain(again, processor, course, lines.append)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("world", WORLDS)
def test_time_ends_a_course_early_and_the_lessons_given_are_counted_and_saved(tmp_path, world):
    lines = []
    learnt = pretrain(*make(), Course(tmp_path / "lessons", 24, 1e-3, 0, world), lines.append)
    assert learnt.lessons == 1 and lines == ["  the time is up at step 1 of 24; training ends here"]
    assert [path.name for path in (tmp_path / "lessons").iterdir()] == ["checkpoint-1"]


def test_a_loss_that_is_no_number_ends_a_course_at_once(tmp_path):
    model, processor = make()
    nn.init.constant_(model.language_model.norm.weight, math.nan)
    with pytest.raises(ValueError, match="loss: got nan at step 1; finite numbers are accepted"):
        pretrain(model, processor, Course(tmp_path / "lessons", 20, math.inf, 0), str)


def test_a_course_that_breaks_in_half_precision_goes_on_in_float32_from_its_last_checkpoint(tmp_path, monkeypatch):
    lines, forward, given = [], FactReader.forward, []

    def broken(reader, **batch):
        given.append(reader.embedder.dtype)
        loss = forward(reader, **batch)["loss"]
        return {"loss": loss * math.nan if len(given) == 22 else loss}

    monkeypatch.setattr(FactReader, "forward", broken)
    model, processor = make()
    learnt = pretrain(model.bfloat16(), processor, Course(tmp_path, 24, math.inf, 0, size=4), lines.append)
    assert learnt.lessons == 24 and [str(dtype) for dtype in given] == ["torch.bfloat16"] * 22 + ["torch.float32"] * 4
    assert len(lines) == 1 and "got nan at step 22" in lines[0] and lines[0].endswith("; going on in float32")
    assert model.dtype == torch.float32 and all(value.isfinite().all() for value in model.state_dict().values())
