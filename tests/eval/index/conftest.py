"""An encoder, and a folder of pictures and a video."""

import numpy as np
import pytest
from colour_encoder import COLOURS, ColourEncoder

from gve.video_writer import encode_mp4


@pytest.fixture
def encoder():
    return ColourEncoder()


@pytest.fixture
def folder(pictures):
    """Four pictures and a video of three seconds, each second of one colour."""
    frames = [np.full((32, 32, 3), colour, np.uint8) for colour in list(COLOURS.values())[:3] for _ in range(10)]
    (pictures / "clip.mp4").write_bytes(encode_mp4(frames, 10))
    return pictures
