"""A folder of small pictures and videos of every kind, with what is to be seen in each.

Shape legend: F frames, H height, W width.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from picture_corpus import LOSSY, PICTURES, scene
from video_corpus import ANIMATIONS, VIDEOS, WIDE, frames_of, make_video

LOSSY_VIDEO = 20.0


class Sample(NamedTuple):
    """A file.

    Attributes:
        path: Where it lies.
        kind: "image" or "video".
        shows: (H, W, 3) or (F, H, W, 3), what is to be seen in it.
        loss: Grey levels by which a reader may differ from that, on average over the pixels.
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
        """The file's bytes."""
        return self.path.read_bytes()


def write_corpus(folder: Path) -> list[Sample]:
    """Write every file into a folder; the same pictures each time, though some encoders vary by a few bytes.

    Args:
        folder: An existing one.

    Returns:
        The files, each of another content.
    """
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


def _written(path: Path, data: bytes, kind: str, shows: np.ndarray, loss: float) -> Sample:
    path.write_bytes(data)
    return Sample(path, kind, shows, loss)
