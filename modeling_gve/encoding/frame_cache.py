"""FrameCache: decoded frames at the model's size on disk, found by what a file holds and how it is sampled.

Raw bytes and not JPEG: they are seven times as large, read fifty times as fast, and give the same vectors to the last
bit, which JPEG of the best quality does not.

Shape legend: F frames, H height, W width.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gve.frames_gve import DecodedVideo, parse_video
from gve.inputs_gve import ParsedInput
from gve.media_gve import local_source, located
from gve.plan_gve import media_of

VERSION = 2
"""Goes up when the reader gives other frames than before: then what is kept is of no use."""

CHUNK = 1 << 20


class FrameCache:
    """Decoded frames on disk; several threads and processes may share a folder.

    A file is known by a digest of all its bytes, so a changed file is a new one. The least recently used frames are
    evicted first.
    """

    def __init__(self, folder: str | PathLike[str], *, limit: int = 64 << 30) -> None:
        if limit < 1:
            raise ValueError(
                f"limit: got {limit}; accepted are bytes, 1 and more; leave the cache out to keep nothing"
            )
        self.folder, self.limit = Path(folder), limit
        self.hits = self.misses = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._held = sum(size for *_, size in self._entries())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    def with_frames(self, row: ParsedInput, processor: Any, options: dict[str, Any]) -> ParsedInput:
        """Replace an input's video files by decoded frames; `options` are the arguments of `processor.prepare`."""
        reader, videos = processor.video_processor, []
        count, size = reader.frames_wanted(options["num_frames"]), reader.budget(options["video_size"])
        for kind, place, video in media_of(row, 0):
            if kind == "video":
                with located(place):
                    form = parse_video(video)
                    videos.append(form if form.file is None else self.get(reader, form.file, count=count, size=size))
        return row._replace(videos=videos)

    def get(self, reader: Any, video: Any, *, count: int, size: dict[str, int]) -> DecodedVideo:
        """A file's frames at the model's `size` (its edges in pixels), from the cache or decoded and then cached."""
        source = local_source(video)
        if isinstance(source, (str, PathLike)) and not Path(source).is_file():
            return reader.load(video, num_frames=count, size=size)  # which says what is wrong with it
        before = _stamp(source)
        plan = (VERSION, count, size["shortest_edge"], size["longest_edge"], reader.patch_size * reader.merge_size)
        key = _digest(source, repr(plan).encode())
        target = self.folder / key[:2] / f"{key}.safetensors"
        found = _read(target)
        with self._lock:
            self.hits += found is not None
            self.misses += found is None
        if found is None:
            found = reader.load(video, num_frames=count, size=size)
            if _stamp(source) == before:  # else the frames may not belong to the digest's content
                self._keep(target, found)
        return found

    def _keep(self, target: Path, clip: DecodedVideo) -> None:
        clock = json.dumps({"timestamps": clip.times, "interval": clip.interval})
        content = save({"frames": np.ascontiguousarray(clip.frames)}, {"clip": clock})
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        with self._lock:
            self._held += len(content)
            if self._held > self.limit:
                self._evict()

    def _evict(self) -> None:
        """Delete what was used longest ago until a tenth of the limit is free; other processes may delete too."""
        entries = sorted(self._entries())
        self._held = sum(size for *_, size in entries)
        for _, path, size in entries:
            if self._held <= self.limit * 0.9:
                break
            Path(path).unlink(missing_ok=True)
            self._held -= size

    def _entries(self) -> Iterator[tuple[int, str, int]]:
        """Time of last use, path and bytes of each."""
        for path in self.folder.glob("*/*.safetensors"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process has deleted it
                continue
            yield stat.st_mtime_ns, str(path), stat.st_size


def _read(target: Path) -> DecodedVideo | None:
    """What is kept; None where there is nothing, or nothing that can be read."""
    try:
        with safe_open(target, framework="numpy") as stored:
            clock = json.loads(stored.metadata()["clip"])
            frames = stored.get_tensor("frames")
        os.utime(target)
    except (OSError, SafetensorError):
        return None
    # choosing a size for frames that have one may give another one
    return DecodedVideo(frames, clock["interval"], clock["timestamps"], sized=True)


def _stamp(source: Any) -> tuple[int, int] | None:
    """What changes when a file on disk is written."""
    if not isinstance(source, (str, PathLike)):
        return None
    stat = Path(source).stat()
    return stat.st_size, stat.st_mtime_ns


def _digest(source: Any, salt: bytes) -> str:
    """A digest of all bytes of a source."""
    digest = hashlib.blake2b(salt, digest_size=20)
    if isinstance(source, (bytes, bytearray, memoryview)):
        digest.update(source)
    elif isinstance(source, (str, PathLike)):
        with Path(source).open("rb") as file:
            _feed(digest, file)
    else:
        source.seek(0)
        _feed(digest, source)
        source.seek(0)
    return digest.hexdigest()


def _feed(digest: Any, file: Any) -> None:
    while chunk := file.read(CHUNK):
        digest.update(chunk)
