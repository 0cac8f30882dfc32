"""Decoded frames to upright RGB of the wanted size, and by what headers alone say of how they are shown.

Shape legend: F frames, H height, W width.
"""

import math
import re
import struct
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import PIL.Image
from av.video.reformatter import Interpolation, VideoReformatter

from .image_gve import upright_rgb
from .media_gve import shown
from .source_gve import Budget, Opened

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

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged, which no turning does."""
        return self.swapped ^ self.leftwards ^ self.upwards

    @property
    def degrees(self) -> int:
        """The counter-clockwise turn that comes before the mirroring from left to right."""
        return (90 if self.upwards else 270) if self.swapped else (180 if self.upwards else 0)


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


def stored_orientation(opened: Opened, container: str, track: int) -> Orientation:
    """How MP4, MOV and Matroska say that a track is shown.

    Demuxers pass it on to the decoder alone, so that without decoding a frame it must be read again.
    """
    read = {"mov": _mp4_matrix, "matroska": _matroska_matrix}.get(container.split(",")[0])
    return Orientation() if read is None else Orientation.of(*read(opened.rewound(), opened.size, track).ravel())


MATROSKA_HEADER = 1 << 18
"""Bytes at the start of a Matroska file that its track headers are looked for in."""


def _matroska_matrix(file: BinaryIO, size: int, track: int) -> np.ndarray:
    """(2, 2) from the pose of a video track's projection; of several tracks' the first, as one file has one camera."""
    header = file.read(min(size, MATROSKA_HEADER)).partition(b"\x1f\x43\xb6\x75")[0]
    yaw, pitch, roll = (_matroska_float(header, name) for name in (b"\x76\x73", b"\x76\x74", b"\x76\x75"))
    if pitch or abs(yaw) not in (0, 180) or not math.isfinite(roll):
        return np.eye(2)
    angle = math.radians(-roll if yaw else roll)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return matrix * [-1, 1] if yaw else matrix


def _matroska_float(header: bytes, name: bytes) -> float:
    found = re.search(re.escape(name) + rb"(?:\x84(.{4})|\x88(.{8}))", header, re.DOTALL)
    if found is None:
        return 0.0
    return struct.unpack(">f", found[1])[0] if found[1] else struct.unpack(">d", found[2])[0]


BOXES = 4096
"""Boxes looked at before giving up on a malformed file."""


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of content and end of the boxes between two places."""
    for _ in range(BOXES):
        file.seek(place)
        header = file.read(16)
        if place + 8 > end or len(header) < 8:
            return
        size, kind = struct.unpack(">I4s", header[:8])
        start = place + 8
        if size == 1 and len(header) == 16:
            size, start = struct.unpack(">Q", header[8:])[0], place + 16
        stop = end if size == 0 else place + size
        if stop <= place or stop > end:
            return
        yield kind, start, stop
        place = stop


def _mp4_matrix(file: BinaryIO, size: int, track: int) -> np.ndarray:
    """(2, 2), the matrix of a track times that of the whole movie."""
    movie = next((box for box in _boxes(file, 0, size) if box[0] == b"moov"), None)
    whole = np.eye(2)
    for kind, start, stop in _boxes(file, *movie[1:]) if movie else ():
        if kind == b"mvhd":
            whole = _matrix(file, start, (36, 48))
        elif kind == b"trak":
            header = next((place for name, place, _ in _boxes(file, start, stop) if name == b"tkhd"), None)
            if header is not None and _track_number(file, header) == track:
                return _matrix(file, header, (40, 52)) @ whole
    return np.eye(2)


def _track_number(file: BinaryIO, place: int) -> int:
    file.seek(place)
    head = file.read(24)
    return struct.unpack_from(">I", head, 20 if head[:1] == b"\1" else 12)[0] if len(head) == 24 else -1


def _matrix(file: BinaryIO, place: int, offsets: tuple[int, int]) -> np.ndarray:
    """The matrix (2, 2) that stands at one offset in version 0 of a header and at the other in version 1."""
    file.seek(place)
    head = file.read(100)
    offset = offsets[head[:1] == b"\1"]
    if len(head) < offset + 20:
        return np.eye(2)
    a, b, _, c, d = struct.unpack_from(">5i", head, offset)
    return np.array([[a, b], [c, d]], np.float64) / (1 << 16)
