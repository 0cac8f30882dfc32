"""Decoded frames to upright RGB of the wanted size.

Shape legend: F frames, H height, W width.
"""

from collections.abc import Callable

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import Interpolation, VideoReformatter
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from .limits_gve import Budget

RESIZES = ("exact", "fast")

SIDE = 28
"""Pixels of a visual token's side; a size chosen by `max_size` is made of whole tokens."""

FEWEST_TOKENS = 4

SizeRule = Callable[[int, int], tuple[int, int]]
"""(height, width) of the upright picture to (height, width) of the frames."""


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic, antialiased, in uint8: within one or two grey levels of Pillow's.

    Args:
        frames: (F, H, W, 3), uint8.
        height: New height.
        width: New width.

    Returns:
        (F, height, width, 3), uint8.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    # a channels-last view of uint8 is the memory layout of torch's fast kernel; the stride of a single frame, which
    # numpy leaves open, decides whether the result comes out in it too
    _, rows, columns, _ = frames.shape
    strides = (rows * columns * 3, columns * 3, 3, 1)
    planes = torch.from_numpy(np.ascontiguousarray(frames)).as_strided(frames.shape, strides).permute(0, 3, 1, 2)
    out = F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(out.permute(0, 2, 3, 1).numpy())


def size_rule(size: tuple[int, int] | SizeRule | None, max_size: int | None) -> SizeRule | None:
    """One rule out of the two ways to ask for a size.

    Args:
        size: (height, width), a rule, or None.
        max_size: Most pixels a frame, or None.

    Returns:
        A rule, or None for the video's own size.

    Raises:
        ValueError: If both are given, or one is not positive.
    """
    if max_size is not None:
        if size is not None or max_size < FEWEST_TOKENS * SIDE**2:
            raise ValueError(
                f"max_size: got {max_size} with size={size}; accepted are {FEWEST_TOKENS * SIDE**2} pixels and more "
                "without a size; leave one out"
            )
        return lambda height, width: smart_resize(height, width, SIDE, FEWEST_TOKENS * SIDE**2, max_size)
    if size is None or callable(size):
        return size
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size: got {tuple(size)}; accepted is (height, width) of 1 pixel and more; correct it")
    return lambda *_: (height, width)


class Converter:
    """Turns frames of one video into arrays of one size; the first frame converted decides it.

    Pixels are taken as square and alpha is dropped. The matrix and range that the file names are obeyed, as by every
    reader on FFmpeg; high dynamic range is not mapped to the standard one.

    Args:
        rule: Size of the frames from that of the upright picture, or None to keep it.
        resize: "exact" resizes the full RGB picture as `resize_frames`; "fast" lets the colour conversion resize, at
            half the cost, one level brighter.
        count: Frames that will be returned, checked against the limits once their size is known.
        budget: The limits.
    """

    def __init__(self, rule: SizeRule | None, resize: str, count: int, budget: Budget) -> None:
        if resize not in RESIZES:
            raise ValueError(f"resize: got {resize!r}; accepted are {RESIZES}; the default is 'exact'")
        self.rule = rule
        self.fast = resize == "fast"
        self.count = count
        self.budget = budget
        self.shape: tuple[int, int] | None = None
        self.reformatter = VideoReformatter()

    def choose(self, height: int, width: int) -> tuple[int, int]:
        """The size of all frames, from the upright size of this one.

        Args:
            height: Height in pixels.
            width: Width.

        Returns:
            (height, width).

        Raises:
            ValueError: If frames of this size exceed the limits.
        """
        self.budget.frame(width, height)
        if self.shape is None:
            shape = self.rule(height, width) if self.rule else (height, width)
            self.budget.output(self.count, *shape)
            self.shape = shape
        return self.shape

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert a frame.

        Args:
            frame: A decoded frame.

        Returns:
            (H, W, 3), uint8.
        """
        turns = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy turns
        upright = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
        height, width = self.choose(*upright)
        if self.fast and (height, width) != upright:
            return self._shrunk(frame, turns, *((width, height) if turns % 2 else (height, width)))
        rgb = self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        if turns:
            rgb = np.ascontiguousarray(np.rot90(rgb, turns))
        return resize_frames(rgb[None], height, width)[0]

    def _shrunk(self, frame: av.VideoFrame, turns: int, height: int, width: int) -> np.ndarray:
        # planes cost half of packed pixels in swscale, and come out nearer to the true colours
        small = self.reformatter.reformat(
            frame, width=width, height=height, format="gbrp", interpolation=Interpolation.BICUBIC, threads=1
        )
        out = np.empty((height, width, 3), np.uint8)
        for channel, plane in zip((1, 2, 0), small.planes, strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            out[..., channel] = rows[:height, :width]
        return np.ascontiguousarray(np.rot90(out, turns)) if turns else out
