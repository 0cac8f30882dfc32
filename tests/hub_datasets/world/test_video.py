import io

import av
import numpy as np
from PIL import Image

from gve.hub_datasets.world.render import frame_times, render, render_long
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import picture_bytes, video_bytes


def clips(count, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(sample_clip(rng, "seen") for _ in range(count))


def decode(content):
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), float(stream.average_rate), float(stream.duration * stream.time_base)


def test_clips_are_sixteen_frames_in_two_seconds_and_long_videos_their_clips_one_after_another():
    errors = []
    for clip in clips(12):
        frames, rate, seconds = decode(video_bytes((clip,)))
        assert frames.shape == (16, 48, 48, 3) and (rate, seconds) == (8, 2)
        errors.append(np.abs(frames.astype(int) - render(clip, frame_times(16))).mean())
    assert np.mean(errors) < 6
    parts = clips(4)
    frames, rate, seconds = decode(video_bytes(parts))
    assert (len(frames), rate, seconds) == (32, 4, 8)
    assert np.abs(frames.astype(int) - render_long(parts, 8)).mean() < 6


def test_bytes_repeat_and_pictures_are_lossless():
    clip = clips(1)
    first = video_bytes(clip)
    video_bytes.cache_clear()
    assert video_bytes(clip) == first
    picture = np.asarray(Image.open(io.BytesIO(picture_bytes(clip[0], 0.5))))
    np.testing.assert_array_equal(picture, render(clip[0], [0.5])[0])
