"""All frames of a video, decoded in order with no cleverness at all, and every way to ask held against them."""

import io
import math

import av
import numpy as np

from gve.video_gve import FrameStream, frame_times, read_video, uniform_indices

PLANS = {
    "8": {"num_frames": 8},
    "1": {"num_frames": 1},
    "48": {"num_frames": 48},
    "odd": {"num_frames": 5},
    "part": {"num_frames": 3, "start": 0.4, "end": 1.33},
    "rate": {"num_frames": 9, "fps": 2.5},
    "times": {"timestamps": [0.0, 0.05, 1.2, 0.31, 0.0]},
}
"""Seven ways to ask; "times" goes back in time and repeats."""


class Whole:
    """The frames and their times, from the file unless the caller knows better."""

    def __init__(self, data, times=None):
        self.frames, ticks = [], []
        with av.open(io.BytesIO(data)) as source:
            stream = source.streams.video[0]
            stream.thread_type = "NONE"
            for packet in source.demux(stream):
                for frame in packet.decode():
                    ticks.append(frame.pts)
                    turns = round(frame.rotation / 90) % 4
                    self.frames.append(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            base, rate = stream.time_base, stream.average_rate
        if None in ticks:
            ticks, base = list(range(len(ticks))), 1 / rate
        self.times = times or [float((tick - ticks[0]) * base) for tick in ticks]
        assert len(self.times) == len(ticks)
        self.mean = self.times[-1] / max(len(ticks) - 1, 1)

    def __len__(self):
        return len(self.frames)

    def shown_at(self, moment):
        return max(i for i, time in enumerate(self.times) if time <= moment + 1e-6)

    def expected(self, plan, duration):
        """Places that a plan asks for, by a slow reading of its words."""
        count = plan.get("num_frames")
        if "timestamps" in plan:
            return [self.shown_at(moment) for moment in plan["timestamps"]]
        if "fps" in plan:
            every = [k / plan["fps"] for k in range(999)]
            moments = [moment for moment in every if moment < duration - 1e-6] or [0.0]
            if len(moments) > count:
                moments = [moments[i] for i in uniform_indices(len(moments), count)]
            return [self.shown_at(moment) for moment in moments]
        first = self.shown_at(plan.get("start", 0))
        inside = [i for i, t in enumerate(self.times) if i >= first and t < plan.get("end", math.inf) - 1e-6]
        return [inside[i] for i in uniform_indices(len(inside), count)]


def check(source, data, plans, *, name="", limits=None, times=None, damaged=False, near=0):
    """Compare every plan with the whole; returns the strategies used."""
    whole, used = Whole(data, times), set()
    for label, plan in plans.items():
        if whole.times[-1] < 1.25 and label in ("part", "times"):
            continue
        clip = read_video(source, **plan, limits=limits)
        expected = whole.expected(plan, clip.duration)
        where = (name, label, clip.strategy)
        assert clip.indices == expected, where
        assert len(clip.frames) == len(clip.timestamps) == len(clip.indices), where
        for frame, place in zip(clip.frames, clip.indices, strict=True):
            assert np.abs(frame.astype(int) - whole.frames[place]).max() <= near, (*where, place)
        assert clip.timestamps == [whole.times[place] for place in clip.indices], where
        assert whole.times[-1] < clip.duration < whole.times[-1] + 3 * whole.mean + 0.3, where
        assert clip.damaged == damaged, where
        used.add(clip.strategy)
    with FrameStream(source, limits) as stream:
        streamed = [time for time, _ in stream]
    assert streamed == frame_times(source, limits).tolist() == whole.times, name
    return used
