import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gve.trainers.curriculum.schedule import (
    SCHEDULES,
    CurriculumEpoch,
    CurriculumHistory,
    Schedule,
    bound_probabilities,
    sigma_at,
)
from gve.trainers.curriculum.weights import TaskScores, prerequisites

SIZES = {"t2t": 10, "t2v": 30, "v2v": 60}
SCORES = {"t2t": TaskScores(0.5, 0.3, 0.8), "t2v": TaskScores(0.4, 0.4, 0.9), "v2v": TaskScores(0.9, 0.1, 0.2)}


def test_sigma_rises_in_a_line():
    assert [round(sigma_at(t, 5), 6) for t in range(5)] == [0.1, 0.325, 0.55, 0.775, 1.0]
    assert sigma_at(0, 1) == 0.1


def test_each_schedule():
    for name, expected in (
        ("uniform", [1, 1, 1]),
        ("proportional", [0.1, 0.3, 0.6]),
        ("pyramid", np.exp(np.array([0.5, 0.4, 0.9]) / 0.55)),
        ("pyramid-centred", np.exp(np.array([0.3, 0.4, 0.1]) / 0.55)),
        ("pyramid-accuracy", np.exp(np.array([0.8, 0.9, 0.2]) / 0.55)),
    ):
        record = Schedule(name, num_epochs=3).epoch(1, SIZES, SCORES)
        assert list(record.probabilities.values()) == pytest.approx(list(np.array(expected) / sum(expected)))
        assert record.sigma == pytest.approx(0.55)
    assert set(Schedule("pyramid").epoch(0, SIZES, {}).probabilities.values()) == {1 / 3}  # without scores


def test_water_filling_by_hand():
    assert bound_probabilities([0.8, 0.1, 0.1], cap=0.5) == pytest.approx([0.5, 0.25, 0.25])
    assert bound_probabilities([0.9, 0.08, 0.02], floor=0.1) == pytest.approx([0.8, 0.1, 0.1])
    assert bound_probabilities([0.90, 0.07, 0.03], cap=0.6, floor=0.15) == pytest.approx([0.6, 0.25, 0.15])
    assert bound_probabilities([1, 0, 0], cap=0.5) == pytest.approx([0.5, 0.25, 0.25])


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=9), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_bounds_hold_and_untouched_ratios_stay(weights, cap_share, floor_share):
    count = len(weights)
    cap, floor = 1 / count + cap_share * (1 - 1 / count), floor_share / count
    got = bound_probabilities(weights, cap=cap, floor=floor)
    assert got.sum() == pytest.approx(1, abs=1e-12)
    assert floor - 1e-9 <= got.min() <= got.max() <= cap + 1e-9
    assert (np.diff(got[np.argsort(weights)]) >= -1e-9).all()  # the order of the tasks survives
    free = (got > floor + 1e-6) & (got < cap - 1e-6)
    ratios = got[free] / np.array(weights)[free]
    assert np.allclose(ratios, ratios[:1], rtol=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.integers(0, 40))
def test_history_survives_json_to_the_bit(values, epoch):
    scores = {task: TaskScores(v, v / 3, v / 7) for task, v in zip(SIZES, values, strict=True)}
    record = Schedule("pyramid", num_epochs=41).epoch(epoch, SIZES, scores)
    history = CurriculumHistory({epoch: record, epoch + 1: CurriculumEpoch(1.0, {"t2v": 1.0})})
    assert CurriculumHistory.from_json(json.loads(json.dumps(history.to_json()))) == history


def test_priors_weigh_every_schedule_and_the_epoch_without_a_prober():
    scores = {"t2i": TaskScores(0.9, 0.2, 0.5), "t2v": TaskScores(0.4, 0.1, 0.5)}

    def odds(name, epoch, scores, **priors):
        schedule = Schedule(name, num_epochs=2, priors=priors)
        chances = schedule.epoch(epoch, {"t2i": 5, "t2v": 9}, scores).probabilities
        assert sum(chances.values()) == pytest.approx(1)
        return chances["t2v"] / chances["t2i"]

    for name, epoch, known in (
        ("pyramid", 1, scores),
        ("pyramid", 0, {}),
        ("uniform", 0, {}),
        ("proportional", 0, {}),
    ):
        assert odds(name, epoch, known, t2v=3.0) == pytest.approx(3 * odds(name, epoch, known))


def scores_of(**measured):
    """By task, underscores for hyphens: (R', accuracy)."""
    return {name.replace("_", "-"): TaskScores(0.5, *pair) for name, pair in measured.items()}


def history_of(*epochs):
    return CurriculumHistory({number: CurriculumEpoch(0.1, {}, scores) for number, scores in enumerate(epochs)})


def unlocked(history, now, *, floor=0.1, **kwargs):
    sizes = dict.fromkeys(now, 10)
    schedule = Schedule("unlock", num_epochs=9, floor=floor, **kwargs)
    return schedule.epoch(len(history.epochs), sizes, now, history).probabilities


