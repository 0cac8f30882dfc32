"""Decoded media kept in memory or on disk, so that each file is decoded once.

Shapes: F frames, H height, W width.
"""

from collections import OrderedDict
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import PIL.Image

from gve.frame_cache import FrameCache
from gve.frames_gve import Clip
from gve.image_gve import open_image
from gve.video_processing_gve import GVEVideoProcessor

CHUNK = 1 << 20


class DecodedCache:
    """Turns encoded videos into (F, H, W, 3) uint8 frames at the model's size, and encoded images into PIL images.

    What was used longest ago leaves the memory first. A copy that goes to another process starts with none.

    Args:
        video_processor: Reads and samples videos; it says what the model's size is.
        limit: Bytes of decoded media to keep in memory; 0 keeps nothing.
        frames: Keeps the frames of videos on disk, for all processes and runs; None keeps none.
    """

    def __init__(self, video_processor: GVEVideoProcessor, limit: int, frames: FrameCache | None = None) -> None:
        self.video_processor, self.limit, self.frames, self.held = video_processor, limit, frames, 0
        self._media: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"held": 0, "_media": OrderedDict()}

    def __len__(self) -> int:
        return len(self._media)

    def video(self, source: dict[str, Any]) -> Clip:
        """Sampled frames of a video.

        Args:
            source: {"bytes", "path"}, one of them set.

        Returns:
            Frames at the model's size, to be resized no more: choosing a size twice may give another one.
        """
        return self._get("video", source)

    def image(self, source: dict[str, Any]) -> PIL.Image.Image:
        """An RGB image.

        Args:
            source: {"bytes", "path"}, one of them set.

        Returns:
            The image at its own size.
        """
        return self._get("image", source)

    def _get(self, kind: str, source: dict[str, Any]) -> Any:
        if not self.limit:
            return self._decode(kind, source)[0]
        key = (kind, media_key(source))
        if key in self._media:
            self._media.move_to_end(key)
            return self._media[key][0]
        decoded, size = self._decode(kind, source)
        if size <= self.limit:
            self._media[key] = (decoded, size)
            self.held += size
        while self.held > self.limit:
            self.held -= self._media.popitem(last=False)[1][1]
        return decoded

    def _decode(self, kind: str, source: dict[str, Any]) -> tuple[Any, int]:
        if kind == "image":
            image = open_image(source)
            return image, image.width * image.height * 3
        reader = self.video_processor
        if self.frames is None:
            clip = reader.load(source, size=reader.size)
        else:
            clip = self.frames.get(reader, source, count=reader.frames_wanted(None), size=reader.size)
        return clip, clip.frames.nbytes


def media_key(source: dict[str, Any]) -> str:
    """What tells one encoded file from another: a digest of its bytes, else its path.

    Args:
        source: {"bytes", "path"}.

    Returns:
        A short string.

    Raises:
        ValueError: Where neither is set.
    """
    if source["bytes"] is not None:
        return blake2b(source["bytes"], digest_size=16).hexdigest()
    if source["path"] is None:
        raise ValueError("media: got neither bytes nor path; one of them is needed; write the row again")
    return source["path"]


def content_key(source: dict[str, Any]) -> str:
    """What tells one content from another, whatever form it comes in.

    Args:
        source: {"bytes", "path"}.

    Returns:
        A digest of all bytes.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: Where neither is set.
    """
    if source["bytes"] is not None or source["path"] is None:
        return media_key(source)
    stat = Path(source["path"]).stat()
    return _digest_of(source["path"], stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _digest_of(path: str, size: int, changed: int) -> str:
    """The digest of a file, read again when its size or time says that it was written."""
    digest = blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
