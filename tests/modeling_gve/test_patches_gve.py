import numpy as np
import pytest
import torch
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from gve.video_processing_gve import GVEVideoProcessor, cut_patches

QWEN = {"side": 14, "depth": 2, "merge": 2}


def noise(frames, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def stock(frames, side, depth, merge, mean, std):
    """transformers' order for videos: floats first, whole frames, then nine axes moved."""
    if missing := -len(frames) % depth:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    means, stds = (torch.tensor(values) * (1.0 / (1 / 255)) for values in (mean, std))
    video = (video.to(torch.float32) - means[:, None, None]) / stds[:, None, None]
    count, _, height, width = video.shape
    t, h, w = count // depth, height // side, width // side
    blocks = video.view(t, depth, 3, h // merge, merge, side, w // merge, merge, side)
    return blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1), [t, h, w]


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 56, 84), (5, 84, 28), (8, 112, 140)])
@pytest.mark.parametrize("cut", [QWEN, {"side": 16, "depth": 2, "merge": 2}, {"side": 7, "depth": 1, "merge": 4}])
def test_equal_to_the_last_bit_to_the_stock_order(shape, cut):
    unit = cut["side"] * cut["merge"]
    frames = noise(shape[0], shape[1] // 28 * unit, shape[2] // 28 * unit)
    expected, grid = stock(frames, **cut, mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD)
    patches, ours = cut_patches(frames, **cut)
    assert ours == grid and patches.dtype == np.uint8 and patches.flags.c_contiguous
    assert torch.equal(GVEVideoProcessor().normalise(torch.from_numpy(patches)), expected)


def test_a_view_of_frames_is_cut_as_its_copy():
    frames = noise(4, 56, 56)
    view = frames[::2, :, ::-1]
    assert np.array_equal(cut_patches(view, **QWEN)[0], cut_patches(view.copy(), **QWEN)[0])


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match="multiples of 28"):
        cut_patches(noise(2, 30, 28), **QWEN)
    with pytest.raises(ValueError, match=r"float32; accepted is \(F, H, W, 3\) uint8"):
        cut_patches(noise(2, 28, 28).astype(np.float32), **QWEN)
    with pytest.raises(ValueError, match="accepted"):
        cut_patches(noise(2, 28, 28)[:0], **QWEN)
    with pytest.raises(ValueError, match="pass what cut_patches gives"):
        GVEVideoProcessor().normalise(torch.zeros(2, 6))
