"""All frames one by one; mirrors, turns and transparency, which are the same by every way of reading."""

import io
import itertools
import struct

import av
import numpy as np
import PIL.Image
import pytest
from make_videos import SPECS, h264, make, picture, remux
from video_corpus import MATRICES, TURNS, UNITY

from gve.image_gve import open_image
from gve.video_gve import FrameStream, Limits, frame_rgb, frame_times, read_video, resize_frames, video_info


def with_matrix(data, number, box="tkhd"):
    """The same MP4 with another matrix in the header of its track or of the whole movie."""
    at = data.index(box.encode()) + 4 + (40 if box == "tkhd" else 36)
    a, b, c, d = (value * UNITY for value in MATRICES[number])
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]


@pytest.fixture(scope="module")
def plain():
    return make(h264("mp4", size=(96, 64), total=6))


@pytest.mark.parametrize("number", MATRICES)
def test_every_display_matrix(plain, number):
    stored = read_video(plain, 3).frames
    expected = TURNS[number](stored)
    in_track = with_matrix(plain, number)
    for data in (in_track, with_matrix(plain, number, "mvhd"), remux(in_track, "matroska")):
        assert np.array_equal(read_video(data, 3).frames, expected)
        info = video_info(data)
        assert (info.height, info.width) == expected.shape[1:3]
        turned = np.rot90(stored, info.rotation // 90, (1, 2))
        assert np.array_equal(np.flip(turned, 2) if info.mirrored else turned, expected)
        half = (info.height // 2, info.width // 2)
        exact, fast = (read_video(data, 3, half, resize=way).frames for way in ("exact", "fast"))
        assert np.array_equal(exact, resize_frames(expected, *half))
        assert np.abs(fast.astype(int) - exact).mean() < 3
        with FrameStream(data) as stream:
            assert np.array_equal(frame_rgb(next(iter(stream))[1]), expected[0])


def test_two_matrices_are_multiplied(plain):
    """A turn of the track within a mirrored movie."""
    data = with_matrix(with_matrix(plain, 6), 2, "mvhd")
    expected = TURNS[2](TURNS[6](read_video(plain, 2).frames))
    assert np.array_equal(read_video(data, 2).frames, expected)
    assert video_info(data).mirrored and (video_info(data).height, video_info(data).width) == (96, 64)


def see_through(index):
    """(48, 64, 4): a picture that becomes transparent to the left, with holes."""
    alpha = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (48, 64)).copy()
    alpha[10:20, 30:50] = 0
    return np.dstack([picture(index, 64, 48), alpha])


def on_white(rgba):
    levels = rgba.astype(np.float64)
    return levels[..., :3] * levels[..., 3:] / 255 + 255 - levels[..., 3:]


@pytest.mark.parametrize(
    ("codec", "container", "pix_fmt", "options", "most"),
    [
        ("qtrle", "mov", "argb", {}, 1),
        ("png", "mov", "rgba", {}, 1),
        ("ffv1", "matroska", "bgra", {}, 1),
        ("prores_ks", "mov", "yuva444p10le", {}, 2),
        ("libvpx", "webm", "yuva420p", {"auto-alt-ref": "0", "b": "2M", "threads": "1"}, 8),
        ("libvpx-vp9", "webm", "yuva420p", {"b": "2M", "threads": "1", "deadline": "realtime"}, 8),
    ],
)
def test_transparent_videos_lie_on_white(codec, container, pix_fmt, options, most, tmp_path):
    with av.open(str(tmp_path / "a"), "w", format=container) as output:
        stream = output.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for index in range(6):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(see_through(index), format="rgba")))
        output.mux(stream.encode())
    expected = np.stack([on_white(see_through(index)) for index in range(6)])
    clip = read_video(tmp_path / "a", 6)
    assert np.abs(clip.frames - expected).mean() <= most
    assert (clip.frames[:, 12:18, 34:46] > 250).all()
    fast = read_video(tmp_path / "a", 6, (24, 32), resize="fast").frames
    assert np.array_equal(fast, resize_frames(clip.frames, 24, 32))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF"])
def test_animations_follow_the_rule_of_still_pictures(form):
    pages = [PIL.Image.fromarray(see_through(index)) for index in range(4)]
    file = io.BytesIO()
    lossless = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "AVIF" else {"disposal": 2}
    durations = [100, 200, 300, 400]
    pages[0].save(file, form, save_all=True, append_images=pages[1:], duration=durations, **lossless)
    data = file.getvalue()
    clip = read_video(data, 4)
    assert clip.timestamps == [0.0, 0.1, 0.3, 0.6] and clip.duration == 1.0
    assert np.array_equal(clip.frames[0], np.asarray(open_image(data)))
    with PIL.Image.open(io.BytesIO(data)) as image:
        for index, frame in enumerate(clip.frames):
            image.seek(index)
            assert np.abs(frame - on_white(np.asarray(image.convert("RGBA")))).max() <= 1
    assert (clip.frames[0] == 255).all(-1).any()
    with FrameStream(data) as stream:
        streamed = [(time, frame_rgb(frame)) for time, frame in stream]
    assert [time for time, _ in streamed] == clip.timestamps == frame_times(data).tolist()
    assert np.array_equal(np.stack([frame for _, frame in streamed]), clip.frames)
    assert (video_info(data).height, video_info(data).width) == (48, 64)


def test_odd_animations():
    pages = [PIL.Image.new("RGB", (32, 32), (60 * index, 0, 0)) for index in range(4)]
    beside, untimed = io.BytesIO(), io.BytesIO()
    pages[3].save(beside, "PNG", save_all=True, append_images=pages[:3], duration=100, default_image=True)
    clip = read_video(beside.getvalue(), 3)  # the still picture beside an animation is no frame
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 60, 120] and clip.duration == pytest.approx(0.3)
    pages[0].save(untimed, "GIF", save_all=True, append_images=pages[1:], duration=0)
    assert frame_times(untimed.getvalue()).tolist() == [0.0, 0.1, 0.2, 0.3]


def test_a_stream_counts_and_closes(tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(make(SPECS["h264.ts"]))
    with FrameStream(path) as stream:
        first = list(itertools.islice(stream, 3))
        assert [time for time, _ in first] == [0.0, 0.1, 0.2] and 3 <= stream.packets < 30 and stream.errors == 0
    with FrameStream(path) as stream:
        assert len(list(stream)) == stream.packets == 30
    with pytest.raises(ValueError, match=r"a\.ts.*max_packets"), FrameStream(path, Limits(max_packets=9)) as stream:
        list(stream)
    for wrong in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises((FileNotFoundError, ValueError)), FrameStream(wrong):
            pass


@pytest.mark.parametrize("name", ["picture.gif", "h264.ts"])
def test_errors_of_the_caller_stay_as_they_are(name):
    with pytest.raises(OSError, match="disk full"), FrameStream(make(SPECS[name])) as stream:
        for _ in stream:
            raise OSError("disk full")


def test_a_damaged_stream_goes_on():
    turn = itertools.count()
    data = make(h264("matroska", 1, "bframes=0"))
    data = remux(data, "matroska", change=lambda chunk: bytes(len(chunk)) if next(turn) % 5 == 4 else chunk)
    with FrameStream(data) as stream:
        times = [time for time, _ in stream]
        assert stream.packets == 30 and stream.errors == 6
    assert times == [place / 10 for place in range(30) if place % 5 != 4]
    with pytest.raises(ValueError, match="no frame in it can be decoded"):
        frame_times(b"GIF89a" + bytes(50))
