"""By how much a stored picture is turned for showing, read from the headers of MP4, MOV and Matroska files.

Demuxers pass it to the decoder alone, so that without decoding a frame it must be read again.
"""

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .source_gve import Opened


def stored_rotation(opened: Opened, container: str, track: int) -> int:
    """The rotation that a container stores.

    Args:
        opened: The opened source.
        container: FFmpeg's name of the container.
        track: The container's own number of the track.

    Returns:
        Quarter turns counter-clockwise, 0 to 3; 0 for containers that store none.
    """
    read = {"mov": _mp4_rotation, "matroska": _matroska_rotation}.get(container.split(",")[0])
    if read is None:
        return 0
    file = opened.rewound()
    if isinstance(file, str):
        with Path(file).open("rb") as file:
            return read(file, opened.size, track)
    return read(file, opened.size, track)


MATROSKA_HEADER = 1 << 18
"""Bytes at the start of a Matroska file that its track headers are looked for in."""


def _matroska_rotation(file: BinaryIO, size: int, track: int) -> int:
    """From the roll of a video track's projection; of several tracks' the first, as one file has one camera."""
    file.seek(0)
    header = file.read(min(size, MATROSKA_HEADER)).partition(b"\x1f\x43\xb6\x75")[0]
    found = re.search(rb"\x76\x75(?:\x84(.{4})|\x88(.{8}))", header, re.DOTALL)
    if found is None:
        return 0
    roll = struct.unpack(">f", found[1])[0] if found[1] else struct.unpack(">d", found[2])[0]
    return round(roll / 90) % 4 if math.isfinite(roll) else 0


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


def _mp4_rotation(file: BinaryIO, size: int, track: int) -> int:
    movie = next((box for box in _boxes(file, 0, size) if box[0] == b"moov"), None)
    if movie is None:
        return 0
    quarter = 0
    for kind, start, stop in _boxes(file, *movie[1:]):
        if kind == b"mvhd":
            quarter += _matrix_turn(file, start, (36, 48))
        elif kind == b"trak":
            header = next((place for name, place, _ in _boxes(file, start, stop) if name == b"tkhd"), None)
            if header is not None and _track_number(file, header) == track:
                return (quarter + _matrix_turn(file, header, (40, 52))) % 4
    return quarter % 4


def _track_number(file: BinaryIO, place: int) -> int:
    file.seek(place)
    head = file.read(24)
    return struct.unpack_from(">I", head, 20 if head[:1] == b"\1" else 12)[0] if len(head) == 24 else -1


def _matrix_turn(file: BinaryIO, place: int, offsets: tuple[int, int]) -> int:
    """Quarter turns of the matrix that stands at one offset in version 0 and at the other in version 1."""
    file.seek(place)
    head = file.read(100)
    offset = offsets[head[:1] == b"\1"]
    if len(head) < offset + 8:
        return 0
    a, b = struct.unpack_from(">ii", head, offset)
    return {(1, 0): 0, (0, 1): 3, (-1, 0): 2, (0, -1): 1}.get(((a > 0) - (a < 0), (b > 0) - (b < 0)), 0)
