import json
from functools import partial

import numpy as np
import pytest
from datasets import Dataset

from gve.trainers.ablation import ablate_command, oracle
from gve.trainers.ablation.ablate_command import main, make_study
from gve.trainers.ablation.arms import ARMS, BASELINE, BY_NAME, COLLECTED, chosen, sources_of
from gve.trainers.ablation.outcomes import paired_difference
from gve.trainers.curriculum.schedule import SCHEDULES


def test_difference_of_known_numbers():
    """Differences .1, .2, .3: mean .2, deviation .1, half width 4.303 * .1 / sqrt 3."""
    found = paired_difference([0.4, 0.6, 0.8], [0.3, 0.4, 0.5])
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))
    assert not found.excludes_zero
    assert found.chance == 0.25  # of eight ways to flip three signs, two are as far from zero
    assert paired_difference([0.5, 0.51, 0.52], [0.3, 0.31, 0.32]).excludes_zero
    for values, baseline in (([0.1], [0.2]), ([0.1, 0.2], [0.2])):
        with pytest.raises(ValueError, match="Run the missing seeds"):
            paired_difference(values, baseline)


def test_arms_name_schedules_that_exist():
    assert len(BY_NAME) == len(ARMS)
    assert {arm.schedule for arm in ARMS} <= set(SCHEDULES)
    assert BASELINE in {arm.name for arm in chosen(["pyramid"])}
    assert {arm.name for arm in chosen(["scratch-pyramid"])} == {"scratch-pyramid", "scratch", BASELINE}
    assert {arm.against for arm in ARMS} <= set(BY_NAME)
    with pytest.raises(ValueError, match="--arms: got nonsense"):
        chosen(["nonsense"])


def rows(name, groups):
    return Dataset.from_dict({"id": [f"{name}-{number}" for number in range(len(groups))], "group": groups})


def test_a_share_keeps_whole_groups_and_depends_on_the_seed():
    sources = {"t2v-twins": rows("a", [f"g{number // 4}" for number in range(400)]), COLLECTED: rows("b", [""] * 100)}
    kept, again, other = (sources_of(BY_NAME["data-30"], sources, seed=seed) for seed in (1, 1, 2))
    names = kept["t2v-twins"]["group"]
    assert len(names) == 120 and all(names.count(name) == 4 for name in names)
    assert len(kept[COLLECTED]) == 30
    assert kept[COLLECTED]["id"] == again[COLLECTED]["id"] != other[COLLECTED]["id"]
    assert set(sources_of(BY_NAME["collected"], sources, seed=1)) == {COLLECTED}


def test_bad_arguments_are_refused_before_any_work(tmp_path, capsys):
    for flag, value, message in (
        ("seeds", "1", "must be 2 or more"),
        ("steps", "5", "20 or more"),
        ("share", "0", "0.01"),
    ):
        assert main(["--out", str(tmp_path / "none"), f"--{flag}", value]) == 2
        error = capsys.readouterr().err
        assert f"--{flag}: got {value}" in error and message in error
    assert not (tmp_path / "none").exists()


def test_a_share_scales_the_data():
    small, large = (make_study(None, steps=20, lessons=1, share=share) for share in (0.03, 1.0))
    assert sum(small.pairs.values()) < sum(large.pairs.values()) / 10
    assert all(count % 4 == 0 for count in small.pairs.values())


@pytest.mark.slow
def test_a_whole_study_at_toy_size(tmp_path, capsys, monkeypatch):
    """Every stage for real; the second call finds all runs done and changes nothing; other settings are refused."""
    flags = ["--out", str(tmp_path / "study"), "--seeds", "2", "--steps", "20", "--lessons", "4", "--share", "0.03"]
    flags += ["--arms", "pyramid", "dependency", "counterfactual", "oracle", "--parallel", "1"]
    monkeypatch.setattr(oracle, "search_priors", partial(oracle.search_priors, rounds=1))
    monkeypatch.setattr(ablate_command, "TASKS", ("t2v", "v2v"))
    assert main([*flags, "--oracle", "4", "--transfer"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"pyramid", "dependency", "counterfactual", "oracle"}
    assert len(json.loads((tmp_path / "study" / "transfer.json").read_text())["mean"]) == 2
    runs = sorted((tmp_path / "study" / "runs").glob("*.json"))
    names = {path.stem for path in runs}
    assert {"pyramid-0", "pyramid-1", "uniform-0", "uniform-1", "oracle-0-3-1003"} < names and len(names) == 14
    result = json.loads((tmp_path / "study" / "runs" / "pyramid-0.json").read_text())
    assert len(result["sets"]) == 16
    assert set(result["history"]) == set(map(str, range(10)))
    before = [path.stat().st_mtime_ns for path in runs]
    assert main(flags) == 0
    assert [path.stat().st_mtime_ns for path in runs] == before
    report = (tmp_path / "study" / "REPORT.md").read_text()
    assert "| pyramid |" in report and "| pyramid | uniform |" in report
    assert result["cpu_seconds"] > 0 and "| (start) |" in report
    numbers = json.loads((tmp_path / "study" / "results.json").read_text())
    assert numbers["default"]["pyramid"]["0"]["averages"]["AVG-D"] == round(result["averages"]["AVG-D"]["score"], 4)
    assert 0 <= numbers["default"]["uniform"]["1"]["sets"]["CRB-S in group"] <= 1
    assert (tmp_path / "study" / "arms.png").stat().st_size > 5000
    assert main([*flags[:5], "40", *flags[6:]]) == 2
    assert "holds a study with other settings" in capsys.readouterr().err
