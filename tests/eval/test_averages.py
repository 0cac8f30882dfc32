"""Abilities and averages: the paper's rule, the plain one, and both of replicates."""

import numpy as np
import pytest

from gve.eval.analysis import paper_models
from gve.eval.averages import aggregate, aggregate_replicates, displayed, round_half_up, set_weights
from gve.hub_datasets.uvrb import ABILITIES, SETS

GVE_7B = next(model.scores for model in paper_models() if model.name == "GVE-7B")
SCORES = {name: place / 7 for place, name in enumerate(SETS)}


def test_unrounded_values_stay_exact():
    values = aggregate(SCORES)
    spatial, temporal = (SCORES["CRB-S"] + SCORES["VDC-O"]) / 2, (SCORES["CRB-T"] + SCORES["CMRB"]) / 2
    partial = (SCORES["DREAM-E"] + SCORES["LoVR-TH"] + SCORES["PEV-K"]) / 3
    assert values["FG"] == pytest.approx((spatial + temporal + partial) / 3, rel=1e-14)
    assert values["AVG-D"] == pytest.approx(sum(SCORES.values()) / 16, rel=1e-14)


def test_plain_rule_is_the_mean_over_sets():
    values = aggregate(SCORES, rule="plain")
    for ability, names in ABILITIES.items():
        assert values[ability] == pytest.approx(np.mean([SCORES[name] for name in names]), rel=1e-14)
    six = [values[name] for name in ("TXT", "CMP", "VIS", "CG", "FG", "LC")]
    assert values["AVG-A"] == pytest.approx(np.mean(six), rel=1e-14)
    assert values["AVG-D"] == aggregate(SCORES)["AVG-D"]


def test_the_rules_differ_as_published():
    """GVE-7B: TXT 0.657, FG 0.570 and AVG-A 0.600 by the paper's rule."""
    both = [aggregate(GVE_7B, rounded=True, rule=rule) for rule in ("paper", "plain")]
    assert [(one["TXT"], one["FG"], one["AVG-A"]) for one in both] == [(0.657, 0.57, 0.6), (0.602, 0.548, 0.587)]


def test_partial_sets_leave_gaps():
    values = aggregate({"MSRVTT": 0.5, "DiDeMo": 0.25, "CRB-G": 0.75, "MS-TI": 0.1})
    assert values["CG"] == 0.5
    assert {name for name, value in values.items() if value is not None} == {"CG"}


@pytest.mark.parametrize("rule", ["paper", "plain"])
def test_weights(rule):
    assert set_weights("CG", rule=rule) == pytest.approx(dict.fromkeys(["MSRVTT", "DiDeMo", "CRB-G"], 1 / 3))
    for name in ("TXT", "AVG-A", "AVG-D"):
        weights = set_weights(name, rule=rule)
        assert sum(weights.values()) == pytest.approx(1)
        total = sum(weight * SCORES[one] for one, weight in weights.items())
        assert total == pytest.approx(aggregate(SCORES, rule=rule)[name])


def test_weights_of_fine_abilities():
    assert set_weights("FG")["CRB-S"] == pytest.approx(1 / 6)
    assert set_weights("FG")["PEV-K"] == pytest.approx(1 / 9)
    assert set_weights("FG", rule="plain")["PEV-K"] == pytest.approx(1 / 7)


@pytest.mark.parametrize("rule", ["paper", "plain"])
def test_replicates_are_aggregated_one_by_one(rule):
    drawn = np.random.default_rng(0).random((16, 5))
    rows = aggregate_replicates(dict(zip(SETS, drawn, strict=True)), rule=rule)
    for place in range(5):
        wanted = aggregate(dict(zip(SETS, drawn[:, place], strict=True)), rule=rule)
        assert {name: row[place] for name, row in rows.items()} == pytest.approx(wanted)
    partial = aggregate_replicates({"MS-TI": drawn[0], "MS-TV": drawn[1]}, rule=rule)
    assert {name for name, row in partial.items() if row is not None} == {"CMP"}


def test_displayed_has_three_decimals():
    report = {"sets": {name: {"score": score, "chance": 0.25} for name, score in GVE_7B.items()}}
    assert displayed(report)["AVG-A"] == "0.600"
    assert displayed(report, rule="plain")["AVG-A"] == "0.587"
    assert displayed(report, "chance")["TXT"] == "0.250"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0625, "0.063"), (0.4415, "0.442"), (1.0, "1.000"), (1e-07, "0.000"), (0.5704999, "0.570"), (-0.0004, "0.000")],
)
def test_half_up(value, text):
    assert round_half_up(value) == text


def test_unknown_rule_is_named():
    with pytest.raises(ValueError, match="rule: must be paper or plain, got 'flat'"):
        aggregate({}, rule="flat")
