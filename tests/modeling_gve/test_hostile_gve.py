import io
import resource
import struct
import time
import zlib

import av
import numpy as np
import PIL.Image
import pytest
from make_broken import DAMAGE, broken
from make_videos import SPECS, make, picture, remux

from gve.av1_gve import LeafUnits
from gve.video_gve import FrameStream, Limits, frame_times, read_video, video_info

PATIENCE = 10
"""Seconds that no file of a few kilobytes may take."""


def assert_frames_or_error(data, **limits):
    """Read what may be broken: 8 sound frames, or a ValueError that names the file."""
    begun = time.monotonic()
    try:
        clip = read_video(data, limits=Limits(timeout=PATIENCE / 2, **limits))
    except ValueError as error:
        assert "<bytes>" in str(error) and "accepted" in str(error)
        clip = None
    assert time.monotonic() - begun < PATIENCE
    if clip is not None:
        assert len(clip.frames) == len(clip.timestamps) == len(clip.indices) == 8
        assert clip.frames.dtype == np.uint8 and np.isfinite(clip.timestamps).all()
        assert clip.decoded > 0 and clip.strategy in ("index", "scan", "seek", "sequential")
    for look in (lambda: video_info(data).width, lambda: len(frame_times(data)), lambda: len(streamed(data))):
        try:
            assert look() > 0
        except ValueError as error:
            assert "<bytes>" in str(error)
    return clip


def streamed(data):
    with FrameStream(data) as stream:
        times = [time for time, _ in stream]
    assert (np.diff(times) > 0).all()
    return times or [0.0]


NORMAL = ("h264_gop12.mp4", "h264.mkv", "h264.ts", "vp9.webm", "mpeg4.avi", "GIF", "PNG", "WEBP", "AVIF")
"""Files of the small corpus; the large one takes all."""


@pytest.mark.parametrize("name", NORMAL)
def test_broken_files_give_frames_or_a_clear_error(name):
    data = make(SPECS[name]) if name in SPECS else animation(name)
    for kind in DAMAGE:
        assert_frames_or_error(broken(data, kind, 0))


def animation(form, size=(64, 48)):
    pages = [PIL.Image.fromarray(picture(index, *size)) for index in range(8)]
    file = io.BytesIO()
    pages[0].save(file, form, save_all=True, append_images=pages[1:], duration=100)
    return file.getvalue()


@pytest.mark.slow
def test_a_thousand_broken_files():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tried = 0
    for spec in SPECS.values():
        for size in (spec.size, (160, 96)):
            data = make(spec._replace(size=size))
            for kind in DAMAGE:
                assert_frames_or_error(broken(data, kind, tried))
                tried += 1
    assert tried >= 900
    for kind in DAMAGE:
        for seed in range(20):
            assert_frames_or_error(broken(data, kind, seed))
            tried += 1
    assert tried >= 1000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 512 << 10  # kilobytes


