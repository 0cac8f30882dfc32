"""Damaged files: found by decoding, repaired by a remux or a re-encoding, and judged by what was lost."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from make_videos import SPECS, make
from PIL import Image
from synth_stages import context_of, place_of
from video_corpus import matrix

from gve.hub_datasets.vsynflow.quality.integrity import Integrity, VideoLimits
from gve.hub_datasets.vsynflow.quality.measure import fingerprint_hashes, measure, sample_frames
from gve.hub_datasets.vsynflow.quality.pdq import distances, from_hex
from gve.hub_datasets.vsynflow.quality.repair import METHODS, repair
from gve.hub_datasets.vsynflow.records import make_record, open_place
from gve.hub_datasets.vsynflow.stages import Kept, Rejected
from gve.video_gve import frame_times, read_video
from gve.video_writer import encode_mp4

FRAMES, RATE = 30, 10
LIMITS = VideoLimits(least_frames=8, least_side=32, least_motion=0.0)


def picture(number):
    rng = np.random.default_rng(7)
    return np.roll(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), 2 * number, axis=1)


def encoded(kind, codec, **options):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=RATE, options={"threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuv420p", Fraction(1, RATE)
        for number in range(FRAMES):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


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
    return encoded("mp4", "libx264", g="5", bf="0")


def run(folder, content, stage=None):
    path = folder / "video.bin"
    path.write_bytes(content)
    record = make_record("x", str(path), "t", source="s", licence="l")
    stage = stage or Integrity(LIMITS)
    (outcome,) = stage.run([record], context_of(folder))
    return outcome, stage.judge(outcome.columns) if isinstance(outcome, Kept) else outcome


def place_from(folder, content):
    path = folder / "place.bin"
    path.write_bytes(content)
    return place_of(path)


def test_a_sound_file_is_left_alone(tmp_path, whole):
    outcome, verdict = run(tmp_path, whole)
    assert verdict is None and outcome.columns["repaired"] == ""
    assert (outcome.columns["damage"], outcome.columns["errors"], outcome.columns["frames"]) == (0.0, 0.0, FRAMES)
    assert outcome.columns["video"]["path"] == str(tmp_path / "video.bin")


def test_lost_packets_are_repaired_by_reencoding(tmp_path, whole):
    outcome, verdict = run(tmp_path, zeroed(whole, 0.4, 0.6))
    columns = outcome.columns
    assert verdict is None and columns["repaired"] == "reencode"
    assert 0.1 < columns["damage"] < 0.5 and columns["errors"] == 0.0
    assert columns["video"]["path"].endswith(".mp4") and "repaired" in columns["video"]["path"]
    assert columns["frames"] < FRAMES and columns["duration"] == pytest.approx(3.0, abs=0.25), "a pause, no time lost"
    again, _ = run(tmp_path, zeroed(whole, 0.4, 0.6))
    assert again == outcome, "the same bytes in, the same out"


def test_what_was_lost_is_stored_and_may_be_too_much(tmp_path, whole):
    outcome, verdict = run(tmp_path, zeroed(whole, 0.15, 0.85))
    assert outcome.columns["repaired"] == "reencode"
    assert verdict == Rejected("damage", outcome.columns["damage"])
    assert VideoLimits(least_frames=1, least_side=32, least_motion=0, most_damage=1.0, fps=(0, 120)).verdict(
        outcome.columns
    ) is None  # fmt: skip


def test_of_two_repairs_the_one_that_keeps_the_frames_is_taken(tmp_path):
    """A remux leaves out packets that are marked as corrupt, some of which decode well."""
    broken = flagged(encoded("mpegts", "mpeg2video", g="1", b="3000000"), 3)
    before = measure(place_from(tmp_path, broken))
    repair(place_from(tmp_path, broken), "remux", str(tmp_path / "fixed.mp4"))
    shed = measure(place_of(tmp_path / "fixed.mp4"))
    assert 10 <= shed["frames"] < before["frames"]
    assert not (tmp_path / "fixed.mp4.tmp").exists()
    outcome, _ = run(tmp_path, broken)
    assert (outcome.columns["repaired"], outcome.columns["frames"]) == ("reencode", before["frames"])


def test_frames_whose_times_jump_get_times_of_their_own(tmp_path):
    """Ten frames, then ten whose clock is an hour ahead, then one of the past."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuvj420p", Fraction(1, 1000)
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = number * 100 + (3_600_000 if number >= 10 else 0), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    repair(place_from(tmp_path, buffer.getvalue()), "reencode", str(tmp_path / "fixed.mp4"))
    row = measure(place_of(tmp_path / "fixed.mp4"))
    assert row["frames"] == 20
    assert row["duration"] == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("content", [b"", b"no video at all", bytes(4000)], ids=["empty", "text", "zeros"])
def test_what_is_no_video_is_rejected_by_every_reader(tmp_path, content):
    assert run(tmp_path, content)[1].code == "undecodable"
    place = place_from(tmp_path, content)
    for read in (measure, fingerprint_hashes, lambda place: sample_frames(place, [0.0], 32)):
        with pytest.raises(ValueError, match="undecodable: "):
            read(place)
    with pytest.raises(ValueError, match="unrepairable: "):
        repair(place, "remux", str(tmp_path / "fixed.mp4"))


def test_a_file_that_was_cut_off_is_made_whole(tmp_path):
    """Its index names packets that are not there, for which every reader refuses it."""
    whole, path = io.BytesIO(encoded("mp4", "libx264", g="5", bf="0")), tmp_path / "whole.mp4"
    options = {"movflags": "faststart"}
    with av.open(whole) as source, av.open(str(path), "w", format="mp4", options=options) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    content = path.read_bytes()
    cut = content[: -len(content) // 3]
    with pytest.raises(ValueError, match="truncated"):
        read_video(cut)
    outcome, verdict = run(tmp_path, cut)
    columns = outcome.columns
    assert verdict is None and columns["repaired"] in METHODS and columns["errors"] == 0.0
    assert columns["frames"] < FRAMES and columns["damage"] == pytest.approx(1 - columns["frames"] / FRAMES)
    assert len(read_video(open_place(columns["video"])).frames) == 8


@pytest.mark.parametrize("number", range(2, 9))
def test_turned_and_mirrored_videos_are_measured_and_repaired_upright(tmp_path, whole, number):
    turned = place_from(tmp_path, matrix(number, 64, 48)(whole))
    shown = read_video(turned["path"], FRAMES).frames
    (tmp_path / "upright.mp4").write_bytes(encode_mp4(shown, RATE))
    upright = {**turned, "path": str(tmp_path / "upright.mp4")}
    one, other = measure(turned), measure(upright)
    assert (one["height"], one["width"]) == (other["height"], other["width"]) == shown.shape[1:3]
    # a hash differs by some 25 bits after another encoding, and by about 128 from that of another picture
    nearest = distances(from_hex(one["hashes"]), from_hex(other["hashes"])).min(axis=1)
    assert nearest.max() <= 40
    plain, _ = fingerprint_hashes(turned)
    assert distances(from_hex(plain), from_hex(other["hashes"])).min(axis=0).max() <= 40
    height, width = shown.shape[1:3]
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


def test_a_stream_without_a_decoder_is_rejected_not_crashed(tmp_path, whole):
    unknown = whole.replace(b"avc1", b"zzz9")
    place = place_from(tmp_path, unknown)
    with pytest.raises(ValueError, match="undecodable: "):
        measure(place)
    with pytest.raises(ValueError, match="unrepairable: "):
        repair(place, "reencode", str(tmp_path / "fixed.mp4"))
    assert run(tmp_path, unknown)[1].code == "undecodable"
