import numpy as np
import pytest

from gve.trainers.arguments import read_transfer
from gve.trainers.curriculum.adaptive import ADAPTIVE, ability_of, is_goal
from gve.trainers.curriculum.schedule import CurriculumEpoch, CurriculumHistory, Schedule
from gve.trainers.curriculum.weights import TaskScores


def scores_of(*ranks, names):
    return {name: TaskScores(0.5, 0.1, rank, rank) for name, rank in zip(names, ranks, strict=True)}


def drawn(name, *epochs, names=("t2v-event", "t2v-theme", "t2v-object"), **options):
    """Probabilities after measured epochs, each the MRR (and accuracy) of the three sources."""
    *before, now = [scores_of(*ranks, names=names) for ranks in epochs]
    history = CurriculumHistory({number: CurriculumEpoch(0.1, {}, scores) for number, scores in enumerate(before)})
    schedule = Schedule(name, num_epochs=9, **options)
    return list(schedule.epoch(len(before), dict.fromkeys(names, 10), now, history).probabilities.values())


def test_all_begin_with_what_one_measurement_can_say():
    for name in ("learning-progress", "bandit", "difficulty"):
        assert drawn(name, (0.2, 0.5, 0.9)) == pytest.approx([1 / 3] * 3)
    assert drawn("pyramid-plus", (0.18, 0.52, 0.82)) == pytest.approx(np.array([0.84, 0.5, 0.2]) / 1.54)


def test_progress_follows_what_moves_up_or_down_and_forgets():
    first, second, _ = drawn("learning-progress", (0.2, 0.5, 0.9), (0.4, 0.4, 0.9))
    assert first == pytest.approx(2 * second, rel=0.05)
    early = drawn("learning-progress", (0.2, 0.5, 0.9), (0.4, 0.5, 0.9), (0.4, 0.6, 0.9))
    assert early[0] == pytest.approx(early[1] * 1.4, rel=0.05)  # twice the change, an epoch ago, at .7


def test_the_bandit_pays_the_gain_of_an_arm():
    epochs = [(0.1 + 0.1 * t, 0.5, 0.9 - 0.05 * t) for t in range(6)]
    risen, still, fallen = drawn("bandit", *epochs)
    assert risen > still > fallen
    rewards = np.array([1.0, -1 / 3, -1.0])  # percentiles: gains .1, 0, -.05 between -.05 and .1
    kept = 1 - 0.7**5
    assert [risen, still, fallen] == pytest.approx(np.exp(rewards * kept) / np.exp(rewards * kept).sum(), rel=1e-6)


def test_regret_shares_an_abilitys_weight_among_its_sources():
    names = ("t2v-spatial", "t2v-spatial-twins", "i2v")
    spatial, twins, visual = drawn("regret", (0.9, 0.5, 0.3), names=names)
    assert spatial == twins
    assert visual / (spatial + twins) == pytest.approx(np.exp(0.7 - 0.3))
    again = drawn("regret", (0.9, 0.5, 0.3), (0.9, 0.5, 0.3), names=names)
    assert again[2] / (again[0] + again[1]) == pytest.approx(np.exp(1.7 * 0.4))  # the exponents add up


def test_near_identical_groups_wait_for_their_plain_rows():
    names = ("t2v-event", "t2v-event-twins", "t2v-camera-twins")
    plain, twins, alone = drawn("difficulty", (0.5, 0.1, 0.1), names=names)
    assert twins == pytest.approx(plain / 4)
    assert alone == plain
    assert drawn("difficulty", (1.0, 0.1, 0.1), names=names) == pytest.approx([1 / 3] * 3)


TRANSFER = {"t2t": {"t2t": 0.9, "t2v": 0.2}, "t2v": {"t2v": 0.5, "t2t": 0.3}, "v2v": {"v2v": 0.1, "t2v": -0.4}}


def test_dependency_weighs_what_videos_gain():
    names, ranks = ("t2v-event", "v2v", "t2t"), (0.4, 0.7, 0.1)
    got = drawn("dependency", ranks, names=names, transfer=TRANSFER)
    weights = (
        np.array([0.5 * 0.6, 0.1 * 0.3, 0.2 * 0.6]) + 1e-3
    )  # t2t's own headroom is no goal, harm counts as nothing
    assert got == pytest.approx(weights / weights.sum())
    with pytest.raises(ValueError, match="transfer: got none with the schedule dependency"):
        Schedule("dependency")


def test_the_transfer_file_holds_shares_of_what_was_left(tmp_path):
    path = tmp_path / "transfer.json"
    path.write_text('{"tasks": ["t2t", "t2v"], "before": [0.5, 0.8], "mean": [[0.1, 0.02], [0.0, -0.1]]}')
    found = read_transfer(path)
    assert found["t2t"] == pytest.approx({"t2t": 0.2, "t2v": 0.1})
    assert found["t2v"]["t2v"] == pytest.approx(-0.5)
    path.write_text("{}")
    with pytest.raises(ValueError, match="transfer: cannot read"):
        read_transfer(path)


def test_pyramid_plus_prefers_headroom_that_moves_and_videos():
    names = ("t2v-event", "v2v", "t2t")
    moves, stuck, means = drawn("pyramid-plus", (0.42, 0.42, 0.42), (0.72, 0.42, 0.42), names=names)
    assert moves / stuck == pytest.approx(0.3 * 1.0 / (0.6 * 0.5))
    assert means == pytest.approx(stuck / 4)
    back = drawn("pyramid-plus", (0.42, 0.42, 0.42), (0.72, 0.42, 0.42), (0.42, 0.42, 0.42), names=names)
    assert back[0] == pytest.approx(2 * back[1])  # what was forgotten moves


def test_sources_by_name():
    named = {
        "t2v-spatial-twins": "S",
        "t2v-temporal": "T",
        "t2v-long": "LC",
        "tv2v": "CMP",
        "i2v": "VIS",
        "t2t-twins": "t2t",
    }
    assert {source: ability_of(source) for source in named} == named
    assert ability_of("t2v-of-another-set") == "t2v"
    goals = ("t2v-spatial-twins", "ti2v", "v2v")
    assert [s for s in (*goals, "t2t", "t2i-twins", "v2t-counterfactual") if is_goal(s)] == list(goals)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_no_prober_can_answer_for_the_model_in_training(name):
    schedule = Schedule(name, transfer=TRANSFER)
    assert schedule.adapts and schedule.needs_baseline
    assert not Schedule("pyramid").adapts
    new = drawn(name, (0.1, 0.2, 0.3), (0.2, 0.2, 0.4), transfer=TRANSFER)
    assert sum(new) == pytest.approx(1) and min(new) > 0
