"""Decoded frames to upright RGB of the wanted size, and by what headers alone say of how they are shown.

Shape legend: F frames, H height, W width.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
import PIL.Image
from av.video.reformatter import Interpolation, VideoReformatter

from .image_gve import upright_rgb
from .media_gve import shown
from .source_gve import Budget

RESIZES = ("exact", "fast")

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


_LOCAL = threading.local()


def frame_orientation(frame: av.VideoFrame) -> Orientation:
    """How a decoded frame is shown, by the display matrix of its container or its own."""
    # a frame whose side data was read refers to itself and keeps the decoder's memory until the next collection
    # of garbage; a copy of 2 x 2 pixels carries the same data
    if not hasattr(_LOCAL, "reformatter"):
        _LOCAL.reformatter = VideoReformatter()
    small = _LOCAL.reformatter.reformat(frame, 2, 2, format="gray", interpolation=Interpolation.POINT, threads=1)
    matrix = small.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()
    return Orientation.of(a, b, c, d)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether pixels may be transparent."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def frame_rgb(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8, upright, white behind transparent pixels as in still pictures."""
    return frame_orientation(frame).apply(_stored_rgb(frame, VideoReformatter()))


def _stored_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    if has_alpha(frame):
        rgba = reformatter.reformat(frame, format="rgba", threads=1).to_ndarray()
        return np.array(upright_rgb(PIL.Image.fromarray(rgba)))
    return reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()


class Converter:
    """Turns frames of one video into arrays of one size; the first frame converted decides it.

    Pixels are taken as square. The matrix and range named by the file are obeyed, as by every reader on FFmpeg; high
    dynamic range is not mapped to the standard one.

    Args:
        rule: Maps the upright size to the size of the frames; None keeps it.
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
        self.orientations: dict[float, Orientation] = {}

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
        orientation = self._orientation(frame)
        upright = (frame.width, frame.height) if orientation.swapped else (frame.height, frame.width)
        height, width = self.choose(*upright)
        if self.fast and (height, width) != upright and not has_alpha(frame):
            return orientation.apply(
                self._shrunk(frame, *((width, height) if orientation.swapped else (height, width)))
            )
        rgb = orientation.apply(_stored_rgb(frame, self.reformatter))
        return resize_frames(rgb[None], height, width)[0]

    def _orientation(self, frame: av.VideoFrame) -> Orientation:
        """Looked up once for each rotation, which a frame knows; a mirror alone does not show there, and none begins midway."""
        if frame.rotation not in self.orientations:
            self.orientations[frame.rotation] = frame_orientation(frame)
        return self.orientations[frame.rotation]

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
