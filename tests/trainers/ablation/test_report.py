import json

import numpy as np
import pytest
from PIL import Image

from gve.eval.averages import AVERAGE_NAMES
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES
from gve.trainers.ablation.outcomes import read_outcome
from gve.trainers.ablation.report import BEST, draw_arms, mean_epochs, write_report
from gve.trainers.ablation.scaling import summarise
from gve.trainers.ablation.transfer import summarise_transfer
from gve.trainers.curriculum.schedule import CurriculumEpoch, CurriculumHistory, TaskScores

SOURCES = ("t2t", "t2v", "t2v-twins", "v2v")


def run_of(arm, seed, score):
    scores = {name: {"score": score} for name in (*ABILITY_NAMES, *AVERAGE_NAMES)}
    epochs = {
        epoch: CurriculumEpoch(
            0.5, dict.fromkeys(SOURCES, 0.25), dict.fromkeys(SOURCES, TaskScores(0.4, 0.1 * seed, 0.9))
        )
        for epoch in range(3)
    }
    return {
        "arm": arm,
        "seed": seed,
        "cpu_seconds": 10.0,
        "averages": {name: scores[name] for name in AVERAGE_NAMES},
        "abilities": {name: scores[name] for name in ABILITY_NAMES},
        "sets": {name: {"score": score, "in_group": {"score": score}} for name in ("CRB-S", "CRB-T")},
        "history": CurriculumHistory(epochs).to_json(),
    }


def write_study(root, world, gains, pairs=100):
    """Two seeds of each arm, .60 and .61 for uniform, and so much more for the others in every seed."""
    (root / "runs").mkdir(parents=True)
    settings = {"steps": 160, "pairs": {"t2v": pairs}, "raw": 7, "lessons": 9, "world": world}
    for name, content in (("study", settings), ("start", run_of("", 0, 0.4)), ("told_right", {"first_color": 0.9})):
        (root / f"{name}.json").write_text(json.dumps(content))
    for arm, gain in {"uniform": 0.0, **gains}.items():
        for seed in (0, 1):
            content = json.dumps(run_of(arm, seed, 0.6 + 0.01 * seed + gain + 0.001 * seed * bool(gain)))
            (root / "runs" / f"{arm}-{seed}.json").write_text(content)
    return root


def test_a_report_holds_two_worlds_side_by_side(tmp_path):
    mine = write_study(tmp_path / "held-out", "held-out", {"unlock": 0.02})
    other = write_study(tmp_path / "default", "default", {"unlock": 0.03, "pyramid": -0.01})
    gains = {"task": "t2t", "seed": 0, "before": {"t2t": 0.5}, "after": {"t2t": 0.7}}
    (mine / "transfer.json").write_text(json.dumps(summarise_transfer([gains])))
    outcomes = [read_outcome(mine), read_outcome(other)]
    write_report(outcomes, mine)
    page = (mine / "REPORT.md").read_text()
    lines = {line.split(" |")[0][2:]: line for line in reversed(page.splitlines()) if line.startswith("|")}
    table = page[page.index("AVG-D, differences") :]
    unlock = next(line for line in table.splitlines() if line.startswith("| unlock"))
    assert "**+0.0205 [" in unlock and "**+0.0305 [" in unlock and unlock.count("| 2 |") == 2
    assert next(line for line in table.splitlines() if line.startswith("| pyramid")).startswith(
        "| pyramid | uniform |  |"
    )
    assert "## Means over seeds, held-out" in page and "## Means over seeds, default" in page
    assert lines["first color"].count("0.900") == 2
    assert "(held-out-transfer.png)" in page and "default-transfer" not in page and "scaling" not in page
    assert json.loads((mine / "results.json").read_text())["default"]["pyramid"]["1"]["averages"]["AVG-D"] == 0.601
    for name in ("arms", "held-out-curriculum", "default-curriculum", "held-out-transfer"):
        assert Image.open(mine / f"{name}.png").size[0] > 900 and f"({name}.png)" in page
    figure = draw_arms({outcome.world: outcome for outcome in outcomes}, ["pyramid", "unlock"])
    assert [axes.get_title() for axes in figure.axes] == ["held-out", "default"]
    assert [len(axes.lines) for axes in figure.axes] == [4, 7]  # three of each arm that was run, and zero
    with pytest.raises(ValueError, match="of different worlds or sizes, got two of default with 100 pairs"):
        write_report([outcomes[1]] * 2, mine)