def test_unlocking_weighs_progress_and_headroom():
    first = scores_of(t2t=(0.1, 0.2), i2v=(0.1, 0.1), v2v=(0.0, 0.0))
    then = scores_of(t2t=(0.2, 0.5), i2v=(0.4, 0.7), v2v=(0.01, 0.02))
    got = unlocked(history_of(first), then)
    # t2t .1 + .5, i2v .3 + .3, v2v has not moved by .05 and stays at the floor
    assert got == pytest.approx({"t2t": 0.45, "i2v": 0.45, "v2v": 0.1})
    later = scores_of(t2t=(0.2, 0.5), i2v=(0.4, 1.0), v2v=(0.01, 0.02))
    got = unlocked(history_of(first, then), later, floor=0.05)
    # t2t .5, i2v is learned through, v2v is locked
    assert got == pytest.approx({"t2t": 0.9, "i2v": 0.05, "v2v": 0.05})


def test_a_task_unlocks_with_its_prerequisite():
    first = scores_of(t2v=(0.0, 0.0), t2v_spatial=(0.0, 0.0), ti2v=(0.0, 0.0), v2v=(0.0, 0.0))
    then = scores_of(t2v=(0.1, 0.1), t2v_spatial=(0.0, 0.0), ti2v=(0.0, 0.0), v2v=(0.0, 0.0))
    got = unlocked(history_of(first), then, floor=0.04)
    # t2v .1 + .9, both that build on it 1, v2v at the floor
    assert got == pytest.approx({"t2v": 0.32, "t2v-spatial": 0.32, "ti2v": 0.32, "v2v": 0.04})


def test_once_unlocked_a_task_stays_so():
    back = scores_of(t2t=(0.0, 0.0), v2v=(0.0, 0.0))
    got = unlocked(history_of(back, scores_of(t2t=(0.3, 0.0), v2v=(0.0, 0.0)), back), back)
    assert got == pytest.approx({"t2t": 0.9, "v2v": 0.1})


def test_unlocking_begins_uniform_and_the_margin_decides():
    first, then = scores_of(t2t=(0.1, 0.1), v2v=(0.1, 0.1)), scores_of(t2t=(0.14, 0.1), v2v=(0.1, 0.1))
    assert unlocked(history_of(), first) == unlocked(history_of({}), first) == {"t2t": 0.5, "v2v": 0.5}
    assert unlocked(history_of(first), then) == {"t2t": 0.5, "v2v": 0.5}
    assert unlocked(history_of(first), then, unlock_margin=0.03) == pytest.approx({"t2t": 0.9, "v2v": 0.1})


def test_later_epochs_of_a_history_are_not_looked_at():
    first, then = scores_of(t2t=(0.1, 0.1), v2v=(0.1, 0.1)), scores_of(t2t=(0.5, 0.1), v2v=(0.1, 0.1))
    schedule = Schedule("unlock", floor=0.1)
    sizes = {"t2t": 1, "v2v": 1}
    again = schedule.epoch(1, sizes, then, history_of(first, then, scores_of(t2t=(0.5, 0.1), v2v=(0.9, 0.9))))
    assert again == schedule.epoch(1, sizes, then, history_of(first))


@given(
    st.sampled_from(SCHEDULES),
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=9, max_size=9),
    st.integers(0, 3),
)
def test_every_schedule_is_a_pure_function_to_a_distribution(name, values, epoch):
    names = ("t2v", "t2v-spatial", "v2v")
    records = [
        {task: TaskScores(pair[0], *pair) for task, pair in zip(names, values[start : start + 3], strict=True)}
        for start in (0, 3, 6)
    ]
    history = history_of(*records[:2])
    before = history.to_json()
    schedule = Schedule(name, num_epochs=4, floor=0.05, cap=0.8, transfer={"t2v": {"t2v": 0.5}})
    draws = [schedule.epoch(epoch, dict.fromkeys(names, 5), records[2], history) for _ in range(2)]
    assert draws[0] == draws[1]
    assert history.to_json() == before
    chances = draws[0].probabilities
    assert sum(chances.values()) == pytest.approx(1)
    assert all(0.05 - 1e-9 <= chance <= 0.8 + 1e-9 for chance in chances.values())


def test_prerequisites_follow_from_the_names():
    tasks = ["t2t", "t2i", "t2v", "ti2v", "tv2v", "i2v", "v2v", "t2v-spatial", "t2v-spatial-twins", "t2v-style"]
    assert prerequisites("t2v", tasks) == []
    assert prerequisites("ti2v", tasks) == ["t2v", "i2v"]
    assert prerequisites("tv2v", tasks) == ["t2v", "v2v"]
    assert prerequisites("t2v-spatial-twins", tasks) == ["t2v", "t2v-spatial"]
    assert prerequisites("ti2v", ["ti2v", "i2v", "t2v-style"]) == ["i2v"]


def test_what_cannot_be_drawn_is_refused():
    lacking, broken = {"t2v": SCORES["t2v"]}, SCORES | {"v2v": TaskScores(math.nan, 0.0, 0.0)}
    nothing = dict.fromkeys(SIZES, 0.0)
    for schedule, scores, message in (
        (Schedule("pyramid"), lacking, "got none for t2t, v2v"),
        (Schedule("pyramid"), broken, "not finite for v2v"),
        (Schedule("uniform", cap=0.3), {}, "probability_cap"),
        (Schedule("uniform", floor=0.4), {}, "for 3 tasks"),
        (Schedule("uniform", priors=nothing), {}, "task_priors: got 0 for every task"),
    ):
        with pytest.raises(ValueError, match=message):
            schedule.epoch(0, SIZES, scores)
    with pytest.raises(ValueError, match="probability_floor: got 0 with the schedule unlock"):
        Schedule("unlock")
