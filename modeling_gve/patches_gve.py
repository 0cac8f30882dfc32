"""Frames to the flat patches that the vision tower reads: cut as bytes, then normalised in place, here or on a device.

No float copy of a frame is made: bytes are rearranged while they are four times smaller, and the only floats are the
result's own.

Shape legend: F frames, H height, W width, N patches of a video, P values a patch.
"""

from collections.abc import Sequence

import numpy as np
import torch


def cut_patches(frames: np.ndarray, *, side: int, depth: int, merge: int) -> tuple[np.ndarray, list[int]]:
    """Cut frames into patches, in blocks of those that the vision tower merges.

    Args:
        frames: (F, H, W, 3), uint8; where F is no multiple of `depth` the last frame is repeated.
        side: Height and width of a patch in pixels.
        depth: Frames of a patch.
        merge: Patches merged along each side.

    Returns:
        (N, P) uint8, values ordered by channel, frame, row and column, and [patches along time, height, width].

    Raises:
        ValueError: If the frames are not bytes, or not a whole number of merged patches.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames: got {frames.shape} of {frames.dtype}; accepted is (F, H, W, 3) uint8; convert them")
    if frames.shape[1] % (side * merge) or frames.shape[2] % (side * merge):
        raise ValueError(
            f"frames: got {frames.shape[1]} x {frames.shape[2]} pixels; accepted are multiples of {side * merge}; resize"
        )
    if missing := -len(frames) % depth:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    count, height, width, _ = frames.shape
    t, h, w = count // depth, height // side, width // side
    # a row of a patch moves as one item, which is several times faster than its pixels one by one
    rows = np.ascontiguousarray(frames).reshape(count, height, width * 3).view(f"V{side * 3}")
    rows = rows.reshape(t, depth, h // merge, merge, side, w // merge, merge)
    rows = np.ascontiguousarray(rows.transpose(0, 2, 5, 3, 6, 1, 4))  # (t, h/m, w/m, m, m, depth, side)
    pixels = rows.view(np.uint8).reshape(t * h * w, depth * side * side, 3)
    return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(t * h * w, -1), [t, h, w]


def normalise_patches(
    patches: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    rescale_factor: float = 1 / 255,
) -> torch.Tensor:
    """Normalise patches on the device they are on: bytes take a quarter of the way there.

    The operations and their order are those of transformers' fused rescaling and normalisation, so that the values
    are the same to the last bit.

    Args:
        patches: (N, P), uint8.
        mean: Mean of each channel.
        std: Deviation of each channel.
        rescale_factor: What a byte is multiplied by before the mean is taken off.

    Returns:
        (N, P), float32.

    Raises:
        ValueError: If the patches are not bytes.
    """
    if patches.dtype != torch.uint8 or patches.ndim != 2 or patches.shape[1] % 3:
        raise ValueError(
            f"patches: got {tuple(patches.shape)} of {patches.dtype}; accepted is (N, P) uint8 of 3 channels; pass what "
            "cut_patches gives"
        )
    scale = 1 / rescale_factor
    repeats = patches.shape[1] // 3
    means = torch.tensor(mean).mul(scale).repeat_interleave(repeats).to(patches.device)  # (P,)
    stds = torch.tensor(std).mul(scale).repeat_interleave(repeats).to(patches.device)  # (P,)
    return patches.float().sub_(means).div_(stds)
