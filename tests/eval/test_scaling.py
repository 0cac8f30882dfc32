"""Curves over frames and tokens: the same table and chart from a model of ours."""

import json

import numpy as np
import pytest
from PIL import Image

from gve import build_tiny, save_embedder
from gve.eval.eval_command import main
from gve.eval.scaling import draw_scaling, scaling_rows
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import Sizes

SMALL = Sizes(base=3, groups=1, programs=2, themes=2, longs=2, composed=2)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("scaling")
    build_world(root, seed=5, pairs={}, raw=0, workers=1, progress=False, sizes=SMALL)
    model, processor = build_tiny(["a red ball moves left", "find the video"], seed=0)
    save_embedder(root / "tiny", model, processor)
    arguments = ["--model", str(root / "tiny"), "--data", str(root / "uvrb"), "--sets", "msrvtt", "lovr-v", "vdc-d"]
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
