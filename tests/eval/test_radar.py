"""The chart: a readable file, and a clear refusal."""

import numpy as np
import pytest
from PIL import Image

from gve.eval.averages import ABILITY_NAMES
from gve.eval.radar import check_drawable, draw_radar


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
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["radar.png"]


def test_needs_three_abilities(tmp_path):
    assert check_drawable(make_report(["T", "TXT", "VIS"])["abilities"]) == ["TXT", "VIS", "T"]
    with pytest.raises(ValueError, match=r"radar: 2 abilities have all their sets \(CMP, LC\); at least 3"):
        draw_radar(make_report(["LC", "CMP"]), tmp_path / "radar.png")
