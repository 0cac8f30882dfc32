"""Images and videos of a batch on their way to the processor; what is kept in a cache is not even decoded.

Shapes: B rows, M images or videos of one kind, S their patches, V their vision tokens, W values of the vision tower a
token, F frames, H height, W width.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
from torch import Tensor

from gve.encoding.frame_cache import FrameCache
from gve.frames_gve import DecodedVideo, Features
from gve.hub_datasets.files import content_digest
from gve.image_gve import open_image
from gve.media_gve import located
from gve.processing_gve import GVEProcessor
from gve.trainers.media.feature_store import FeatureStore
from gve.video_processing_gve import GVEVideoProcessor


class DecodedCache:
    """Turns encoded videos into (F, H, W, 3) uint8 frames at the model's size, and encoded images into PIL images.

    What was used longest ago leaves the memory first. A copy that goes to another process starts with none.

    Args:
        limit: Bytes of decoded media to keep in memory; 0 keeps nothing.
    """

    def __init__(self, video_processor: GVEVideoProcessor, limit: int, frames: FrameCache | None = None) -> None:
        self.video_processor, self.limit, self.frames, self.held = video_processor, limit, frames, 0
        self._media: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"held": 0, "_media": OrderedDict()}

    def __len__(self) -> int:
        return len(self._media)

    def get(self, kind: str, source: Mapping[str, Any]) -> PIL.Image.Image | DecodedVideo:
        """An image or the sampled frames of a video, of {"bytes", "path"} with one of them set."""
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

    def _decode(self, kind: str, source: Mapping[str, Any]) -> tuple[Any, int]:
        if kind == "image":
            image = open_image(source)
            return image, image.width * image.height * 3
        reader = self.video_processor
        if self.frames is None:
            clip = reader.load(source, size=reader.size)
        else:
            clip = self.frames.get(reader, source, count=reader.frames_wanted(None), size=reader.size)
        return clip, clip.frames.nbytes


def media_key(source: Mapping[str, Any]) -> str:
    """A key of one encoded file, {"bytes", "path"}: a digest of its bytes, else its path."""
    if source["bytes"] is not None:
        return blake2b(source["bytes"], digest_size=16).hexdigest()
    if source["path"] is None:
        raise ValueError("media: got neither bytes nor path; one of them is needed; write the row again")
    return source["path"]


def content_key(source: Mapping[str, Any]) -> str:
    """A key of the content, {"bytes", "path"}: a digest of all bytes, also of a file given by path."""
    if source["bytes"] is not None or source["path"] is None:
        return media_key(source)
    stat = Path(source["path"]).stat()
    return _digest_of(source["path"], stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _digest_of(path: str, size: int, changed: int) -> str:
    """The digest of a file, taken again when its size or time has changed."""
    return content_digest(path)


PATCHES = {"image": "pixel_values", "video": "pixel_values_videos"}


class Medium(NamedTuple):
    """One image or video."""

    kind: str  # "image" or "video"
    content: PIL.Image.Image | DecodedVideo | Features  # decoded, or as the tower sees it
    key: str = ""  # its content's name in the feature store; "" without one

    @property
    def known(self) -> bool:
        """Whether its features are known."""
        return isinstance(self.content, Features)


class MediaReader:
    """Reads sides of rows; it holds no model, so workers may be spawned. Without a store everything is decoded."""

    def __init__(self, processor: GVEProcessor, decoded: DecodedCache, store: FeatureStore | None = None) -> None:
        self.processor, self.decoded, self.store = processor, decoded, store

    def read(self, kind: str, source: Mapping[str, Any]) -> Medium:
        """One image or video of {"bytes", "path"}, decoded unless its features are known."""
        key, stored = "", None
        if self.store is not None:
            key = f"{kind}-{content_key(source)}"
            stored = self.store.get(key)
        if stored is not None:
            return Medium(kind, stored, key)
        return Medium(kind, self.decoded.get(kind, source), key)

    def column(
        self,
        side: Sequence[Mapping[str, Any]],
        instruction: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        """What `processor.prepare` makes of one side and, with a feature store, what `VisionCache` needs besides."""
        rows, media = [], {kind: [] for kind in PATCHES}
        for number, parts in enumerate(side):
            row = {"text": parts["text"]}
            for kind in PATCHES:
                if parts[kind] is not None:
                    with located(f"inputs[{number}][{kind!r}]"):
                        media[kind].append(self.read(kind, parts[kind]))
                    row[kind] = media[kind][-1].content
            if len(row) == 1 and not (parts["text"] or "").strip():
                raise ValueError(
                    f"inputs[{number}]: got no words, no image and no video; a pair needs one; drop the row"
                )
            rows.append(row)
        made = dict(self.processor.prepare(rows, instruction=instruction, max_length=max_length))
        return made | self.labels(media["image"], made) | self.labels(media["video"], made)

    def tensors(self, media: Sequence[Medium], *, as_bytes: bool = False) -> dict[str, Any]:
        """Patches, grids and seconds of M >= 1 media of one kind, as `column` gives them."""
        contents = [medium.content for medium in media]
        if media[0].kind == "image":
            made = self.processor.image_tensors(contents)
        else:
            made = self.processor.video_processor.tensors(contents, as_bytes=as_bytes)
        return made | self.labels(media, made)

    def labels(self, media: Sequence[Medium], made: Mapping[str, Tensor]) -> dict[str, list[Any]]:
        """`*_known` and `*_labels` of M media of one kind, beside their grids; nothing without a feature store."""
        if self.store is None or not media:
            return {}
        kind = media[0].kind
        labels = [
            label_of(medium, grid) for medium, grid in zip(media, made[f"{kind}_grid_thw"].tolist(), strict=True)
        ]
        return {f"{kind}_known": [medium.known for medium in media], f"{kind}_labels": labels}

    def tokens(
        self,
        side: Sequence[Mapping[str, Any]],
        rows: Sequence[Sequence[tuple[Medium, Sequence[int]]]],
        instruction: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """Token ids of one side, B times {"text"}, whose media travel separately; see `column` for the rest."""
        shown = [{medium.kind: _place_of(medium, grid) for medium, grid in media} for media in rows]
        inputs = [{"text": parts["text"]} | media for parts, media in zip(side, shown, strict=True)]
        return dict(self.processor.prepare(inputs, instruction=instruction, max_length=max_length))


def _place_of(medium: Medium, grid: Sequence[int]) -> Features:
    """A stand-in for a medium whose features are elsewhere."""
    if medium.kind == "image":
        return Features(None, tuple(grid))
    return Features(None, tuple(grid), medium.content.interval, medium.content.times)


class Label(NamedTuple):
    """What is kept of a medium beside its features."""

    key: str
    grid: list[int]  # patches along time, height and width
    interval: float  # seconds between frames; 0 for an image
    times: list[float]  # of frames


def label_of(medium: Medium, grid: list[int]) -> str:
    """A medium's label as JSON: a text stays on the CPU, where a tensor would go to the device and back."""
    clock = (medium.content.interval, list(medium.content.times)) if medium.kind == "video" else (0.0, [])
    return json.dumps([medium.key, grid, *clock])


def read_label(text: str) -> Label:
    """The same from its JSON."""
    return Label(*json.loads(text))
