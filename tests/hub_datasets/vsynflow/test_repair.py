"""Damaged files: found by decoding, repaired by a remux or a re-encoding, and judged by what was lost."""

import io

import av
import numpy as np
import pytest
from make_videos import SPECS, h264, make, retimed
from PIL import Image
from synth_stages import context_of, place_of, record_of
from video_corpus import matrix

from gve.hub_datasets.vsynflow.quality.integrity import Integrity, VideoLimits
from gve.hub_datasets.vsynflow.quality.measure import fingerprint_hashes, measure, sample_frames
from gve.hub_datasets.vsynflow.quality.pdq import distances, from_hex
from gve.hub_datasets.vsynflow.quality.repair import METHODS, repair
from gve.hub_datasets.vsynflow.records import open_place
from gve.hub_datasets.vsynflow.stages import Kept, Rejected
from gve.video_gve import frame_times, read_video
from gve.video_writer import encode_mp4

FRAMES, RATE = 30, 10
LIMITS = VideoLimits(least_frames=8, least_side=32, least_motion=0.0)
PICTURE = np.random.default_rng(7).integers(0, 255, (48, 64, 3), dtype=np.uint8)
NOISE = [np.roll(PICTURE, 2 * number, axis=1) for number in range(FRAMES)]


def zeroed(data, first, last):
    """A part of the packets of an mp4 made of zeros; its index stays whole."""
    begin = data.index(b"mdat") + 4
    size = int.from_bytes(data[begin - 8 : begin - 4]) - 8
    low, high = begin + int(size * first), begin + int(size * last)
    return data[:low] + bytes(high - low) + data[high:]


def flagged(data, every):
    """A transport stream in which each so many-th video frame is damaged on the way, and marked so by the receiver."""
    array, count, damaged = bytearray(data), 0, False
    for start in range(0, len(array) - 187, 188):
        if ((array[start + 1] & 0x1F) << 8 | array[start + 2]) != 0x100:
            continue
        if array[start + 1] & 0x40:
            count, damaged = count + 1, False
            damaged = count % every == 0
        elif damaged:
            array[start + 1] |= 0x80
            array[start + 40 : start + 188] = bytes(148)
    return bytes(array)


@pytest.fixture(scope="module")
def whole():
    return make(h264("mp4", gop=5, extra="bframes=0"))


def run(folder, content):
    stage, place = Integrity(LIMITS), place_from(folder, content)
    (outcome,) = stage.run([record_of(place["path"])], context_of(folder))
    return outcome, stage.judge(outcome.columns) if isinstance(outcome, Kept) else outcome


def place_from(folder, content):
    path = folder / "video.bin"
    path.write_bytes(content)
    return place_of(path)


def test_a_sound_file_is_left_alone(tmp_path, whole):
    outcome, verdict = run(tmp_path, whole)
    columns = outcome.columns
    assert verdict is None and columns["repaired"] == ""
    assert (columns["damage"], columns["errors"], columns["frames"]) == (0.0, 0.0, FRAMES)
    assert columns["video"] == place_of(tmp_path / "video.bin")


def test_lost_packets_are_repaired_by_reencoding_and_may_be_too_many(tmp_path, whole):
    outcome, verdict = run(tmp_path, zeroed(whole, 0.4, 0.6))
    columns = outcome.columns
    assert verdict is None and columns["repaired"] == "reencode"
    assert 0.1 < columns["damage"] < 0.5 and columns["errors"] == 0.0
    assert columns["video"]["path"].endswith(".mp4") and "repaired" in columns["video"]["path"]
    assert columns["frames"] < FRAMES and columns["duration"] == pytest.approx(3.0, abs=0.25), "a pause, no time lost"
    assert run(tmp_path, zeroed(whole, 0.4, 0.6))[0] == outcome, "the same bytes in, the same out"
    outcome, verdict = run(tmp_path, zeroed(whole, 0.15, 0.85))
    assert outcome.columns["repaired"] == "reencode" and verdict == Rejected("damage", outcome.columns["damage"])
    lenient = VideoLimits(least_frames=1, least_side=32, least_motion=0, most_damage=1.0, fps=(0, 120))
    assert lenient.verdict(outcome.columns) is None


