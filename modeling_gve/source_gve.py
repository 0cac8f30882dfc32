"""Where a video comes from: a path, bytes, a file object, a `datasets` row, or an allowed URL."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .limits_gve import Limits, over_limit, unreadable

VideoSource = str | PathLike[str] | bytes | io.IOBase | dict[str, Any]
"""A path, encoded bytes, an open binary file, or a `datasets` row {"bytes", "path"}."""

HEAD = 192
"""First bytes of a file that its kind is told from: one MPEG-TS packet and a bit."""

PATTERN = frozenset("%*?[]{}")
"""Characters that FFmpeg's picture reader takes for a pattern over several files."""


def source_name(source: VideoSource) -> str:
    """A name for messages.

    Args:
        source: Any accepted source.

    Returns:
        The path, or what kind of source it is.
    """
    if isinstance(source, dict):
        return str(source.get("path") or "<bytes>")
    if isinstance(source, (str, PathLike)):
        return fspath(source)
    return "<bytes>" if isinstance(source, bytes) else str(getattr(source, "name", "<file object>"))


class Opened:
    """A source that can be handed to a demuxer any number of times.

    Args:
        name: A name for messages.
        file: A path, or a seekable binary file.
        size: Bytes in it.
    """

    def __init__(self, name: str, file: "str | Nameless", size: int) -> None:
        self.name = name
        self.file = file
        self.size = size
        if isinstance(file, str):
            try:
                with Path(file).open("rb") as opened:
                    self.head = opened.read(HEAD)
            except OSError as error:
                raise unreadable(name, f"cannot be opened ({error.strerror})") from error
        else:
            self.head = self.rewound().read(HEAD)

    def rewound(self) -> Any:
        """The path, or the file at its start."""
        if not isinstance(self.file, str):
            self.file.seek(0)
        return self.file

    @property
    def animated_webp(self) -> bool:
        """Whether it is a moving WebP picture, which FFmpeg does not decode."""
        head = self.head
        return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)

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
    """A binary file without its name, which a demuxer could take for a pattern.

    Args:
        file: A seekable binary file.
    """

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def open_source(source: VideoSource, limits: Limits) -> Iterator[Opened]:
    """Open a source for reading.

    Args:
        source: A path, bytes, a binary file object, {"bytes", "path"}, or a URL that `limits` allows.
        limits: Bounds on its size, and the URLs that may be read.

    Yields:
        The opened source.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If the source is of another kind, no regular file, empty, too large, or a URL not allowed.
    """
    name = source_name(source)
    if isinstance(source, dict):
        if source.get("bytes") is None and source.get("path") is None:
            raise ValueError("video: got {'bytes': None, 'path': None}; one of them must be set; pass the row's file")
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, str) and "://" in source and not os.path.lexists(source):
        with _url(source, limits) as file:
            yield _of_file(name, file, limits)
        return
    if isinstance(source, (str, PathLike)):
        path = os.path.abspath(_regular(fspath(source)))  # noqa: PTH100 - not resolved: links may change
        if not PATTERN & set(path):
            yield Opened(name, path, _size(name, os.stat(path).st_size, limits))  # noqa: PTH116
            return
        with Path(path).open("rb") as file:
            yield _of_file(name, file, limits)
        return
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield _of_file(name, io.BytesIO(source), limits)
        return
    if not hasattr(source, "read"):
        raise ValueError(
            f"video: got {type(source).__name__}; accepted are a path, bytes, a binary file object, or "
            "{'bytes', 'path'}; decode anything else to an array first"
        )
    yield _of_file(name, source, limits)


def _of_file(name: str, file: Any, limits: Limits) -> Opened:
    try:
        size = file.seek(0, io.SEEK_END)
        first = file.seek(0) or file.read(1)
    except (OSError, AttributeError) as error:
        raise unreadable(name, f"a file object that cannot seek ({error})") from error
    if isinstance(first, str):
        raise unreadable(name, "a file object opened as text")
    return Opened(name, Nameless(file), _size(name, size if size is not None else file.tell(), limits))


def _size(name: str, size: int, limits: Limits) -> int:
    if size > limits.max_bytes:
        raise over_limit(name, f"{size} bytes", "max_bytes")
    if not size:
        raise unreadable(name, "not a video, 0 bytes")
    return size


def _regular(path: str) -> str:
    """The path of a regular file: a pipe or a device would block, or never end."""
    if "\0" in path:
        raise ValueError(f"video: got a path with a NUL character, {path!r}; accepted are names of files; correct it")
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        raise FileNotFoundError(f"video: no file {path!r}; pass a path that exists, or the file's bytes") from None
    except OSError as error:
        raise unreadable(path, f"cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise unreadable(path, f"{kind}, not a regular file")
    return path


@contextmanager
def _url(url: str, limits: Limits) -> Iterator[Any]:
    parts = urlsplit(url)
    prefix = f"{parts.scheme}://{parts.netloc}"
    if prefix not in limits.allow_urls:
        raise ValueError(
            f"video: got the URL {url!r}; accepted are files, and URLs whose 'scheme://host' is in Limits.allow_urls "
            f"(now {list(limits.allow_urls)}); download it, or allow {prefix!r}"
        )
    try:
        import fsspec
    except ImportError as error:
        raise ImportError("URLs need fsspec; install it: pip install fsspec") from error
    # a redirect could lead to a host that is not allowed
    options = {"allow_redirects": False} if parts.scheme in ("http", "https") else {}
    try:
        with fsspec.open(url, "rb", **options) as file:
            yield file
    except FileNotFoundError:
        raise FileNotFoundError(f"video: no file at {url!r}; pass a URL that exists") from None