def test_visible_damage_is_flagged():
    data = make(SPECS["h264.mkv"])
    assert not read_video(data).damaged
    assert read_video(broken(make(SPECS["h264.ts"]), "flip_many", 0)).damaged
    assert read_video(data[: len(data) * 2 // 3]).damaged
    table_in_front = make(SPECS["h264_faststart.mov"])
    begin = table_in_front.index(b"mdat") + 4
    hurt = read_video(table_in_front[: begin + 900] + bytes(300) + table_in_front[begin + 1200 :])
    assert hurt.damaged and hurt.strategy == "sequential"
    other = make(SPECS["mpeg4.avi"])
    half = read_video(other[: len(other) * 3 // 4])
    assert half.damaged and len(half.frames) == 8
    with pytest.raises(ValueError, match="truncated"):
        read_video(make(SPECS["h264_faststart.mov"])[:-300])


def test_what_is_no_video_is_refused(tmp_path):
    """What tests/test_bad_files.py does not have."""
    noise = np.random.default_rng(0).bytes(20_000)
    cases = {
        "one.mp4": b"\0",
        "noise.mp4": noise,
        "noise.mkv": b"\x1aE\xdf\xa3" + noise,
        "header.mp4": struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"isom"),
        "deep.mp4": b"".join(struct.pack(">I4s", 1 << 20, b"moov") for _ in range(3000)),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            read_video(tmp_path / name, limits=Limits(timeout=PATIENCE))
        with pytest.raises(ValueError, match=name):
            video_info(tmp_path / name)


def test_playlists_and_scripts_open_nothing(tmp_path):
    victim = tmp_path / "victim.ts"  # a good video that no other file may make the reader open
    victim.write_bytes(make(SPECS["h264.ts"]))
    scripts = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{victim}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\nfile://{victim}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile {victim.name}\n",
        "list.txt": f"ffconcat version 1.0\nfile '{victim}'\n",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "list.mpd": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f"<AdaptationSet><Representation><BaseURL>{victim}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        for source in (tmp_path / name, str(tmp_path / name), text.encode()):
            with pytest.raises(ValueError, match="not a video"):
                read_video(source, limits=Limits(timeout=PATIENCE))
    for trick in ("concat:{0}|{0}", "subfile,,start,0,end,0,,:{0}", "async:{0}", "data:video/mp4;base64,AAAA"):
        with pytest.raises((FileNotFoundError, ValueError)):
            read_video(trick.format(victim))


def png_bomb(side):
    """A picture of side x side pixels, which says that it moves, in a few kilobytes."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + side // 8)) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"acTL", bytes([0, 0, 0, 2]) * 2)
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_before_it_takes_memory():
    bomb = png_bomb(24_000)
    assert len(bomb) < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="<bytes>"):
        read_video(bomb)
    gif = b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\xf0\0\0\0\0\0\xff\xff\xff"
    with pytest.raises(ValueError, match="<bytes>"):
        read_video(gif + b",\0\0\0\0\x60\xea\x60\xea\0\x02\x02\x4c\x01\0;")
    webp = animation("WEBP", (160, 120))
    with pytest.raises(ValueError, match="max_pixels"):
        read_video(webp, limits=Limits(max_pixels=10_000))
    with pytest.raises(ValueError, match="<bytes>"):
        read_video(webp[:60])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_every_limit_holds():
    data = make(SPECS["h264.mkv"])
    limits = {"max_bytes": 100, "max_pixels": 1000, "max_output": 10_000, "max_packets": 5, "timeout": 1e-9}
    for name, value in limits.items():
        with pytest.raises(ValueError, match=f"<bytes>.*Limits.{name}"):
            read_video(data, limits=Limits(**{name: value}))
        with pytest.raises(ValueError, match=f"{name}: got 0"):
            Limits(**{name: 0})


def many_streams(count):
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        streams = [output.add_stream("mpeg4", rate=5) for _ in range(count)]
        for stream in streams:
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
        for stream in streams:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
            output.mux(stream.encode())
    return target.getvalue()


def test_too_many_streams_are_refused():
    data = many_streams(80)
    with pytest.raises(ValueError, match=r"<bytes>.*max_streams"):
        read_video(data)
    assert read_video(data, limits=Limits(max_streams=100)).frames.shape == (8, 16, 16, 3)


def test_an_endless_duration_costs_nothing():
    """Frames thirty years apart, asked for a thousand times a second."""
    apart = remux(make(SPECS["h264_three.mkv"]), "matroska", stretch=10**10)
    begun = time.monotonic()
    clip = read_video(apart, 8, fps=1000.0)
    assert clip.duration > 1e9 and clip.indices[0] == 0 and clip.indices[-1] == 2
    assert len(clip.frames) == 8 and time.monotonic() - begun < PATIENCE


def test_headers_of_noise_are_never_believed():
    for seed in range(40):
        noise = np.random.default_rng(seed).bytes(60)
        assert not LeafUnits(b"\x81\0\0\0" + noise).is_leaf(noise, keyframe=True), seed


def test_a_partial_decode_does_not_hide_behind_a_count():
    """A stream whose packets are all there but do not decode gives no frames out of thin air."""
    data = bytearray(make(SPECS["h264_gop12.mp4"]))
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[begin:end] = bytes(end - begin)
    with pytest.raises(ValueError, match="no frame in it can be decoded"):
        read_video(bytes(data))
