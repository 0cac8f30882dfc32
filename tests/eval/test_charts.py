"""Charts: readable files, clear refusals, and curves over frames and tokens of one of our models."""

import json

import numpy as np
import pytest
from PIL import Image

from gve.eval.averages import ABILITY_NAMES
from gve.eval.charts import check_drawable, draw_radar, draw_scaling
from gve.eval.eval_command import main
from gve.eval.report import scaling_rows
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import Sizes

SMALL = Sizes(base=3, groups=1, programs=2, themes=2, longs=2, composed=2)


def make_report(names):
    entries = {name: {"score": 0.3 + 0.05 * (place % 4), "chance": 0.05} for place, name in enumerate(names)}
    return {
        "model": "tiny",
        "split": "unseen",
        "sets": {},
        "abilities": {name: entries.get(name) for name in ABILITY_NAMES},
    }


def test_draws_score_over_chance(tmp_path):
    target = tmp_path / "radar.png"
    draw_radar(make_report(ABILITY_NAMES), target)
    pixels = np.asarray(Image.open(target).convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 800
    blue = (pixels[..., 2] - pixels[..., 0] > 20).mean()
    assert 0.05 < blue < 0.6  # the area of the scores
    assert [path.name for path in tmp_path.iterdir()] == ["radar.png"]


def test_needs_three_abilities(tmp_path):
    assert check_drawable(make_report(["T", "TXT", "VIS"])["abilities"]) == ["TXT", "VIS", "T"]
    with pytest.raises(ValueError, match=r"radar: 2 abilities have all their sets \(CMP, LC\); at least 3"):
        draw_radar(make_report(["LC", "CMP"]), tmp_path / "radar.png")


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny_folder):
    root = tmp_path_factory.mktemp("scaling")
    build_world(root, seed=5, pairs={}, raw=0, workers=1, progress=False, sizes=SMALL)
    arguments = ["--model", str(tiny_folder), "--data", str(root / "uvrb"), "--sets", "msrvtt", "lovr-v", "vdc-d"]
    assert main([*arguments, "--frames", "4,2", "--tokens", "4,200", "--out", str(root / "out")]) == 0
    return json.loads((root / "out" / "report.json").read_text()), root / "out"


def test_every_setting_is_scored_and_drawn(report):
    told, out = report
    assert told["settings"]["num_frames"] == 4
    assert [(point["num_frames"], point["frame_tokens"]) for point in told["scaling"]] == [
        (4, 4),
        (4, 200),
        (2, 4),
        (2, 200),
    ]
    first = told["scaling"][0]
    assert first["sets"]["MSRVTT"]["score"] == told["sets"]["MSRVTT"]["score"]
    assert (
        first["throughput"]["rows_encoded"] > told["scaling"][1]["throughput"]["rows_encoded"]
    )  # texts are not again
    assert "### Scaling" in (out / "report.md").read_text()
    assert np.asarray(Image.open(out / "scaling.png")).std() > 10
    rows = scaling_rows(told["scaling"])
    assert [row[:2] for row in rows] == [("4", "4"), ("4", "200"), ("2", "4"), ("2", "200")]


def test_one_setting_is_no_curve(report, tmp_path):
    with pytest.raises(ValueError, match="scaling: 1 settings; at least two"):
        draw_scaling({**report[0], "scaling": report[0]["scaling"][:1]}, tmp_path / "s.png")
