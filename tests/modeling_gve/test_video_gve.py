import io

import av
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.video_gve import read_video, resize_frames, uniform_indices


def levels(clip):
    return clip.frames[:, -4, -4, 0].astype(int)


def test_uniform_indices_by_hand():
    assert uniform_indices(16, 8).tolist() == [0, 2, 4, 6, 9, 11, 13, 15]
    assert uniform_indices(3, 8).tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert uniform_indices(1, 4).tolist() == [0, 0, 0, 0]


@given(st.integers(1, 500), st.integers(1, 60))
def test_uniform_indices_hold_the_ends_and_the_order(total, count):
    indices = uniform_indices(total, count)
    assert len(indices) == count and indices[0] == 0
    assert (np.diff(indices) >= 0).all() and indices[-1] == (total - 1 if count > 1 else 0)


@settings(max_examples=12, deadline=None)
@given(
    total=st.integers(1, 24), count=st.integers(1, 12), gaps=st.lists(st.integers(20, 900), min_size=24, max_size=24)
)
def test_any_clip_gives_its_own_frames_and_times(total, count, gaps, encoded, grey):
    times = np.cumsum([0, *gaps])[:total].tolist()
    clip = read_video(encoded(total=total, times=times), count)
    indices = uniform_indices(total, count)
    assert clip.frames.shape == (count, 48, 64, 3) and clip.frames.dtype == np.uint8
    assert np.abs(levels(clip) - [grey(i, total) for i in indices]).max() <= 4
    assert clip.timestamps == pytest.approx([times[i] / 1000 for i in indices], abs=1e-6)
    assert clip.duration >= clip.timestamps[-1]


def test_size_resizes_as_pillow_within_two_levels(media):
    assert read_video(media / "a.mp4", 3, size=(20, 30)).frames.shape == (3, 20, 30, 3)
    frames = np.random.default_rng(0).integers(0, 255, (2, 90, 120, 3), dtype=np.uint8)
    ours = resize_frames(frames, 40, 56)
    pillow = np.asarray(PIL.Image.fromarray(frames[1]).resize((56, 40), PIL.Image.Resampling.BICUBIC))
    assert np.abs(ours[1].astype(int) - pillow).max() <= 2
    assert resize_frames(frames, 90, 120) is frames


def test_frames_that_change_size_follow_the_first(encoded):
    data = encoded(total=4, container="mpegts") + encoded(total=4, size=(32, 32), container="mpegts", start=40)
    assert read_video(data, 8).frames.shape == (8, 48, 64, 3)


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        ("nowhere.mp4", FileNotFoundError, r"nowhere\.mp4"),
        ({"bytes": None, "path": None}, ValueError, "one of them must be set"),
        (3, ValueError, "video: got int"),
    ],
)
def test_what_names_no_file(source, error, match):
    with pytest.raises(error, match=match):
        read_video(source)


def test_a_cover_picture_is_no_video():
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=16000)
        picture = output.add_stream("mjpeg", rate=1)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        cover = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.rate = 16000
        for stream, frame in ((picture, cover.reformat(format="yuvj420p")), (sound, silence)):
            output.mux(stream.encode(frame))
            output.mux(stream.encode())
    with pytest.raises(ValueError, match="no video stream"):
        read_video(target.getvalue())
