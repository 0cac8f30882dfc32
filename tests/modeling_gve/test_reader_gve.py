"""Every way of reading against a decoding of the whole file, over containers, codecs and group structures."""

import io
import itertools
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import PIL.Image
import pytest
from make_videos import SPECS, h264, hevc, make, old, picture, remux, vp, write_all
from whole_video import PLANS, Whole, check

from gve.index_gve import UnreliableError
from gve.video_gve import Limits, read_video, resize_frames, video_info

UNTIMED = {"h264_raw.h264"}
SEQUENTIAL = {"h264_raw.h264", "h264_interlaced.ts", "wmv2.wmv", "ffv1.mkv", "picture.gif"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize("name", SPECS)
def test_every_file_and_plan_gives_the_frames_of_a_full_decoding(name, files):
    data = files[name].read_bytes()
    # with alpha, colours are converted along another path
    used = check(files[name], data, PLANS, name=name, near=int("alpha" in name))
    if name in SEQUENTIAL:
        assert used == {"sequential"}
    elif name.endswith((".mp4", ".mov")) and name != "h264_fragments.mp4":
        assert used == {"index", "scan"}
    else:
        assert used == {"scan"}


@pytest.mark.parametrize("name", ["h264_gop12.mp4", "h264_opengop.mp4", "h264.mkv", "hevc.mp4", "vp9.webm", "av1.mkv"])
def test_a_large_file_is_sought_instead_of_held(name, files, monkeypatch):
    for module in ("index_gve", "scan_gve"):
        monkeypatch.setattr(f"gve.{module}.HELD_BYTES", 10)
    assert check(files[name], files[name].read_bytes(), PLANS, name=name) == {"seek"}


def test_no_way_of_reading_is_trusted_without_its_frames(files, monkeypatch):
    """A reader whose every shortcut fails still gives the same frames."""

    def broken(*_):
        raise UnreliableError("no")

    data = files["h264_opengop.mp4"].read_bytes()
    monkeypatch.setattr("gve.index_gve.GroupDecoder.decode", broken)
    assert check(data, data, PLANS) == {"sequential"}


def test_every_source_gives_the_same_frames(files):
    for name in ("hevc.mp4", "h264.ts"):
        data = files[name].read_bytes()
        expected = read_video(files[name], 5)
        with files[name].open("rb") as opened:
            opened.seek(17)
            for source in (data, bytearray(data), io.BytesIO(data), opened, {"bytes": data, "path": None}):
                clip = read_video(source, 5)
                assert np.array_equal(clip.frames, expected.frames)
                assert (clip.strategy, clip.decoded) == (expected.strategy, expected.decoded)


def test_only_the_needed_packets_are_decoded(files):
    def cost(name, **plan):
        return read_video(files[name], **plan).decoded

    assert cost("h264_intra.mp4", num_frames=8) == 8
    assert cost("h264_gop12.mp4", num_frames=1) == 1
    assert cost("h264_gop12.mp4", timestamps=[1.2]) == 1  # the keyframe of the second group
    assert cost("h264_gop12.mp4", num_frames=8) < 30
    assert cost("hevc_opengop.mp4", num_frames=40) <= 40
    assert cost("av1.mp4", num_frames=3) < cost("av1.mp4", num_frames=30) <= 30
    assert cost("picture.gif", num_frames=1) == 30


def test_unwanted_pictures_that_nothing_refers_to_are_skipped(files, monkeypatch):
    with_skips = read_video(files["h264_gop250.mp4"], timestamps=[2.0, 3.9])
    monkeypatch.setattr("gve.index_gve.SKIPS_BY_PACKET", frozenset())
    assert np.array_equal(with_skips.frames, read_video(files["h264_gop250.mp4"], timestamps=[2.0, 3.9]).frames)


def test_reading_many_at_once_gives_the_same(files):
    names = [name for name in SPECS if name not in UNTIMED][:16]
    alone = [read_video(files[name]) for name in names]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: read_video(files[name]), names))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.frames, other.frames) and one.timestamps == other.timestamps


