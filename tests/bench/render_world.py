"""How fast the world is made on one core, beside encoding alone: `python tests/bench/render_world.py [CLIPS]`.

Prints CPU milliseconds a clip of 16 frames at 48 px: rendering, encoding, both, and the ratio of both to encoding.
"""

import statistics
import sys

import av
import numpy as np
from common import milliseconds, say

from gve.hub_datasets.world.render import frame_times, render
from gve.hub_datasets.world.spec import sample_clip
from gve.video_writer import encode_mp4

FRAMES, FPS, ROUNDS = 16, 8, 5


def each(work, items):
    """Median CPU milliseconds of one item."""

    def work_on_all():
        for item in items:
            work(item)

    return milliseconds(work_on_all, ROUNDS) / len(items)


def main(clips):
    rng = np.random.default_rng(0)
    drawn = [sample_clip(rng, "seen") for _ in range(clips)]
    times = frame_times(FRAMES)
    frames = [render(clip, times) for clip in drawn]
    rendering = each(lambda clip: render(clip, times), drawn)
    encoding = each(lambda one: encode_mp4(one, FPS), frames)
    size = statistics.mean(len(encode_mp4(one, FPS)) for one in frames) / 1024
    say(
        f"PyAV {av.__version__}, {clips} clips of {FRAMES} frames, median of {ROUNDS} rounds, one process\n"
        f"render {rendering:.2f} ms, encode {encoding:.2f} ms, both {rendering + encoding:.2f} ms a clip "
        f"({(rendering + encoding) / encoding:.2f} x encoding alone), {size:.1f} KiB a file\n"
        f"1,000 clips: {rendering + encoding:.1f} s of one core"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
