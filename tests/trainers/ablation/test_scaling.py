import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from gve.tiny import build_tiny
from gve.trainers.ablation.ablate_command import main, make_study
from gve.trainers.ablation.arms import BY_NAME
from gve.trainers.ablation.jobs import HIDE, Machine, run_jobs
from gve.trainers.ablation.preparation import prepare
from gve.trainers.ablation.scaling import WHOLE, draw_scaling, points_of, summarise
from gve.trainers.recipe import RECIPES, read_recipe


def test_fits_of_known_laws():
    """A straight line in log10, and an error that falls as size^-0.2, with seeds that differ by the same at all sizes."""
    sizes, shifts = [10.0, 100.0, 1000.0], np.array([-0.01, 0.0, 0.01])
    straight = summarise([(size, (0.3 + 0.1 * np.log10(size) + shifts).tolist()) for size in sizes])
    assert straight["log"]["value"] == pytest.approx(0.1) and straight["log"]["interval"] == pytest.approx([0.1, 0.1])
    assert straight["relative"]["value"] == pytest.approx(0.1 / 0.5)
    low, high = straight["relative"]["interval"]
    assert 0.1 / 0.51 - 1e-4 <= low < 0.2 < high <= 0.1 / 0.49 + 1e-4
    power = summarise([(size, [1 - 0.9 * size**-0.2] * 3) for size in sizes])
    assert power["power"]["value"] == pytest.approx(0.2, abs=1e-4)
    steeper = summarise([(size, [0.3, 0.3 + 0.1 * np.log10(size)]) for size in sizes])
    assert steeper["log"]["interval"] == pytest.approx([0.0, 0.1], abs=1e-4)  # one seed has the slope 0, the other 0.1


def test_the_picture_has_a_panel_for_each_axis_and_the_papers_slope_beside_pairs():
    found = {axis: summarise([(1.0, [0.4, 0.5]), (10.0, [0.5, 0.6])]) for axis in ("pairs", "steps")}
    pairs, steps = draw_scaling(found).axes
    assert (pairs.get_xlabel(), steps.get_xlabel()) == ("pairs", "steps")
    assert "Figure 6" in pairs.get_legend().texts[-1].get_text() and len(steps.get_legend().texts) == 2


def test_points_differ_in_one_thing_and_models_of_all_widths_work(tmp_path):
    study = make_study(tmp_path)
    points = points_of(study, ("pairs", "steps", "parameters"), 25)
    assert points[0] == (points[0][0], WHOLE) and len({arm.name for _, arm in points}) == len(points)
    shares = [arm.share for _, arm in points if arm.name.startswith("pairs")]
    assert min(shares) * 15480 / 25 >= 8 and len(shares) == 3
    wide = [one for one, _ in points if one.root != study.root]
    assert {one.data for one in wide} == {study.data}
    sizes = []
    for one in wide:
        model, processor = build_tiny(["a red disc"] * 50, **one.architecture)
        inputs = processor.prepare([{"video": np.zeros((8, 48, 48, 3), np.uint8)}])
        assert bool(model(**inputs).embeddings.isfinite().all())
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes == sorted(sizes) and sizes[-1] > 10 * sizes[0]


def test_jobs_give_results_in_order_and_end_with_the_time(monkeypatch):
    monkeypatch.setenv(HIDE, "3")
    calls = []
    jobs = [(time.sleep, 0.2), (abs, -2), (os.getenv, HIDE), (abs, -4)]
    machine = Machine(parallel=1, device="cpu")
    assert run_jobs(jobs, machine, every=2, after=partial(calls.append, 1)) == [None, 2, "", 4]
    assert len(calls) == 2 and os.environ[HIDE] == "3"
    assert run_jobs(jobs, Machine(ends=time.monotonic())) == [None] * 4


def test_what_is_told_after_a_round_leaves_out_the_jobs_before_it(tmp_path):
    seen = []
    jobs = [(Path.touch, tmp_path / str(number)) for number in range(6)]
    run_jobs(jobs, Machine(parallel=1), every=2, lead=1, after=lambda: seen.append(len(list(tmp_path.iterdir()))))
    assert seen == [3, 5]


def test_the_recipe_for_a_gpu_has_30_to_100_million_parameters(tmp_path):
    recipe = read_recipe("world-gpu", folder="ablation")
    study = make_study(tmp_path, share=recipe["share"], **recipe["study"])
    model, _ = build_tiny(["a red disc"] * 50, **study.architecture)
    assert 3e7 < sum(p.numel() for p in model.parameters()) < 1e8
    assert sum(study.pairs.values()) > 1e5 and set(recipe["arms"]) <= set(BY_NAME)
    assert (RECIPES / "ablation" / "world-gpu.yaml").is_file()


def test_a_wrong_field_and_a_folder_of_another_study_are_refused(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("study: {stepz: 3}")
    assert main(["--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "got stepz; fields of Study" in capsys.readouterr().err
    study = make_study(tmp_path, batch=16)
    old = {name: value for name, value in study.settings().items() if name not in ("batch", "world")}
    (tmp_path / "study.json").write_text(json.dumps(old, default=vars))  # as before these settings had a name
    with pytest.raises(ValueError, match="other settings"):
        prepare(study, workers=1)


@pytest.mark.slow
def test_a_recipe_with_scaling_at_toy_size(tmp_path, capsys):
    """Another world and shape, batches made by processes of their own, two axes, and a second call that only reads."""
    shape = {"text_hidden": 64, "vision_hidden": 64, "text_layers": 1, "vision_depth": 1}
    study = {"architecture": shape, "steps": 20, "lessons": 4, "lesson": 8, "batch": 8, "world": "held-out"}
    recipe = {"share": 0.03, "seeds": 2, "arms": ["unlock"], "parallel": 1, "study": study | {"loaders": 1}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out"), "--scaling", "pairs", "parameters"]
    assert main([*flags, "--minutes", "60"]) == 0
    told = capsys.readouterr()
    assert set(json.loads(told.out)) == {"unlock"} and "2 seeds" in told.err
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert found["seeds"] == [0, 1] and set(found["axes"]) == {"pairs", "parameters"}
    fewer, every = found["axes"]["pairs"]["sizes"]
    assert 200 <= fewer < every and len(found["axes"]["parameters"]["sizes"]) == 4
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("runs/*.json")}
    frames = len(list((tmp_path / "out" / "frames").glob("*/*.safetensors")))
    assert main([*flags, "--minutes", "0"]) == 2
    assert "Run again to continue" in capsys.readouterr().err
    assert main(flags) == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    assert len(list((tmp_path / "out" / "frames").glob("*/*.safetensors"))) == frames  # runs decoded nothing more
    assert "held-out-scaling.png" in (tmp_path / "out" / "REPORT.md").read_text()
