"""Quotas, the choice of frames and clips, ranks and hard negatives, on hand-made cases."""

import io

import av
import numpy as np
import pytest
from PIL import Image
from synth_stages import context_of, record_of, video_file
from video_corpus import matrix

from gve.hub_datasets.vsynflow import stills
from gve.hub_datasets.vsynflow.extension.mining import hard_negatives, needs_both
from gve.hub_datasets.vsynflow.extension.pairs import QUOTAS, PairRow, PairSide, allot, choose
from gve.hub_datasets.vsynflow.extension.references import References, choose_clip, usable
from gve.hub_datasets.vsynflow.stages import Failed, Kept
from gve.video_gve import read_video


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (32, 48, 3), dtype=np.uint8)


def blurred():
    return np.repeat(np.linspace(60, 160, 48, dtype=np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)


def video(path, frames):
    video_file(path, frames)
    return record_of(path, "v")


def shades():
    return [np.full((32, 48, 3), 40 + 4 * number, dtype=np.uint8) for number in range(40)]


def test_shares_and_shortfalls():
    assert sum(QUOTAS.values()) == 1_549_000 and allot(dict(QUOTAS)) == QUOTAS, "the paper's"
    plenty = dict.fromkeys(QUOTAS, 1000)
    got = allot(plenty)
    assert got["t2v"] == 1000 and got["tv2v"] == round(1000 * 35 / 879) and got["t2i"] == 239
    assert allot({**plenty, "tv2v": 3})["tv2v"] == 3 and allot({**plenty, "tv2v": 3})["t2v"] == 1000
    assert sum(allot(plenty, total=100).values()) in range(98, 103)
    assert allot(plenty, quotas={"t2i": 1}) == dict.fromkeys(QUOTAS, 0) | {"t2i": 1000}
    assert allot({"t2i": 50, "t2v": 0}, quotas={"t2i": 1, "t2v": 5})["t2i"] == 50, "an empty task holds none back"
    for quotas, match in (({"v2t": 1}, "got task 'v2t'"), ({"t2v": 0}, "numbers from 0")):
        with pytest.raises(ValueError, match=match):
            allot(plenty, quotas=quotas)


def test_black_flat_and_blurred_frames_are_not_chosen():
    black, flat = np.full((32, 48, 3), 3, np.uint8), np.full((32, 48, 3), 120, np.uint8)
    pictures = [noise(0), black, flat, blurred(), noise(1)]
    assert usable([stills.Still(0.0, pixels) for pixels in pictures]) == [0, 4]
    assert usable([stills.Still(0.0, black)]) == []


def test_a_frame_keeps_away_from_the_ends(tmp_path):
    frames = [noise(number) if 4 <= number < 36 else np.zeros((32, 48, 3), np.uint8) for number in range(40)]
    record = video(tmp_path / "v.mp4", frames)
    (outcome,) = References(least_seconds=1, seed=1).run([record], context_of(tmp_path))
    frame, clip = outcome.columns["frame"], outcome.columns["clip"]
    assert outcome.columns["seconds"] == pytest.approx(5.0)
    assert 0.5 <= frame["time"] <= 4.5 and (tmp_path / frame["path"]).read_bytes()[:2] == b"\xff\xd8"
    assert 1 <= clip["end"] - clip["start"] <= 2.5
    assert References(least_seconds=1, seed=1).run([record], context_of(tmp_path)) == [outcome]


def test_videos_without_a_frame_a_clip_or_anything(tmp_path):
    record = video(tmp_path / "v.mp4", [np.zeros((32, 48, 3), np.uint8)] * 10)
    (outcome,) = References().run([record], context_of(tmp_path))
    assert isinstance(outcome, Kept) and outcome.columns["frame"] is None and outcome.columns["clip"] is None
    (tmp_path / "v.mp4").write_bytes(b"no video")
    assert References().run([record], context_of(tmp_path)) == [Failed("undecodable", False)]


def test_clips_lie_inside_one_shot_and_are_at_most_half():
    shots = [(0.0, 3.0), (3.0, 12.0), (12.0, 13.0), (13.0, 20.0)]
    for seed in range(200):
        start, end = choose_clip(20.0, shots, np.random.default_rng(seed), least=2, most=10)
        inside = [(0.0, 2.5), (3.5, 11.5), (13.5, 20.0)]  # half a second beside each cut is left out
        assert any(low - 1e-9 <= start and end <= high + 1e-9 for low, high in inside)
        assert 2 - 1e-3 <= end - start <= 10
    assert choose_clip(3.0, [], np.random.default_rng(0), least=2, most=10) is None
    start, end = choose_clip(5.0, [], np.random.default_rng(0), least=2, most=10)
    assert end - start <= 2.5


def test_stills_are_those_of_their_times(tmp_path):
    record = video(tmp_path / "v.mp4", shades())
    assert stills.read_times(record).tolist() == pytest.approx([number / 8 for number in range(40)])
    found = stills.read_stills(record, [0.0, 1.0, 1.06, 4.875, 99.0])
    assert [still.time for still in found] == pytest.approx([0.0, 1.0, 1.0, 4.875, 4.875])
    for still in found:
        assert abs(float(still.pixels.mean()) - (40 + 4 * 8 * still.time)) < 3
    assert [still.time for still in stills.sample_stills(record, 4)] == pytest.approx([0.625, 1.875, 3.125, 4.375])


def test_a_clip_shows_its_part(tmp_path):
    record = video(tmp_path / "v.mp4", shades())
    content = stills.cut_clip(record, 1.0, 3.0)
    assert content == stills.cut_clip(record, 1.0, 3.0)
    with av.open(io.BytesIO(content)) as container:
        found = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    assert len(found) == 16 and abs(found[0] - 72) < 4 and abs(found[-1] - 132) < 4
    with pytest.raises(ValueError, match=r"start, end: got 1\.0 and 1\.1"):
        stills.cut_clip(record, 1.0, 1.1)


def test_stills_and_clips_are_upright(tmp_path):
    """As the model sees a video that is turned and mirrored."""
    frames = [np.repeat(np.repeat(noise(seed)[:8, :12], 4, 0), 4, 1) for seed in range(24)]
    path = tmp_path / "v.mp4"
    record = video(path, frames)
    path.write_bytes(matrix(7, 48, 32)(path.read_bytes()))
    times = stills.read_times(record)
    seen = read_video(path, timestamps=times.tolist()).frames
    np.testing.assert_array_equal([still.pixels for still in stills.read_stills(record, times)], seen)
    (cut,) = read_video(stills.cut_clip(record, 1.0, 2.0), 1).frames
    assert cut.shape == seen[8].shape == (48, 32, 3) and np.abs(cut.astype(int) - seen[8]).mean() < 20
    (whole,) = stills.frames_of(record["video"], 1)
    assert whole.size == (32, 48)


def test_bars_are_cut_off_grey_and_coloured_frames_alike():
    frames = np.zeros((3, 40, 60, 3), np.uint8)
    frames[:, 8:30, 5:50] = 200
    assert stills.without_bars(frames).shape == (3, 22, 45, 3)
    assert stills.without_bars(frames[..., 0]).shape == (3, 22, 45)
    frames[:, 5, 7] = 255  # a logo in the bar is no picture
    assert stills.without_bars(frames).shape == (3, 22, 45, 3)
    for bright in (9, 0):
        small = np.zeros((3, 40, 60), np.uint8)
        small[:, :bright] = 200
        assert stills.without_bars(small).shape == small.shape, "less than a quarter of picture is left whole"


def test_frames_are_sent_small():
    wide = np.zeros((720, 1280, 3), np.uint8)
    width, height = Image.open(io.BytesIO(stills.jpeg(wide))).size
    assert width * height <= 200 * 28 * 28 and width / height == pytest.approx(16 / 9, rel=0.02)


def test_hard_negatives_are_hard_and_wrong():
    scores = np.array([0.8, 0.79, 0.7, 0.6, 0.75, 0.5])
    alike = np.array([1.0, 0.3, 0.99, 0.3, 0.3, 0.3])
    related = np.array([True, False, False, False, True, False])
    # 1 scores nearly as high as the positive, 2 is nearly the positive, 4 has the same origin
    assert hard_negatives(scores, alike, 0, related, count=2, candidates=9) == [3, 5]
    assert hard_negatives(scores, alike, 0, related, count=2, candidates=4) == []
    assert hard_negatives(scores, alike, 0, related, count=0, candidates=9) == []


def test_which_pairs_need_both():
    assert needs_both({"text": 5, "reference": 3, "both": 1})
    assert not needs_both({"text": 5, "reference": 1, "both": 1}) and not needs_both(None)


def test_clip_seconds_must_ascend():
    with pytest.raises(ValueError, match="clip seconds must ascend"):
        References(least_seconds=3, most_seconds=2)


def composed(number, **ranks):
    query, target = PairSide("words", "frame"), PairSide(shows="video")
    return PairRow("ti2v", {"id": f"v{number}"}, "frame", query, target, (), ranks)


def test_pairs_that_need_both_parts_are_taken_first():
    bad = [composed(number, text=3.0, reference=1.0, both=1.0) for number in range(6)]
    good = [composed(number, text=3.0, reference=4.0, both=1.0) for number in range(6, 9)]
    taken = choose([*bad, *good], seed=0, quotas={"ti2v": 1}, total=4)["ti2v"]
    assert {one.id for one in good} < {one.id for one in taken} and len(taken) == 4
    assert taken == choose([*good, *bad], seed=0, quotas={"ti2v": 1}, total=4)["ti2v"]
