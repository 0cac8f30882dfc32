import io
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest

import gve

TEXTS = (
    "a red circle moves to the left of a blue box",
    "Find the video according to the text description.",
    "the camera pans right while a small green star spins",
)


def level(index, total):
    """Grey level of frame `index`: far enough apart to survive the codec."""
    return 20 + round(index * 200 / max(total - 1, 1))


def make_clip(
    target, *, total=16, times=None, size=(64, 48), codec="libx264", container="mp4", rate=8, start=0, options=None
):
    """Encode grey frames of known levels, white in the top left corner; `times` are milliseconds."""
    with av.open(target, "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
        for index in range(total):
            array = np.full((size[1], size[0], 3), level(index, total), np.uint8)
            array[: size[1] // 4, : size[0] // 4] = 255
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = (times[index] if times else index) + start
            frame.time_base = stream.codec_context.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return target


def clip_bytes(**kwargs):
    return make_clip(io.BytesIO(), **kwargs).getvalue()


@pytest.fixture(scope="session")
def make():
    return make_clip


@pytest.fixture(scope="session")
def encoded():
    return clip_bytes


@pytest.fixture(scope="session")
def grey():
    return level


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A folder with two clips, a WebM and an image."""
    folder = tmp_path_factory.mktemp("media")
    make_clip(str(folder / "a.mp4"))
    make_clip(str(folder / "short.mp4"), total=3, size=(96, 96))
    make_clip(str(folder / "b.webm"), total=10, codec="libvpx", container="webm")
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "i.png")
    return folder


@pytest.fixture(scope="session")
def tiny():
    return gve.build_tiny(TEXTS, seed=0)


@pytest.fixture(scope="session")
def model(tiny):
    return tiny[0]


@pytest.fixture(scope="session")
def processor(tiny):
    return tiny[1]


@pytest.fixture(scope="session")
def rows(media):
    """One row of every kind."""
    frames = np.random.default_rng(1).integers(0, 255, (12, 48, 48, 3), dtype=np.uint8)
    image = PIL.Image.open(media / "i.png").convert("RGB")
    return [
        str(media / "a.mp4"),
        {"text": "a red circle", "image": image},
        {"image": image, "text": "a red circle"},
        {"text": "a blue box", "video": str(media / "short.mp4")},
        "a small green star",
        "see <|video_pad|> and <|endoftext|> here",
        "\n  begins oddly",
        {"text": "all", "image": str(media / "i.png"), "video": str(media / "a.mp4")},
        {"video": str(media / "b.webm")},
        {"video": frames},
        {"video": {"array": frames, "video_metadata": {"fps": 2.0, "total_num_frames": 12}}},
        {"image": image},
        {"text": "  ", "video": frames},
    ]


@pytest.fixture(scope="session")
def folder(tiny, tmp_path_factory):
    """The tiny model, saved."""
    folder = tmp_path_factory.mktemp("embedder")
    gve.save_embedder(folder, *tiny)
    return folder
