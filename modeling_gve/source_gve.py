"""Where a video comes from - a path, bytes, a file object, a `datasets` row, an address - and what reading it may cost."""

import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from .media_gve import HEAD, check_file, content_kind, local_source, located, media_kind, source_name

VideoSource = str | PathLike[str] | bytes | io.IOBase | dict[str, Any]
"""A path, encoded bytes, an open binary file, a `datasets` row {"bytes", "path"}, or a `data:` or `file:` address."""

OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Opening a pipe that nobody writes to must not block."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one file; the defaults let every ordinary video through."""

    max_bytes: int = 64 << 30  # size of the file
    max_pixels: int = 8192 * 4608  # pixels of one decoded frame; 8,192 x 4,608 holds 8K
    max_output: int = 8 << 30  # bytes of all returned frames together
    max_packets: int = 4_000_000  # packets of its video stream; the default is 37 hours of 30 frames a second
    max_streams: int = 64
    timeout: float = 600.0  # seconds of reading, checked between packets, so that one packet may overrun it

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_output", "max_packets", "max_streams", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}; accepted are numbers above 0; leave it out for the default"
                )


def unreadable(name: str, reason: str) -> ValueError:
    """The error for a file that cannot be read."""
    return ValueError(
        f"video: {name!r}: {reason}; accepted are files that FFmpeg decodes; repair or leave out this one"
    )


def over_limit(name: str, what: str, bound: str) -> ValueError:
    """The error for a file that asks for more than the field `bound` of its limits."""
    return ValueError(f"video: {name!r}: {what}; accepted is at most Limits.{bound}; raise it for a file you trust")


class Budget:
    """What reading the file `name` may still spend; every method raises a ValueError once it is too much."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.packets = 0
        self.end = time.monotonic() + limits.timeout

    def spend(self) -> None:
        """Count a packet."""
        self.packets += 1
        if self.packets > self.limits.max_packets:
            raise over_limit(self.name, f"more than {self.limits.max_packets} packets", "max_packets")
        self.tick()

    def tick(self) -> None:
        """Look at the clock."""
        if time.monotonic() > self.end:
            raise over_limit(self.name, f"not read within {self.limits.timeout:g} s", "timeout")

    def frame(self, width: int, height: int) -> None:
        """Check the size of a frame in pixels."""
        if width * height > self.limits.max_pixels:
            raise over_limit(self.name, f"a frame of {width} x {height} pixels", "max_pixels")

    def output(self, count: int, height: int, width: int) -> None:
        """Check the size of `count` frames that will be returned."""
        if count * height * width * 3 > self.limits.max_output:
            raise over_limit(self.name, f"{count} frames of {width} x {height} pixels to return", "max_output")


class Opened:
    """A source opened once, to be read any number of times; FFmpeg reads a `descriptor` without Python in between."""

    def __init__(self, name: str, file: Any, limits: Limits, descriptor: int | None = None) -> None:
        self.name = name
        self.file = file
        self.descriptor = descriptor
        try:
            size = file.seek(0, io.SEEK_END)
            self.size: int = file.tell() if size is None else size
            self.head = self.rewound().read(HEAD)
        except (OSError, AttributeError) as error:
            raise unreadable(name, f"a file object that cannot seek ({error})") from error
        if isinstance(self.head, str):
            raise unreadable(name, "a file object opened as text")
        if self.size > limits.max_bytes:
            raise over_limit(name, f"{self.size} bytes", "max_bytes")
        if not self.size:
            raise unreadable(name, "not a video, 0 bytes")
        kind = content_kind(self.head)
        if kind is None and self.head.startswith(b"\x89PNG"):
            kind = media_kind(file)  # the chunk that says so lies further back
        if kind == "image":
            raise ValueError(
                f"video: got the image {name!r}; accepted is a video; pass {{'image': x}}, or a list of frames"
            )

    def rewound(self) -> Any:
        """The file at its start."""
        self.file.seek(0)
        return self.file

    def demuxed(self) -> tuple[Any, dict[str, str]]:
        """What FFmpeg opens, and the options that go with it; never a name, which could be taken for a pattern."""
        file = self.rewound()
        if self.descriptor is None:
            return Nameless(file), {"protocol_whitelist": ""}
        return "fd:", {"fd": str(self.descriptor), "protocol_whitelist": "fd"}

    @property
    def webp(self) -> bool:
        """Whether it is a WebP picture, which FFmpeg opens but does not decode where it moves."""
        return self.head[8:12] == b"WEBP"

    @property
    def animation(self) -> bool:
        """Whether it is a picture that moves, which Pillow reads as it reads still ones."""
        head = self.head
        return self.webp or head.startswith((b"GIF8", b"\x89PNG")) or head[4:12] == b"ftypavis"

    @property
    def indexed(self) -> bool:
        """Whether it is an MP4 or MOV file, which has a table of its frames."""
        return self.head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")

    @property
    def timed(self) -> bool:
        """Whether the container stores a presentation time with every frame, so that opening may skip the probing."""
        head = self.head
        stream = head[:1] == b"G" and head[188:189] == b"G"  # the synchronising bytes of MPEG-TS
        return self.indexed or stream or head.startswith((b"\x1aE\xdf\xa3", b"FLV"))


class Nameless:
    """A binary file without its name and descriptor."""

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def open_source(source: VideoSource, limits: Limits) -> Iterator[Opened]:
    """Open a source once, for as many readings as it takes."""
    name, source = source_name(source), local_source(source)
    if isinstance(source, (str, PathLike)):
        with _regular(name, fspath(source)) as file:
            before = os.fstat(file.fileno())
            opened = Opened(name, file, limits, file.fileno())
            try:
                yield opened
            except ValueError:
                _check_unchanged(opened, before)
                raise
            _check_unchanged(opened, before)
    elif isinstance(source, bytes):
        yield Opened(name, io.BytesIO(source), limits)
    elif hasattr(source, "read"):
        yield Opened(name, source, limits)
    else:
        raise ValueError(
            f"video: got {type(source).__name__}; accepted are a path, bytes, a binary file object, or "
            "{'bytes', 'path'}; decode anything else to an array first"
        )


def _regular(name: str, path: str) -> io.FileIO:
    """A regular file, opened: a pipe or a device would block, or never end."""
    with located("video"):
        check_file(path)
        try:
            file = io.FileIO(os.open(path, OPEN_FLAGS))
        except OSError as error:
            raise ValueError(f"{name!r} cannot be opened ({error.strerror}); accepted are readable files") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # replaced since it was checked
        file.close()
        raise unreadable(name, "not a regular file")
    return file


def _check_unchanged(opened: Opened, before: os.stat_result) -> None:
    after = os.fstat(opened.file.fileno())
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise unreadable(opened.name, f"changed while it was read, from {before.st_size} to {after.st_size} bytes")
