"""The writers: the same bytes for the same frames, sizes, times, and what they refuse."""

import io

import numpy as np
import pytest
from make_videos import SPECS, make
from PIL import Image
from video_corpus import matrix

from gve.video_gve import read_video, video_info
from gve.video_writer import JPEG_CLOCK, WEBP_CLOCK, encode_jpegs, encode_mp4, encode_png, encode_webp, remux


def frames(count=6, height=48, width=64):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    return small.repeat(height // 6, axis=1).repeat(width // 8, axis=2)


def test_the_same_frames_give_the_same_bytes():
    pictures = frames()
    for options in ({}, {"crf": 18}, {"max_pixels": 1000}):
        assert encode_mp4(pictures, 8, **options) == encode_mp4(list(pictures), 8, **options)
    assert len(encode_mp4(pictures, 8, crf=40)) < len(encode_mp4(pictures, 8))
    ticks = [0, 10, 20, 30, 40, 50, 60]
    assert encode_jpegs(pictures, ticks, quality=80) == encode_jpegs(pictures, ticks, quality=80)
    assert encode_webp(pictures, ticks, quality=80) == encode_webp(pictures, ticks, quality=80)


def test_frames_keep_their_size_and_times():
    found = read_video(encode_mp4(frames(), 8), 6)
    assert found.frames.shape == (6, 48, 64, 3) and found.duration == pytest.approx(6 / 8)
    assert found.timestamps == pytest.approx([number / 8 for number in range(6)])
    assert np.abs(found.frames.astype(int) - frames()).mean() < 6


@pytest.mark.parametrize(
    ("shape", "most", "size"),
    [((47, 61), 10_000, (46, 60)), ((480, 640), 4800, (60, 80)), ((48, 64), 48 * 64, (48, 64)), ((3, 3), 1, (2, 2))],
)
def test_frames_are_fitted_to_so_many_pixels(shape, most, size):
    content = encode_mp4(np.zeros((2, *shape, 3), np.uint8), 4, max_pixels=most)
    assert read_video(content, 2).frames.shape[1:3] == size


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (np.zeros((0, 48, 64, 3), np.uint8), "got 0"),
        (np.zeros((2, 47, 64, 3), np.uint8), "even sides"),
        (np.zeros((2, 48, 64, 3), np.float32), "float32"),
        ([np.zeros((48, 64, 3), np.uint8), np.zeros((48, 66, 3), np.uint8)], "all of one size"),
        (np.zeros((2, 48, 64), np.uint8), r"got 2 of"),
    ],
)
def test_other_frames_are_refused(pictures, words):
    with pytest.raises(ValueError, match=f"frames: .*{words}"):
        encode_mp4(pictures, 8)


@pytest.mark.parametrize(("encode", "clock"), [(encode_jpegs, JPEG_CLOCK), (encode_webp, WEBP_CLOCK)])
def test_pictures_keep_uneven_times(encode, clock):
    times = [0.0, 0.1, 0.5, 0.6, 2.0, 2.5]
    ticks = [round(time * clock) for time in (*times, 3.0)]
    found = read_video(encode(frames(height=45, width=59 // 8 * 8), ticks, quality=95), 6)
    assert found.timestamps == pytest.approx(times, abs=1e-3) and found.duration == pytest.approx(3.0, abs=1e-3)


def test_a_png_is_lossless():
    (picture,) = frames(1)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(picture)))), picture)


@pytest.mark.parametrize("name", ["h264_gop12.mp4", "h264.ts", "hevc.mp4", "mpeg4.avi"])
def test_packets_in_a_new_container_show_the_same(name):
    content = make(SPECS[name])
    again = remux(content)
    assert video_info(again).container.startswith("mov,mp4") and again == remux(content)
    np.testing.assert_array_equal(read_video(again, 8).frames, read_video(content, 8).frames)


def test_a_display_matrix_stays():
    for number in range(1, 9):
        content = matrix(number, 96, 64)(make(SPECS["h264_gop12.mp4"]))
        assert video_info(remux(content))[4:7] == video_info(content)[4:7]
        np.testing.assert_array_equal(read_video(remux(content), 2).frames, read_video(content, 2).frames)


def test_packets_that_mp4_does_not_take_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit into MP4"):
        remux(make(SPECS["vp8.webm"]))
    with pytest.raises(FileNotFoundError):
        remux(tmp_path / "gone.mp4")