def test_a_study_of_scaling_stands_beside_another_of_its_world(tmp_path):
    small, large = (write_study(tmp_path / str(pairs), "default", {}, pairs) for pairs in (100, 9000))
    (small / "runs" / "unlock-0.json").write_text(json.dumps(run_of("unlock", 0, 0.7)))
    (small / "runs" / "unlock-1.json").write_text(json.dumps(run_of("unlock", 1, 0.7)))
    axes = {"steps": summarise([(10.0, [0.5, 0.5]), (20.0, [0.6, 0.7])])}
    (large / "scaling.json").write_text(json.dumps({"seeds": [0, 1], "axes": axes}))
    write_report([read_outcome(small), read_outcome(large)], small)
    page = (small / "REPORT.md").read_text()
    assert "| arm | minus | difference, default | p, default | seeds, default |\n" in page
    assert "## Means over seeds, default-9000" in page and "## Abilities, differences, default-9000" not in page
    assert "| steps | 10: 0.500, 20: 0.650 | " in page and (small / "default-9000-scaling.png").stat().st_size > 5000
    kept = json.loads((small / "results.json").read_text())["default-9000"]
    assert kept["scaling"]["axes"]["steps"]["sizes"] == [10, 20]


def test_an_empty_study_has_a_report_and_scaling_its_fits(tmp_path):
    root = write_study(tmp_path / "default", "default", {})
    for path in (root / "runs").iterdir():
        path.unlink()
    axes = {"pairs": summarise([(100.0, [0.50, 0.52]), (1000.0, [0.60, 0.62])])}
    (root / "scaling.json").write_text(json.dumps({"seeds": [0, 1], "axes": axes}))
    write_report([read_outcome(root)], root)
    page = (root / "REPORT.md").read_text()
    assert "0 seeds at most" in page
    assert "| pairs | 100: 0.510, 1,000: 0.610 | +0.1000 [+0.1000, +0.1000] | +17.9% [" in page
    assert "(default-scaling.png)" in page and (root / "default-scaling.png").is_file()


def test_the_tuned_priors_bound_the_best_schedule(tmp_path):
    root = write_study(tmp_path, "default", {BEST: 0.01, "oracle": 0.04})
    write_report([read_outcome(root)], root)
    page = (root / "REPORT.md").read_text()
    assert "priors tuned on the test gain +0.0405 [" in page and "`pyramid-plus` +0.0105.\n" in page
    (root / "oracle.json").write_text(json.dumps({"priors": {}, "draws": [{"AVG-D": 0.5}, {"AVG-D": 0.7}]}))
    write_report([read_outcome(root)], root)
    page = (root / "REPORT.md").read_text()
    assert "2 mixtures of the search reach 0.500 to 0.700 on the test that they were chosen by" in page
    assert "a deviation of 0.141; the seeds of `uniform` have 0.007." in page
    kept = json.loads((root / "results.json").read_text())["default"]
    assert kept["(start)"]["0"]["averages"]["AVG-D"] == 0.4
    assert kept["search"] == {"priors": {}, "AVG-D": [0.5, 0.7]} and kept["oracle"]["0"]["averages"]["AVG-D"] == 0.64


def test_a_curriculum_is_the_mean_over_seeds():
    epochs = mean_epochs([run_of("unlock", seed, 0.5) for seed in (1, 4)])
    assert len(epochs) == 3
    assert epochs[0]["R_centred/t2v"] == pytest.approx(np.mean([0.1, 0.4]))
    assert (epochs[2]["P/v2v"], epochs[2]["accuracy/t2t"]) == (0.25, 0.9)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no study with scores"):
        read_outcome(tmp_path)
