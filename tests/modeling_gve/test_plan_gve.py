import io
from pathlib import Path
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import torch
from video_corpus import matrix

from gve import Frames

SMALL = {"shortest_edge": 4 * 256, "longest_edge": 6 * 256}


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
    frames = np.random.default_rng(0).integers(0, 255, (12, 50, 90, 3), dtype=np.uint8)
    pages = [PIL.Image.fromarray(frame) for frame in frames]
    animations = {"WEBP": io.BytesIO(), "GIF": io.BytesIO()}
    for form, file in animations.items():
        pages[0].save(file, form, save_all=True, append_images=pages[1:], duration=100)
    return [
        *({"video": str(media / "a.mp4")}, {"video": media / "b.webm"}, str(media / "short.mp4")),
        *({"video": matrix(number, 64, 48)(encoded())} for number in (3, 6, 8)),
        *({"video": io.BytesIO(encoded(size=(400, 48)))}, {"video": {"bytes": encoded(size=(48, 640)), "path": None}}),
        *({"video": file.getvalue()} for file in animations.values()),
        *({"video": frames}, {"video": torch.from_numpy(frames).permute(0, 3, 1, 2)}, {"video": frames[:3] / 255}),
        *({"video": list(frames)}, {"video": pages[:5]}, {"video": Frames(frames, list(range(12)), 12.0)}),
        *({"frames": frames, "fps": 2.0}, {"array": frames, "video_metadata": None}),
        {"video": [frames, str(media / "a.mp4")], "image": [pages[0], media / "i.png"], "text": "a red circle"},
        *(str(media / "i.png"), pages[0], {"image": frames[0]}, {"image": frames[0].transpose(2, 0, 1) / 255}),
        *({"image": PIL.Image.new("RGB", size)} for size in ((1, 1), (1, 150), (3000, 20), (2000, 1500), (33, 47))),
        *("a blue box", {"role": "user", "content": "words"}),
    ]


@pytest.mark.parametrize(
    "options", [{}, {"num_frames": 3}, {"num_frames": 16, "video_size": SMALL, "image_size": SMALL}]
)
def test_plans_are_exact_for_vision(processor, forms, options):
    for row, plan in zip(forms, processor.plan(forms, **options), strict=True):
        batch = processor.prepare([row], **options)
        tokens, pixels = sizes_of(batch, processor)
        assert plan.vision == tokens == (batch["mm_token_type_ids"] > 0).sum()
        assert plan.pixels == pixels
        if not isinstance(row, (str, Path)) and not (isinstance(row, dict) and ("text" in row or "content" in row)):
            assert plan.tokens == batch["input_ids"].shape[1]


def test_estimated_texts(processor):
    short, long = processor.plan(["a red circle", "a red circle " * 100])
    assert short.vision == short.pixels == 0 and long.tokens - short.tokens == 1300 // 4 - 3
    (instructed,) = processor.plan(["a red circle"], instruction="a red circle moves")
    assert instructed.tokens != short.tokens


def test_nothing_is_decoded(processor, media):
    image = media / "i.png"
    rows = [str(media / "a.mp4"), {"video": media / "b.webm", "image": image}, {"image": [image] * 2}]
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
        r"\(a video of 8 frames, 4 pairs x 6 tokens = 24; an image of 6 tokens\)"
    )
    with (
        mock.patch("gve.video_processing_gve.read_video", side_effect=AssertionError("decoded")),
        pytest.raises(ValueError, match=message),
    ):
        processor.prepare(rows, max_length=40)
    processor.prepare(rows, max_length=64)
    processor.prepare(rows[1:], max_length=50, num_frames=2)