def test_sizes_follow_the_upright_picture(files):
    upright = read_video(files["h264_rotated.mp4"], 2)
    assert upright.frames.shape == (2, 96, 64, 3)
    assert read_video(files["h264_rotated.mp4"], 2, (40, 20)).frames.shape == (2, 40, 20, 3)
    small = read_video(files["h264_rotated.mp4"], 2, lambda height, width: (height // 2, width // 2))
    assert small.frames.shape == (2, 48, 32, 3)
    assert np.array_equal(small.frames, resize_frames(upright.frames, 48, 32))
    with pytest.raises(ValueError, match=r"size: got \(0, 5\)"):
        read_video(files["h264_rotated.mp4"], 2, (0, 5))


@pytest.mark.parametrize("name", ["h264_rotated.mp4", "h264_10bit.mkv", "h264_444.mp4"])
def test_the_fast_resize_stays_near_the_exact_one(name, files):
    exact, fast = (read_video(files[name], 4, lambda h, w: (h // 2, w // 2), resize=way) for way in ("exact", "fast"))
    assert fast.frames.shape == exact.frames.shape
    difference = fast.frames.astype(int) - exact.frames
    assert np.abs(difference).mean() < 3 and abs(difference.mean()) < 2
    same = read_video(files[name], 4, resize="fast")
    assert np.array_equal(same.frames, read_video(files[name], 4).frames)


def test_an_edit_list_hides_frames():
    """A file cut without re-encoding begins with frames that are decoded and never shown."""
    whole = make(h264("mp4", 30))
    trimmed = remux(whole, "mp4", shift=-7 * 1024, muxing={"use_editlist": "1", "avoid_negative_ts": "disabled"})
    check(trimmed, trimmed, PLANS)
    assert len(Whole(trimmed)) < 30


def test_pixels_stay_as_stored():
    """The shape of a pixel is reported and not applied."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for index in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")))
        output.mux(stream.encode())
    assert read_video(target.getvalue(), 2).frames.shape == (2, 48, 64, 3)
    assert video_info(target.getvalue()).pixel_aspect == 2


def test_hidden_packets_are_no_frames(files):
    """VP8 has pictures that are only referred to: here every second one that is no keyframe."""
    turn = itertools.count()

    def hide(data):
        return bytes([data[0] & ~0x10]) + data[1:] if next(turn) % 2 and data[0] & 1 else data

    data = remux(files["vp8.webm"].read_bytes(), "webm", change=hide)
    with av.open(io.BytesIO(data)) as source:
        packets = sum(packet.size > 0 for packet in source.demux(video=0))
    assert packets == 30 and len(Whole(data)) < 20
    check(data, data, {"8": PLANS["8"], "48": PLANS["48"]})


def test_moving_webp_pictures():
    pages = [PIL.Image.new("RGB", (64, 48), (40 * i, 0, 0)) for i in range(5)]
    file = io.BytesIO()
    pages[0].save(file, "WEBP", save_all=True, append_images=pages[1:], duration=[100, 200, 300, 400, 500])
    clip = read_video(file.getvalue(), timestamps=[0, 0.15, 0.99, 1.2])
    assert clip.indices == [0, 1, 3, 4] and clip.duration == pytest.approx(1.5)
    small = read_video(file.getvalue(), 9, (24, 32), fps=2.0)
    assert small.indices == [0, 2, 4] and small.frames.shape == (3, 24, 32, 3)
    info = video_info(file.getvalue())
    assert (info.total, info.exact, info.width, info.height) == (5, True, 64, 48)


@pytest.mark.parametrize("name", [name for name in SPECS if name not in UNTIMED])
def test_headers_alone_tell_the_size(name, files):
    info, clip = video_info(files[name]), read_video(files[name], 48)
    assert {info.height, info.width} == set(clip.frames.shape[1:3])
    assert info.total is not None and abs(info.total - SPECS[name].total) <= 7
    assert info.duration == pytest.approx(clip.duration, rel=0.1, abs=0.25)
    if info.exact:
        assert info.total == SPECS[name].total
    if name.endswith((".mp4", ".mov")) and "fragments" not in name:
        assert info.exact


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames: got 0"),
        ({"fps": 0.0}, "fps: got 0.0"),
        ({"start": 2.0, "end": 1.0}, "start: got 2.0 with end=1.0"),
        ({"start": -1.0}, "start: got -1.0"),
        ({"start": 50.0}, "start: got 50 s for a video of 3 s"),
        ({"timestamps": []}, "timestamps: got"),
        ({"timestamps": [-1.0]}, "timestamps: got"),
        ({"timestamps": [9.0]}, "timestamps: got 9 s for a video of 3 s"),
        ({"timestamps": [1.0], "start": 0.5}, "timestamps: got them with fps, start or end"),
        ({"resize": "best"}, "resize: got 'best'"),
    ],
)
def test_arguments_that_contradict(arguments, message, files):
    with pytest.raises(ValueError, match=message):
        read_video(files["h264_gop12.mp4"], **arguments)


GROUPS = list(itertools.product((5, 12, 250), (0, 2, 4)))


@pytest.mark.slow
def test_the_large_matrix():
    """Every codec x group length x frames between references x container, all plans, 160 x 96."""
    size = (160, 96)
    makers = [h264(c, g, f"bframes={b}", size=size) for c in ("mp4", "matroska", "mpegts", "flv") for g, b in GROUPS]
    makers += [hevc(c, g, f"bframes={b}", size=size) for c in ("mp4", "matroska", "mpegts") for g, b in GROUPS]
    makers += [vp(c, g, size=size) for c in ("libvpx", "libvpx-vp9") for g in (5, 30, 250)]
    kinds = itertools.product(("mpeg4", "mpeg2video"), ("mp4", "mpegts", "matroska"), (5, 12), (0, 2))
    makers += [old(codec, container, gop, b, size=size) for codec, container, gop, b in kinds]
    used = set()
    for spec in makers:
        timed = spec.container in ("mp4", "matroska") and spec.codec != "mpeg2video"
        for times in ("even", "uneven") if timed else ("even",):
            data = make(spec._replace(times=times, total=60))
            used |= check(data, data, PLANS, name=str(spec), limits=Limits(timeout=60))
    assert {"index", "scan"} <= used
