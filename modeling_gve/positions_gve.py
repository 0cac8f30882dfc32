"""M-RoPE positions of mixed text, image and video rows, computed with numpy.

Shape legend: B batch, T tokens, N tokens of one image or video.

The three axes are time, height and width. Text advances all three together; the tokens of an image or video spread
over the axes from where the text stopped; the text after them goes on at their largest position plus one, as in
transformers 4.49 to 5.2 and in vLLM.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

POSITION_MODES = ("mrope", "stock", "sequential")
"""Accepted values of `GVEConfig.position_mode`; this module computes the first, its default."""

IMAGE, VIDEO = 1, 2
"""Values of `mm_token_type_ids`; 0 is text."""

Grid = Sequence[int]


@lru_cache(maxsize=4096)
def grid_positions(frames: int, height: int, width: int, step: float) -> np.ndarray:
    """(3, N) positions of one image or video that starts at 0; int64, read-only because it is cached.

    Args:
        step: Positions between two steps of the time axis; fractions are dropped after the multiplication.
    """
    time = (np.arange(frames, dtype=np.float32) * np.float32(step)).astype(np.int64)
    axes = np.meshgrid(time, np.arange(height), np.arange(width), indexing="ij")
    positions = np.stack(axes).reshape(3, -1)  # (3, N)
    positions.setflags(write=False)
    return positions


def _runs(types: np.ndarray) -> Iterator[tuple[int, int, int]]:
    edges = [0, *(np.flatnonzero(types[1:] != types[:-1]) + 1).tolist(), len(types)]
    for start, end in pairwise(edges):
        yield int(types[start]), start, end


def row_positions(types: np.ndarray, vision: Sequence[Iterator[np.ndarray]]) -> np.ndarray:
    """(3, T) int64 positions of one unpadded row.

    Args:
        types: (T,), 0 text, 1 image, 2 video.
        vision: Iterators over the `grid_positions` of the images and of the videos.
    """
    if not types.any():
        return np.broadcast_to(np.arange(len(types)), (3, len(types)))
    out = np.empty((3, len(types)), np.int64)
    offset = 0
    for kind, start, end in _runs(types):
        if kind == 0:
            out[:, start:end] = np.arange(offset, offset + end - start)
            offset += end - start
            continue
        grid = next(vision[kind - 1], None)
        if grid is None or grid.shape[1] != end - start:
            raise ValueError(
                f"{'image' if kind == IMAGE else 'video'}_grid_thw: {0 if grid is None else grid.shape[1]} tokens "
                f"expected where input_ids hold {end - start}; pass the grids in the order of the rows"
            )
        np.add(grid, offset, out=out[:, start:end])
        offset = int(out[:, start:end].max()) + 1
    return out


def mrope_positions(
    types: np.ndarray,
    mask: np.ndarray,
    *,
    image_grids: Sequence[Grid],
    video_grids: Sequence[Grid],
    seconds: Sequence[float] | None,
    merge: int,
    tokens_per_second: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a padded batch, about 20 microseconds a row.

    Args:
        types: (B, T), 0 text, 1 image, 2 video.
        mask: (B, T), true where a token counts; padding gets position 0.
        image_grids: Patches (time, height, width) of each image, in the order of the rows.
        video_grids: The same for each video.
        seconds: Seconds between two steps of the time axis, one a video; None means 1.
        tokens_per_second: Positions on the time axis a second.

    Returns:
        (3, B, T) positions, and (B,) the largest position plus one minus the row's length.
    """
    steps = [np.float32(1.0)] * len(video_grids) if seconds is None else [np.float32(s) for s in seconds]
    images = iter([grid_positions(t, h // merge, w // merge, 1.0) for t, h, w in image_grids])
    videos = iter(
        [
            grid_positions(t, h // merge, w // merge, float(np.float32(tokens_per_second) * step))
            for (t, h, w), step in zip(video_grids, steps, strict=True)
        ]
    )
    out = np.zeros((3, *types.shape), np.int64)
    deltas = np.zeros(types.shape[0], np.int64)
    for row in range(types.shape[0]):
        keep = np.flatnonzero(mask[row])
        if not len(keep):
            continue
        positions = row_positions(types[row, keep], (images, videos))  # (3, kept)
        out[:, row, keep] = positions
        deltas[row] = positions.max() + 1 - len(keep)
    return out, deltas
