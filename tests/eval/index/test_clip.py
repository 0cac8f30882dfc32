"""Clips: copied or encoded, their frames and times, sound, rotation, names."""

import io

import av
import make_videos
import numpy as np
import pytest
from index_rows import make_hit

from gve.eval.index.clip import cut_clip, write_clips
from gve.video_gve import frame_times, read_video, video_info

CASES = {
    "h264_gop12.mp4": (1.2, True),
    "h264_opengop.mp4": (0.0, True),
    "h264_10bit.mkv": (1.2, True),
    "av1.mkv": (1.2, True),
    "vp9.webm": (1.2, True),
    "hevc.mp4": (1.22, True),  # not quite on a keyframe
    "h264_gop250.mp4": (1.2, False),
    "h264_vfr.mp4": (0.55, False),
    "h264_opengop.ts": (1.2, False),
    "vp8_altref.webm": (1.2, False),
    "vp9_alpha.webm": (0.5, False),
    "mjpeg.avi": (1.2, False),
    "prores.mov": (0.3, False),
}
"""File, where a second of it begins, and whether its packets can be copied."""


@pytest.mark.parametrize("name", CASES)
def test_a_clip_shows_the_frames_of_its_second(name, tmp_path):
    start, copied = CASES[name]
    source, out = tmp_path / name, tmp_path / "clip.mp4"
    source.write_bytes(make_videos.make(make_videos.SPECS[name]))
    assert cut_clip(source, start, start + 1, out) == copied
    times = frame_times(source)
    begin = times[np.abs(times - start).argmin()] if copied else start
    first = int((times <= begin + 1e-6).sum()) - 1
    wanted = np.flatnonzero((np.arange(len(times)) >= first) & (times < start + 1 - 1e-6))
    clip = frame_times(out)
    assert len(wanted) <= len(clip) <= len(wanted) + 3 * copied  # those that frames at the end refer to
    assert clip[: len(wanted)] == pytest.approx(np.maximum(times[wanted] - begin, 0), abs=2e-3)
    original = read_video(source, timestamps=times[wanted]).frames.astype(int)
    shown = read_video(out, timestamps=clip[: len(wanted)]).frames
    difference = np.abs(original - shown).mean()
    assert difference < (0.1 if copied else 4)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_turned_videos_stay_upright(tmp_path):
    source, out = tmp_path / "v.mp4", tmp_path / "clip.mp4"
    source.write_bytes(make_videos.make(make_videos.SPECS["h264_rotated.mp4"]))
    for start, copied in ((1.2, True), (0.55, False)):
        assert cut_clip(source, start, start + 1, out) == copied
        info = video_info(out)
        assert (info.width, info.height, info.rotation) == (64, 96, 90 if copied else 0)
        difference = read_video(out, 1).frames[0].astype(int) - read_video(source, timestamps=[start]).frames[0]
        assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(("codec", "kept"), [("aac", True), ("tta", False)])
def test_sound_is_copied_where_mp4_holds_it(codec, kept, tmp_path):
    source, out = tmp_path / "v.mkv", tmp_path / "clip.mp4"
    source.write_bytes(_with_tone(codec))
    for start, copied in ((1.2, True), (0.55, False)):
        assert cut_clip(source, start, start + 1, out) == copied
        packets = _sounds(out)
        wanted = [(time - start, content) for time, content in _sounds(source) if start <= time < start + 1]
        assert len(packets) == (len(wanted) if kept else 0) and (len(packets) > 10) == kept
        assert [content for _, content in packets] == [content for _, content in wanted if kept]
        assert [time for time, _ in packets] == pytest.approx([time for time, _ in wanted if kept], abs=0.03)


def test_clips_of_hits(tmp_path, caplog):
    folder, out = tmp_path / "videos", tmp_path / "new" / "clips"
    folder.mkdir()
    video, odd, broken = folder / "a.mp4", folder / "b\udcff.mp4", folder / "c.mp4"
    for path in (video, odd):
        path.write_bytes(make_videos.make(make_videos.h264("mp4")))
    broken.write_bytes(b"no video")
    places = [(video, 0.0, 1.0, False), (odd, 1.5, 2.0, False), (broken, 0.0, 1.0, False), (video, 0.0, 1.0, True)]
    hits = [make_hit(str(path), start, end, missing=missing) for path, start, end, missing in places]
    found = write_clips([*hits, make_hit("x.png")], out)
    assert [path and path.name for path in found] == ["1_a_0.00-1.00.mp4", "2_b\udcff_1.50-2.00.mp4", None, None, None]
    assert sorted(out.iterdir()) == sorted(path for path in found if path)
    assert [len(frame_times(path)) for path in found[:2]] == [10, 5]
    assert "no clip of" in caplog.text
    for start, end in ((-1, 2), (2, 1), (0, float("inf"))):
        with pytest.raises(ValueError, match="start, end: must be seconds"):
            cut_clip(video, start, end, out / "x.mp4")


def _sounds(path):
    """Times and bytes of the packets of the first sound track, if there is one."""
    with av.open(str(path)) as file:
        packets = file.demux(file.streams.audio[:1]) if file.streams.audio else ()
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets if packet.size]


def _with_tone(codec):
    """Moving patterns at ten frames a second and a tone, three seconds of both."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        stream = output.add_stream("libx264", rate=10, options={"x264-params": "keyint=12:scenecut=0:threads=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream(codec, rate=32000)
        wave = np.sin(np.arange(3 * 32000) / 20)[None].astype(np.float32)
        for number in range(30):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(make_videos.picture(number, 64, 48), format="rgb24")))
            part = np.ascontiguousarray(np.repeat(wave[:, number * 3200 : (number + 1) * 3200], 2, axis=0))
            tone = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            tone.sample_rate, tone.pts = 32000, number * 3200
            output.mux(sound.encode(tone))
        output.mux(stream.encode())
        output.mux(sound.encode())
    return target.getvalue()
