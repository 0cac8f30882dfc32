"""Windows and shots: their places, their frames against `read_video`, their vectors, damage, long files."""

import io
import math
import subprocess
import sys
from dataclasses import replace

import av
import make_videos
import numpy as np
import other_models
import pytest

import gve
from gve.eval.encoders import FunctionEncoder
from gve.eval.index.rows import Levels, Segment
from gve.eval.index.windows import MOST_WINDOWS, embed_segments, plan_segments, read_segments
from gve.eval.media_encoder import MediaEncoder
from gve.eval.models import load_encoder
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes
from gve.video_gve import read_video

BOTH = Levels(window=1, stride=0.4, shots=True)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Eight seconds at ten frames a second."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    path.write_bytes(make_videos.make(make_videos.h264("mp4", size=(96, 64), total=80)))
    return path


def times_of(path, **levels):
    return [segment[1:] for segment in plan_segments(path, Levels(files=False, **levels))]


def mean_colour(inputs, instruction):
    return np.stack([item["video"].frames.mean(axis=(0, 1, 2)) for item in inputs])


def test_windows_cover_the_video_and_end_at_its_end(video):
    assert times_of(video, window=3, stride=2.5) == [(0, 3), (2.5, 5.5), (5, 8)]
    assert times_of(video, window=3, stride=2) == [(0, 3), (2, 5), (4, 7), (5, 8)]
    assert times_of(video, window=2) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert times_of(video, window=1.99) == pytest.approx(np.array([(0, 1.99), (1.99, 3.98), (3.98, 5.97), (5.97, 8)]))
    assert times_of(video, window=60, stride=3) == [(0, 8)]
    assert plan_segments(video, Levels()) == [Segment("file", 0.0, 8.0)]
    for levels in (Levels(window=1e-4), Levels(window=1, stride=7 / MOST_WINDOWS)):
        with pytest.raises(ValueError, match=r"--window, --stride: got .* Raise them"):
            plan_segments(video, levels)


