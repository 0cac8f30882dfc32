"""Abilities and averages: the paper's rule, the plain one, and both of replicates."""

import numpy as np
import pytest

from gve.eval.averages import AVERAGE_NAMES, aggregate, aggregate_replicates, round_half_up, set_weights
from gve.hub_datasets.uvrb import ABILITIES, SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

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


@pytest.mark.parametrize("rule", ["paper", "plain"])
def test_weights_give_the_values(rule):
    for name in (*ABILITY_NAMES, *AVERAGE_NAMES):
        weights = set_weights(name, rule=rule)
        assert sum(weights.values()) == pytest.approx(1)
        total = sum(weight * SCORES[one] for one, weight in weights.items())
        assert total == pytest.approx(aggregate(SCORES, rule=rule)[name])


@pytest.mark.parametrize("rule", ["paper", "plain"])
def test_replicates_are_aggregated_one_by_one(rule):
    drawn = np.random.default_rng(0).random((16, 5))
    rows = aggregate_replicates(dict(zip(SETS, drawn, strict=True)), rule=rule)
    for place in range(5):
        wanted = aggregate(dict(zip(SETS, drawn[:, place], strict=True)), rule=rule)
        assert {name: row[place] for name, row in rows.items()} == pytest.approx(wanted)
    partial = aggregate_replicates({"MS-TI": drawn[0], "MS-TV": drawn[1]}, rule=rule)
    assert {name for name, row in partial.items() if row is not None} == {"CMP"}


@pytest.mark.parametrize(
    ("value", "text"), [(0.0625, "0.063"), (0.4415, "0.442"), (1e-07, "0.000"), (0.5704999, "0.570"), (-4e-4, "0.000")]
)
def test_half_up(value, text):
    assert round_half_up(value) == text


def test_unknown_rule_is_named():
    with pytest.raises(ValueError, match="rule: must be paper or plain, got 'flat'"):
        aggregate({}, rule="flat")
