"""An encoder, and a folder of pictures and a video."""

import numpy as np
import pytest
from colour_encoder import COLOURS, ColourEncoder
from PIL import Image

from gve.video_writer import encode_mp4


@pytest.fixture
def encoder():
    return ColourEncoder()


@pytest.fixture
def folder(tmp_path):
    """Four pictures and a video of three seconds, each second of one colour."""
    place = tmp_path / "media"
    place.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (4, 4), colour).save(place / f"{name}.png")
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in list(COLOURS.values())[:3] for _ in range(10)]
    (place / "clip.mp4").write_bytes(encode_mp4(pictures, 10))
    return place