def test_shots_begin_at_the_cuts_of_the_world(tmp_path):
    rng = np.random.default_rng(3)
    found = []
    for number in range(5):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(video_bytes(tuple(sample_clip(rng, "seen") for _ in range(4))))
        found.append(times_of(path, shots=True))
    assert all(shots[0][0] == 0 and shots[-1][1] == 8 for shots in found)
    true = [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert np.mean([shot in shots for shots in found for shot in true]) >= 0.7


@pytest.mark.parametrize("name", ["h264_vfr.mp4", "h264_opengop.ts", "hevc_10bit.mkv", "wmv2.wmv", "picture.gif"])
def test_frames_are_those_of_read_video(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(make_videos.make(make_videos.SPECS[name]))
    plan = plan_segments(path, BOTH)
    found = list(read_segments(path, plan, 4, lambda *_: (20, 30)))
    assert sorted(segment for segment, _ in found) == sorted(plan)
    ends = [segment.end for segment, _ in found]
    assert ends == sorted(ends) and found[-1][0].level == "file"
    for segment, frames in found:
        window = {} if segment.level == "file" else {"start": segment.start, "end": segment.end}
        apart = read_video(path, 4, (20, 30), **window)
        assert np.array_equal(frames.frames, apart.frames) and frames.indices == apart.indices
        assert frames.timestamps == pytest.approx(np.array(apart.timestamps) - apart.timestamps[0])
        assert frames.duration == (apart.duration if segment.level == "file" else segment.end - segment.start)


def test_damaged_files_are_read_by_what_decodes(tmp_path):
    seen = 0
    for seed in range(8):
        data = bytearray(make_videos.make(make_videos.SPECS["h264_gop12.mp4"]))
        place = int(np.random.default_rng(seed).integers(len(data) // 4, len(data) * 3 // 4))
        data[place : place + 60] = bytes(range(60))
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(data)
        whole, seen = read_video(path, 4), seen + read_video(path, 4).damaged
        found = list(read_segments(path, plan_segments(path, BOTH), 4, None))
        assert len(found) == len(plan_segments(path, BOTH))
        assert np.array_equal(found[-1][1].frames, whole.frames) and found[-1][1].duration == whole.duration
    assert seen > 2
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="not a video"):
        plan_segments(tmp_path / "text.mp4", BOTH)


def test_vectors_of_our_model(video):
    model, levels = gve.load_demo(), Levels(window=2, stride=1)
    blocks = list(embed_segments(model, video, levels, num_frames=8, batch=3))
    assert [len(segments) for segments, _ in blocks] == [3, 3, 1, 1]
    (whole,), vector = blocks.pop()
    assert whole == ("file", 0, 8) and np.array_equal(vector, model.encode_document([str(video)]))  # to the last bit
    for segments, vectors in blocks:
        for segment, vector in zip(segments, vectors, strict=True):
            frames = read_video(video, 8, start=segment.start, end=segment.end)
            times = [time - frames.timestamps[0] for time in frames.timestamps]
            (apart,) = model.encode_document([replace(frames, timestamps=times, duration=2.0)])
            assert np.abs(vector - apart).max() < 1e-6
    known = [segment for segments, _ in blocks[:2] for segment in segments]
    rest = list(embed_segments(model, video, levels, num_frames=8, known=known))
    assert [len(segments) for segments, _ in rest] == [1, 1]


def test_vectors_of_other_models(video, tmp_path):
    encoder = MediaEncoder(load_encoder(str(other_models.clip_model(tmp_path))))
    (_, windows), (_, whole) = embed_segments(encoder, video, Levels(window=4), num_frames=3)
    assert np.array_equal(whole, encoder.encode_document([{"video": str(video)}], num_frames=3))
    apart = encoder.encode_document([{"video": read_video(video, 3, start=4, end=8)}])
    assert len(windows) == 2 and np.abs(windows[1] - apart[0]).max() < 1e-6
    ((_, vectors),) = embed_segments(FunctionEncoder(mean_colour), video, Levels(), num_frames=2)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    for wrong in (math.nan, 0.0):
        broken = FunctionEncoder(lambda inputs, _, wrong=wrong: np.full((len(inputs), 4), wrong))
        with pytest.raises(ValueError, match="encoder: returned nan, infinity or zeros"):
            list(embed_segments(broken, video, Levels(), num_frames=2))
    with pytest.raises(ValueError, match="encoder: must return"):
        list(embed_segments(FunctionEncoder(lambda *_: np.ones((5, 4))), video, Levels(), num_frames=2))


MEASURE = """
import resource, sys
from gve.eval.encoders import FunctionEncoder
from gve.eval.index.rows import Levels
from gve.eval.index.windows import embed_segments
encoder = FunctionEncoder(lambda inputs, _: [item["video"].frames[0, 0, 0] + 1.0 for item in inputs])
for segments, _ in embed_segments(encoder, sys.argv[1], Levels(files=False, window=6, stride=3), num_frames=8):
    print(len(segments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length(tmp_path):
    """The most memory that a process ever held, after each block of a video of twenty minutes."""
    (tmp_path / "long.mp4").write_bytes(_repeated(20))
    run = subprocess.run([sys.executable, "-c", MEASURE, tmp_path / "long.mp4"], stdout=-1, text=True, check=True)
    lines = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    assert sum(segments for segments, _ in lines) == 399
    # the frames of a window are 1.1 MB: kept, they would come to 400 MB
    assert lines[-1][1] - lines[1][1] < 60_000


def _repeated(minutes):
    """A minute at two frames a second, so many times over."""
    minute = make_videos.make(make_videos.h264("mp4", 60, size=(256, 192), total=120, rate=2))
    target = io.BytesIO()
    with av.open(io.BytesIO(minute)) as source, av.open(target, "w", format="mp4") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        for shift in range(minutes):
            for before in packets:
                packet, ticks = av.Packet(bytes(before)), round(shift * 60 / before.time_base)
                packet.pts, packet.dts, packet.duration = before.pts + ticks, before.dts + ticks, before.duration
                packet.time_base, packet.is_keyframe, packet.stream = before.time_base, before.is_keyframe, stream
                output.mux(packet)
    return target.getvalue()
