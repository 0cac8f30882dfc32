"""Decoded frames to upright RGB of the wanted size.

Shape legend: F frames, H height, W width.
"""

from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
import PIL.Image
from av.video.reformatter import Interpolation, VideoReformatter

from .arrays_gve import smart_resize
from .image_gve import upright_rgb
from .media_gve import shown
from .source_gve import Budget

RESIZES = ("exact", "fast")

SIDE = 28
"""Pixels of a visual token's side; a size chosen by `max_size` is made of whole tokens."""

FEWEST_TOKENS = 4

SizeRule = Callable[[int, int], tuple[int, int]]
"""(height, width) of the upright picture to (height, width) of the frames."""


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """(F, H, W, 3) uint8 to (F, height, width, 3): bicubic, antialiased, within one or two grey levels of Pillow's."""
    if frames.shape[1:3] == (height, width):
        return frames
    import torch  # the rest of the reader needs none

    # a channels-last view of uint8 is the memory layout of torch's fast kernel; the stride of a single frame, which
    # numpy leaves open, decides whether the result comes out in it too
    _, rows, columns, _ = frames.shape
    strides = (rows * columns * 3, columns * 3, 3, 1)
    planes = torch.from_numpy(np.ascontiguousarray(frames)).as_strided(frames.shape, strides).permute(0, 3, 1, 2)
    out = torch.nn.functional.interpolate(
        planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(out.permute(0, 2, 3, 1).numpy())


def size_rule(size: tuple[int, int] | SizeRule | None, max_size: int | None) -> SizeRule | None:
    """One rule out of the two ways to ask for a size, or None for the video's own; a ValueError if both are given."""
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


class Orientation(NamedTuple):
    """How a stored picture is shown: rows and columns change places, then columns, then rows run backwards."""

    swapped: bool = False
    leftwards: bool = False
    upwards: bool = False

    @classmethod
    def of(cls, a: float, b: float, c: float, d: float) -> "Orientation":
        """The nearest to a display matrix, by which x' = a x + c y and y' = b x + d y; y runs down."""
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, bool(a < 0), bool(d < 0))
        return cls(True, bool(c < 0), bool(b < 0))

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, C) as it is shown."""
        if not any(self):
            return picture
        picture = picture.swapaxes(0, 1) if self.swapped else picture
        return np.ascontiguousarray(picture[:: -1 if self.upwards else 1, :: -1 if self.leftwards else 1])

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged, which no turning does."""
        return self.swapped ^ self.leftwards ^ self.upwards

    @property
    def degrees(self) -> int:
        """The counter-clockwise turn that comes before the mirroring from left to right."""
        return (90 if self.upwards else 270) if self.swapped else (180 if self.upwards else 0)


def frame_orientation(frame: av.VideoFrame) -> Orientation:
    """How a decoded frame is shown, by the display matrix of its container or its own."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()
    return Orientation.of(a, b, c, d)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether pixels may be transparent."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def frame_rgb(frame: av.VideoFrame, reformatter: VideoReformatter | None = None) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8, upright, white behind transparent pixels as in still pictures."""
    reformatter = reformatter or VideoReformatter()
    if has_alpha(frame):
        rgba = reformatter.reformat(frame, format="rgba", threads=1).to_ndarray()
        rgb = np.array(upright_rgb(PIL.Image.fromarray(rgba)))
    else:
        rgb = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return frame_orientation(frame).apply(rgb)


class Converter:
    """Turns frames of one video into arrays of one size; the first frame converted decides it.

    Pixels are taken as square. The matrix and range that the file names are obeyed, as by every
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
            raise ValueError(f"resize: got {shown(resize)}; accepted are {RESIZES}; the default is 'exact'")
        self.rule = rule
        self.fast = resize == "fast"
        self.count = count
        self.budget = budget
        self.shape: tuple[int, int] | None = None
        self.reformatter = VideoReformatter()

    def choose(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of all frames, from the upright size of this one; a ValueError if it exceeds the limits."""
        self.budget.frame(width, height)
        if self.shape is None:
            shape = self.rule(height, width) if self.rule else (height, width)
            self.budget.output(self.count, *shape)
            self.shape = shape
        return self.shape

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """A decoded frame as (H, W, 3) uint8."""
        orientation = frame_orientation(frame)
        upright = (frame.width, frame.height) if orientation.swapped else (frame.height, frame.width)
        height, width = self.choose(*upright)
        if self.fast and (height, width) != upright and not has_alpha(frame):
            return orientation.apply(
                self._shrunk(frame, *((width, height) if orientation.swapped else (height, width)))
            )
        return resize_frames(frame_rgb(frame, self.reformatter)[None], height, width)[0]

    def _shrunk(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
        # planes cost half of packed pixels in swscale, and come out nearer to the true colours
        small = self.reformatter.reformat(
            frame, width=width, height=height, format="gbrp", interpolation=Interpolation.BICUBIC, threads=1
        )
        out = np.empty((height, width, 3), np.uint8)
        for channel, plane in zip((1, 2, 0), small.planes, strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            out[..., channel] = rows[:height, :width]
        return out
