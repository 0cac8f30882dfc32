"""Decoded media kept in memory, so that each worker decodes each file once.

Shapes: F frames, H height, W width.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Any

import PIL.Image

from gve.media_gve import open_image
from gve.video_gve import Frames
from gve.video_processing_gve import GVEVideoProcessor


class DecodedCache:
    """Turns encoded videos into (F, H, W, 3) uint8 frames at the model's size, and encoded images into PIL images.

    What was used longest ago leaves first. A copy that goes to another process starts empty.

    Args:
        video_processor: Reads and samples videos; it says what the model's size is.
        limit: Bytes of decoded media to keep; 0 keeps nothing.
    """

    def __init__(self, video_processor: GVEVideoProcessor, limit: int) -> None:
        self.video_processor, self.limit, self.held = video_processor, limit, 0
        self._media: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"video_processor": self.video_processor, "limit": self.limit, "held": 0, "_media": OrderedDict()}

    def __len__(self) -> int:
        return len(self._media)

    def video(self, source: dict[str, Any]) -> Frames:
        """Sampled frames of a video.

        Args:
            source: {"bytes", "path"}, one of them set.

        Returns:
            Frames at the model's size with their times.
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
        clip = self.video_processor.load(source, size=self.video_processor.size)
        return Frames(clip.frames, clip.times, clip.interval * len(clip.frames)), clip.frames.nbytes


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
