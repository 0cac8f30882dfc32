"""Scene cuts: planted ones, and the clips between them; those of real videos are in test_quality."""

import colorsys
import io

import av
import numpy as np
import pytest
from synth_stages import context_of, place_of, record_of, video_file

from gve.hub_datasets.vsynflow.config import make_config, quality_stages
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.quality.integrity import Integrity
from gve.hub_datasets.vsynflow.quality.measure import measure
from gve.hub_datasets.vsynflow.quality.shots import SceneRules, find_cuts, to_hsv
from gve.hub_datasets.world.render import render_long
from gve.hub_datasets.world.spec import sample_clip


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    """Paths of rendered long videos of four clips, 8 frames a second; a cut every two seconds."""
    folder, rng = tmp_path_factory.mktemp("long"), np.random.default_rng(0)
    for number in range(6):
        video_file(folder / f"{number}.mp4", render_long(tuple(sample_clip(rng, "seen") for _ in range(4)), 16))
    return sorted(folder.iterdir())


def test_planted_cuts_are_found(long_videos):
    truth, found = np.array([2.0, 4.0, 6.0]), [measure(place_of(path))["cuts"] for path in long_videos]
    hits = sum(np.abs(truth - cut).min() <= 0.13 for cuts in found for cut in cuts)
    assert hits >= 0.94 * len(truth) * len(long_videos)
    assert hits >= 0.97 * sum(map(len, found))


def test_dark_noise_is_no_cut():
    """Content as high as a cut's without a change of colours."""
    times, contents = [0.5 * number for number in range(8)], [1.0] * 7
    contents[3] = 40.0
    assert find_cuts(contents, [30.0] * 7, times, SceneRules()) == [2.0]
    assert find_cuts(contents, [9.9] * 7, times, SceneRules()) == []
    assert find_cuts(contents, [9.9] * 7, times, SceneRules(least_change=5)) == [2.0]
    assert find_cuts(contents, [30.0] * 7, times, SceneRules(ratio=41)) == []
    assert find_cuts(contents, [30.0] * 7, times, SceneRules(least_shot=2.5)) == []
    assert find_cuts([], [], [], SceneRules()) == []


def test_clips_lie_inside_the_shots_that_were_found(tmp_path, long_videos):
    record, context = record_of(long_videos[0]), context_of(tmp_path)
    (measured,) = Integrity().run([record], context)
    shots = measured.columns["shots"]
    assert [shot["start"] for shot in shots] == pytest.approx([0, 2, 4, 6], abs=0.13)
    stage = References(least_seconds=0.5, most_seconds=4, shots="shots")
    (chosen,) = stage.run([{**record, **measured.columns}], context)
    clip = chosen.columns["clip"]
    assert any(shot["start"] <= clip["start"] < clip["end"] <= shot["end"] for shot in shots)
    with av.open(io.BytesIO((tmp_path / clip["path"]).read_bytes())) as cut:
        assert sum(1 for _ in cut.decode(video=0)) >= 4


def test_the_rules_are_parameters_of_the_stage():
    own, other = quality_stages(make_config({})), Integrity(scenes=SceneRules(least_change=5))
    stage = next(stage for stage in own if stage.name == "integrity")
    assert stage.params != other.params and stage.limits == other.limits


def test_hsv_against_the_standard_library():
    rgb = np.random.default_rng(0).integers(0, 256, (50, 3)).astype(np.uint8)
    for pixel, found in zip(rgb, to_hsv(rgb), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        assert found == pytest.approx([hue * 180 % 180, saturation * 255, value * 255], abs=1e-2)


def test_black_frames_are_counted_beside_those_of_one_colour(tmp_path):
    """Noise and a small logo do not make a picture of a black frame; a bright plain one is blank, not black."""
    noisy = np.clip(np.random.default_rng(0).normal(8, 6, (24, 48, 64, 3)), 0, 255).astype(np.uint8)
    noisy[:, 2:4, 2:4] = 250
    plain = np.full((24, 48, 64, 3), 200, np.uint8)
    for code, frames, shares in (("black", noisy, (1.0, 0.0)), ("blank", plain, (0.0, 1.0))):
        place = video_file(tmp_path / f"{code}.mp4", frames)
        (outcome,) = Integrity().run([record_of(place["path"])], context_of(tmp_path))
        assert (outcome.columns["black"], outcome.columns["blank"]) == shares
        assert Integrity().judge({**outcome.columns, "width": 640, "height": 480}).code == code
