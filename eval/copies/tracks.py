"""Fingerprints of files along their time, from V-SynFlow's decoding in a child process.

Shapes: F hashed frames, V views, F' viewed frames; a hash has 32 bytes.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from gve.eval.console import printable
from gve.hub_datasets.files import content_digest
from gve.hub_datasets.vsynflow.quality.worker import VideoError, WorkerError, video_worker
from gve.media_gve import media_kind

_DEADLINE, _BYTES_A_SECOND = 120.0, 1 << 20  # how long a file may take to decode: so many seconds, and by its size


class View(NamedTuple):
    """What a copy shows of the picture, in shares of its sides."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    mirrored: bool = False

    @property
    def cut(self) -> float:
        """Share of the area that it does not show."""
        return 1 - (self.right - self.left) * (self.bottom - self.top)


# a hash bears that its picture is cut by 2 % more or less
_CUTS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
VIEWS = tuple(View(cut, cut, 1 - cut, 1 - cut, mirrored) for mirrored in (False, True) for cut in _CUTS)
"""The whole picture and its middle, also mirrored: what copies are searched for without being told."""


@dataclass
class Track:
    """One file; times are in seconds, of an image 0."""

    path: str
    kind: str  # "video" or "image"
    bytes: int
    changed: float  # time of change
    digest: str
    width: int = 0
    height: int = 0
    duration: float = 0.0
    step: float = 0.0  # between hashed frames
    picture: float = 1.0  # share of the frame within black bars
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (F,)
    hashes: np.ndarray = field(default_factory=lambda: np.zeros((0, 32), np.uint8))  # (F, 32)
    viewed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (F',) places among F
    views: np.ndarray = field(default_factory=lambda: np.zeros((len(VIEWS), 0, 32), np.uint8))  # (V, F', 32)


def read_tracks(paths: Iterable[str | Path]) -> tuple[list[Track], dict[str, str], dict[str, str]]:
    """Fingerprint files; of those with the same bytes only one is decoded.

    Returns:
        The tracks, why files have none, and links: further names of a file by path, with the first name.
    """
    tracks: dict[tuple[int, int], Track] = {}
    decoded: dict[str, Track] = {}
    unread: dict[str, str] = {}
    links: dict[str, str] = {}
    for path in tqdm(list(map(str, paths)), desc="fingerprint", unit="file", delay=2):
        try:
            stat = os.stat(path)  # noqa: PTH116 - a path of an index may be no name for a Path
            file = (stat.st_dev, stat.st_ino)
            if file in tracks:
                links[path] = tracks[file].path
                continue
            digest = content_digest(path)
            track = Track(path, media_kind(path) or "video", stat.st_size, stat.st_mtime, digest)
            if digest in decoded:
                vars(track).update({**vars(decoded[digest]), "path": path, "changed": stat.st_mtime})
            else:
                vars(track).update(hash_views(track, VIEWS))
        except (OSError, VideoError, WorkerError) as error:
            unread[path] = printable(str(error) if not isinstance(error, OSError) else error.strerror or error)
            continue
        tracks[file] = decoded[digest] = track
    return list(tracks.values()), unread, links


def hash_views(track: Track, views: Sequence[View]) -> dict[str, Any]:
    """Decode a file for its hashes and those of some views; see `fingerprint_track`."""
    place = {"path": track.path, "offset": None, "size": None}
    deadline = _DEADLINE + track.bytes / _BYTES_A_SECOND
    return video_worker().call("fingerprint_track", place, [tuple(view) for view in views], deadline=deadline)