def test_of_two_repairs_the_one_that_keeps_the_frames_is_taken(tmp_path):
    """A remux leaves out packets that are marked as corrupt, some of which decode well."""
    stored = io.BytesIO()
    with av.open(stored, "w", format="mpegts") as output:
        stream = output.add_stream("mpeg2video", rate=RATE, options={"threads": "1", "g": "1", "b": "3000000"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in NOISE:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    broken = flagged(stored.getvalue(), 3)
    before = measure(place_from(tmp_path, broken))
    repair(place_from(tmp_path, broken), "remux", str(tmp_path / "fixed.mp4"))
    shed = measure(place_of(tmp_path / "fixed.mp4"))
    assert 10 <= shed["frames"] < before["frames"]
    assert not (tmp_path / "fixed.mp4.tmp").exists()
    outcome, _ = run(tmp_path, broken)
    assert (outcome.columns["repaired"], outcome.columns["frames"]) == ("reencode", before["frames"])


def test_frames_whose_times_jump_get_times_of_their_own(tmp_path):
    """Ten frames, then twenty whose clock is an hour ahead."""
    even = make(h264("matroska", extra="bframes=0"))
    jumping = retimed(even, "matroska", lambda time: time + 3_600_000 * (time >= 1000))
    repair(place_from(tmp_path, jumping), "reencode", str(tmp_path / "fixed.mp4"))
    row = measure(place_of(tmp_path / "fixed.mp4"))
    assert row["frames"] == FRAMES and row["duration"] == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("kind", ["empty", "text", "zeros", "no decoder"])
def test_what_is_no_video_is_rejected_by_every_reader(tmp_path, whole, kind):
    contents = {"empty": b"", "text": b"no video at all", "zeros": bytes(4000)}
    content = contents.get(kind, whole.replace(b"avc1", b"zzz9"))
    assert run(tmp_path, content)[1].code == "undecodable"
    place = place_from(tmp_path, content)
    for read in (measure, fingerprint_hashes, lambda place: sample_frames(place, [0.0], 32)):
        with pytest.raises(ValueError, match="undecodable: "):
            read(place)
    with pytest.raises(ValueError, match="unrepairable: "):
        repair(place, "reencode", str(tmp_path / "fixed.mp4"))


def test_a_file_that_was_cut_off_is_made_whole(tmp_path):
    """Its index names packets that are not there, for which every reader refuses it."""
    content = make(SPECS["h264_faststart.mov"])
    cut = content[: -len(content) // 5]
    with pytest.raises(ValueError, match="truncated"):
        read_video(cut)
    outcome, verdict = run(tmp_path, cut)
    columns = outcome.columns
    assert verdict is None and columns["repaired"] in METHODS and columns["errors"] == 0.0
    assert columns["frames"] < FRAMES and columns["damage"] == pytest.approx(1 - columns["frames"] / FRAMES)
    assert len(read_video(open_place(columns["video"])).frames) == 8


@pytest.mark.parametrize("number", [2, 6, 7])  # a mirror, a turn, and both; test_stream_gve tries all eight
def test_turned_and_mirrored_videos_are_measured_and_repaired_upright(tmp_path, number):
    turned = place_from(tmp_path, matrix(number, 64, 48)(encode_mp4(NOISE, RATE)))
    shown = read_video(turned["path"], FRAMES).frames
    (tmp_path / "upright.mp4").write_bytes(encode_mp4(shown, RATE))
    one, other = measure(turned), measure(place_of(tmp_path / "upright.mp4"))
    height, width = shown.shape[1:3]
    assert (one["height"], one["width"]) == (other["height"], other["width"]) == (height, width)
    # a hash differs by some 25 bits after another encoding, and by about 128 from that of another picture
    nearest = distances(from_hex(one["hashes"]), from_hex(other["hashes"])).min(axis=1)
    assert nearest.max() <= 40
    plain, _ = fingerprint_hashes(turned)
    assert distances(from_hex(plain), from_hex(other["hashes"])).min(axis=0).max() <= 40
    (frame,) = sample_frames(turned, [0.0], 32)
    assert frame.shape[:2] == (round(height / max(height, width) * 32), round(width / max(height, width) * 32))
    for method in METHODS:
        repair(turned, method, str(tmp_path / "fixed.mp4"))
        again = read_video(tmp_path / "fixed.mp4", FRAMES).frames
        assert again.shape == shown.shape and np.abs(again[0].astype(int) - shown[0]).mean() < 12


@pytest.mark.parametrize("name", ["h264_vfr.mp4", "h264.ts", "vp9.webm"])
def test_a_new_encoding_keeps_the_times_of_the_frames(tmp_path, name):
    place = place_from(tmp_path, make(SPECS[name]))
    repair(place, "reencode", str(tmp_path / "fixed.mp4"))
    assert frame_times(tmp_path / "fixed.mp4") == pytest.approx(frame_times(place["path"]), abs=0.02)
    steps = np.diff(frame_times(place["path"]))
    assert np.diff(frame_times(tmp_path / "fixed.mp4")) == pytest.approx(steps, abs=0.0015)


def test_a_moving_picture_is_measured_on_white(tmp_path):
    clear = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    frames = [clear.copy() for _ in range(10)]
    for number, frame in enumerate(frames):
        frame.paste((255, 0, 0, 255), (4 * number, 8, 4 * number + 12, 30))
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    row = measure(place_from(tmp_path, buffer.getvalue()))
    assert (row["frames"], row["errors"], row["black"]) == (10, 0.0, 0.0)
    assert row["duration"] == pytest.approx(1.0, abs=0.01)
