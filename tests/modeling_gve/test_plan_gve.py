import io
from pathlib import Path
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import torch

from gve import Frames
from gve.plan_gve import Plan

SMALL = {"shortest_edge": 4 * 256, "longest_edge": 6 * 256}


def turned(data, quarter):
    """The clip with a display matrix that turns it by `quarter` times 90 degrees."""
    corners = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarter]
    matrix = [corners[0] << 16, corners[1] << 16, 0, corners[2] << 16, corners[3] << 16, 0, 0, 0, 1 << 30]
    packed = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    at = data.index(b"tkhd")
    start = at + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 8 + 2 + 2 + 2 + 2  # version, times, track, duration, layer, volume
    return data[:start] + packed + data[start + 36 :]


def sizes_of(batch, processor):
    """Vision tokens and pixels that `prepare` gave."""
    tokens = pixels = 0
    for name, part in (("image_grid_thw", processor.image_processor), ("video_grid_thw", processor.video_processor)):
        for t, h, w in batch[name].tolist() if name in batch else []:
            tokens += t * h * w // part.merge_size**2
            pixels += (t * part.temporal_patch_size if "video" in name else 1) * h * w * part.patch_size**2
    return tokens, pixels


@pytest.fixture(scope="module")
def forms(media, encoded):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (12, 50, 90, 3), dtype=np.uint8)
    animation = io.BytesIO()
    pages = [PIL.Image.fromarray(frame) for frame in frames]
    pages[0].save(animation, "WEBP", save_all=True, append_images=pages[1:], duration=100)
    gif = io.BytesIO()
    pages[0].save(gif, "GIF", save_all=True, append_images=pages[1:], duration=100)
    return [
        *({"video": str(media / "a.mp4")}, {"video": media / "b.webm"}, str(media / "short.mp4")),
        *({"video": turned(encoded(), quarter)} for quarter in (1, 2, 3)),
        *({"video": io.BytesIO(encoded(size=(400, 48)))}, {"video": {"bytes": encoded(size=(48, 640)), "path": None}}),
        *({"video": animation.getvalue()}, {"video": gif.getvalue()}),
        *({"video": frames}, {"video": torch.from_numpy(frames).permute(0, 3, 1, 2)}, {"video": frames[:3] / 255}),
        *({"video": list(frames)}, {"video": pages[:5]}, {"video": Frames(frames, list(range(12)), 12.0)}),
        *({"frames": frames, "fps": 2.0}, {"array": frames, "video_metadata": None}),
        *({"video": [frames, str(media / "a.mp4")], "image": [pages[0], media / "i.png"], "text": "a red circle"},),
        *(str(media / "i.png"), pages[0], {"image": frames[0]}, {"image": frames[0].transpose(2, 0, 1) / 255}),
        *({"image": PIL.Image.new("RGB", size)} for size in ((1, 1), (1, 150), (3000, 20), (2000, 1500), (33, 47))),
        *("a blue box", {"role": "user", "content": "words"}),
    ]


@pytest.mark.parametrize(
    "options", [{}, {"num_frames": 3}, {"num_frames": 16, "video_size": SMALL, "image_size": SMALL}]
)
def test_plans_are_exact_for_vision(processor, forms, options):
    plans = processor.plan(forms, **options)
    for row, plan in zip(forms, plans, strict=True):
        batch = processor.prepare([row], **options)
        tokens, pixels = sizes_of(batch, processor)
        assert plan.vision == tokens == (batch["mm_token_type_ids"] > 0).sum()
        assert plan.pixels == pixels
        if not isinstance(row, (str, Path)) and not (isinstance(row, dict) and ("text" in row or "content" in row)):
            assert plan.tokens == batch["input_ids"].shape[1]


def test_estimated_texts(processor):
    short, long = processor.plan(["a red circle", "a red circle " * 100])
    assert short.vision == short.pixels == 0 and long.tokens - short.tokens == 1300 // 4 - 3
    with_instruction = processor.plan(["a"], instruction="a red circle moves")[0]
    assert with_instruction.tokens != processor.plan(["a"])[0].tokens
    assert isinstance(short, Plan)


def test_nothing_is_decoded(processor, media):
    rows = [
        str(media / "a.mp4"),
        {"video": media / "b.webm", "image": media / "i.png"},
        {"image": [media / "i.png"] * 2},
    ]
    processor.plan(["a"])  # the ids of the chat around the words are kept
    with (
        mock.patch("PIL.ImageFile.ImageFile.load", side_effect=AssertionError("decoded")),
        mock.patch("gve.video_processing_gve.read_video", side_effect=AssertionError("decoded")),
        mock.patch.object(type(processor.tokenizer), "__call__", side_effect=AssertionError("tokenised")),
    ):
        assert [plan.vision for plan in processor.plan(rows)] == [24, 24 + 6, 12]


def test_too_large_rows_are_refused_before_decoding(processor, media):
    rows = ["a", {"video": str(media / "a.mp4"), "image": media / "i.png", "text": "words"}]
    message = (
        r"max_length: got 40, but inputs\[1\] takes \d+ tokens without its text, 30 of them for images and videos "
        r"\(a video of 8 frames, 4 pairs x 6 tokens = 24; an image of 6 tokens\); only text is cut; raise max_length, or "
        r"lower num_frames, video_size\['longest_edge'\] or image_size"
    )
    with (
        mock.patch("gve.video_processing_gve.read_video", side_effect=AssertionError("decoded")),
        pytest.raises(ValueError, match=message),
    ):
        processor.prepare(rows, max_length=40)
    processor.prepare(rows, max_length=64)
    processor.prepare(rows[1:], max_length=50, num_frames=2)
