import numpy as np
import pytest
from datasets import Dataset

from gve.trainers.ablation.ablate_command import main
from gve.trainers.ablation.arms import ARMS, BY_NAME, COLLECTED, ORACLE, Arm, chosen, priors_of, sources_of
from gve.trainers.ablation.oracle import read_priors, search_priors
from gve.trainers.ablation.transfer import draw_transfer, summarise_transfer


def test_the_search_finds_shares_that_score_better():
    """The score is highest where a's share is .6 and b's .3."""
    names, best = ["a", "b", "c", "d"], np.array([2.4, 1.2, 0.2, 0.2])
    seeds = []

    def score(arms):
        seeds.extend(seed for _, seed in arms)
        return [-float(np.abs(np.array([arm.priors[name] for name in names]) - best).sum()) for arm, _ in arms]

    found = search_priors(names, score, draws=24, rounds=4)
    assert sum(found["priors"].values()) == pytest.approx(4, abs=1e-3)
    assert (
        score([(Arm("x", "", priors=found["priors"]), 0)])[0]
        > score([(Arm("x", "", priors=dict.fromkeys(names, 1)), 0)])[0] / 2
    )
    assert len(found["draws"]) == 96 and min(seeds[:96]) >= 1000
    assert found == search_priors(names, score, draws=24, rounds=4)


def test_some_arms_need_something_first(tmp_path, capsys):
    assert not {ORACLE, "dependency"} & {arm.name for arm in chosen(None)}
    for flags, message in (
        (["--arms", ORACLE], "--arms: oracle needs oracle.json"),
        (["--arms", "dependency"], "Add --transfer"),
        (["--oracle", "2"], "--oracle: got 2; it must be 4 or more"),
    ):
        assert main(["--out", str(tmp_path), *flags]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "oracle.json").write_text('{"priors": {"t2v": 2.0}, "draws": []}')
    assert read_priors(tmp_path) == {"t2v": 2.0}


def test_arms_draw_what_they_say():
    sources = {
        name: Dataset.from_dict({"id": ["a"], "group": [""]}) for name in ("t2v", COLLECTED, "t2v-counterfactual")
    }
    drawn = {arm.name: list(sources_of(arm, sources, seed=0)) for arm in ARMS if arm.share == 1}
    assert drawn["uniform"] == drawn["pyramid-plus"] == ["t2v", COLLECTED]
    assert drawn["counterfactual"] == list(sources)
    assert drawn["collected"] == [COLLECTED]
    alone = priors_of(Arm("t2v-alone", "", only="t2v"), ["t2v", "t2v-spatial", COLLECTED, "t2t"])
    assert alone == {"t2v": 1.0, "t2v-spatial": 1.0, COLLECTED: 0.0, "t2t": 0.0}
    assert priors_of(BY_NAME["favoured"], ["ti2v", "t2t"]) == {"ti2v": 2.0}


def test_transfer_is_the_mean_gain_by_task():
    before = {"t2t": 0.5, "t2v-event": 0.2, "t2v-theme": 0.4, COLLECTED: 0.9}
    runs = [
        {"task": "t2t", "seed": 0, "before": before, "after": before | {"t2t": 0.7, "t2v-event": 0.3, COLLECTED: 0.0}},
        {"task": "t2t", "seed": 1, "before": before, "after": before | {"t2t": 0.9, "t2v-event": 0.3}},
        {"task": "t2v", "seed": 0, "before": before, "after": before | {"t2v-theme": 0.8, "t2t": 0.4}},
    ]
    found = summarise_transfer(runs)
    assert (found["tasks"], found["seeds"]) == (["t2t", "t2v"], [0, 1])
    assert found["before"] == pytest.approx([0.5, 0.3])
    assert found["mean"] == [pytest.approx([0.3, 0.05]), pytest.approx([-0.1, 0.2])]
    assert found["spread"] == [pytest.approx([0.1414, 0.0], abs=1e-3), [0.0, 0.0]]
    gains, spread = draw_transfer(found).axes
    assert [text.get_text() for text in gains.texts] == ["30.0", "5.0", "-10.0", "20.0"]
    assert spread.get_title() == "standard deviation over 2 seeds"
