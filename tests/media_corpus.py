"""A folder of small pictures and videos of every kind, with what is to be seen in each.

Shape legend: F frames, H height, W width.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from picture_corpus import LOSSY, PICTURES, scene
from video_corpus import ANIMATIONS, VIDEOS, WIDE, frames_of, make_video

from gve import build_tiny

LOSSY_VIDEO = 20.0


class Sample(NamedTuple):
    """A file of a kind ("image" or "video"), and what it `shows`: (H, W, 3) or (F, H, W, 3).

    A reader may differ from that by `loss` grey levels, on average over the pixels.
    """

    path: Path
    kind: str
    shows: np.ndarray
    loss: float

    @property
    def name(self) -> str:
        """The file's name for messages, in ASCII."""
        return ascii(self.path.name)[1:-1]

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


def smallest():
    architecture = {"vision_depth": 1, "vision_hidden": 32, "text_layers": 1, "text_hidden": 32, "heads": 2}
    return build_tiny(["Find it."], frame_size=48, num_frames=4, vocab_size=300, **architecture)


def write_corpus(folder):
    """Write every file into a folder; the same pictures each time, though some encoders vary by a few bytes."""
    samples = []
    for name, make in PICTURES.items():
        data, shows, loss = make(scene(zlib.crc32(name.encode("utf-8", "surrogateescape"))))
        samples.append(_written(folder / name, data, "image", shows, loss))
    for name, video in VIDEOS.items():
        data, shows = make_video(name, video)
        samples.append(_written(folder / name, data, "video", shows, LOSSY_VIDEO))
    for name, animate in ANIMATIONS.items():
        data, shows = animate(frames_of(name, 8, *WIDE))
        samples.append(_written(folder / name, data, "video", shows, LOSSY))
    return samples


def _written(path, data, kind, shows, loss):
    path.write_bytes(data)
    return Sample(path, kind, shows, loss)
