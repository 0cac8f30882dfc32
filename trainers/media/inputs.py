"""Images and videos of a batch on their way to the processor; what the feature store holds is not even decoded.

Shapes: B rows, M images or videos of one kind, S their patches, V their vision tokens, W values of the vision tower a
token, L bytes of a label.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from gve.frames_gve import Clip, Features
from gve.media_gve import located
from gve.processing_gve import GVEProcessor
from gve.trainers.media.feature_store import FeatureStore
from gve.trainers.media.frame_cache import DecodedCache, content_key

PATCHES = {"image": "pixel_values", "video": "pixel_values_videos"}


class Medium(NamedTuple):
    """One image or video.

    Attributes:
        kind: "image" or "video".
        content: A decoded image or video, or its features where they are known.
        key: Its content's name in the feature store; "" without one.
    """

    kind: str
    content: PIL.Image.Image | Clip | Features
    key: str = ""

    @property
    def known(self) -> bool:
        """Whether its features are there."""
        return isinstance(self.content, Features)


class MediaReader:
    """Reads sides of rows; it holds no model, so workers may be spawned.

    Args:
        processor: The embedder's.
        decoded: Decodes media, and keeps some.
        store: Features of the vision tower by content, or None to decode everything.
    """

    def __init__(self, processor: GVEProcessor, decoded: DecodedCache, store: FeatureStore | None = None) -> None:
        self.processor, self.decoded, self.store = processor, decoded, store

    def read(self, kind: str, source: Mapping[str, Any]) -> Medium:
        """One image or video, decoded unless its features are known.

        Args:
            kind: "image" or "video".
            source: {"bytes", "path"}.

        Raises:
            FileNotFoundError: If the path does not exist.
            ValueError: If it cannot be read.
        """
        key, stored = "", None
        if self.store is not None:
            key = f"{kind}-{content_key(source)}"
            stored = self.store.get(key)
        if stored is not None:
            return Medium(kind, stored, key)
        return Medium(kind, self.decoded.image(source) if kind == "image" else self.decoded.video(source), key)

    def column(
        self,
        side: Sequence[Mapping[str, Any]],
        instruction: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """What `processor.prepare` makes of one side of a batch, and with a feature store what `VisionCache` needs.

        Args:
            side: B times {"text", "image", "video"}.
            instruction: System messages, or None for the default one.
            max_length: Tokens of a row; None takes the processor's.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If a medium cannot be read, or a row is empty, or too long without its text.
        """
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
        tensors = dict(self.processor.prepare(rows, instruction=instruction, max_length=max_length))
        return tensors | self.labels(media["image"]) | self.labels(media["video"])

    def tensors(self, media: Sequence[Medium], *, as_bytes: bool = False) -> dict[str, Tensor]:
        """Patches, grids and seconds of M >= 1 media of one kind, as `column` gives them.

        Args:
            media: The media.
            as_bytes: Whether patches of videos stay uint8; see `GVEVideoProcessor.normalise`.
        """
        contents = [medium.content for medium in media]
        if media[0].kind == "image":
            return self.processor.image_tensors(contents) | self.labels(media)
        return self.processor.video_processor.tensors(contents, as_bytes=as_bytes) | self.labels(media)

    def labels(self, media: Sequence[Medium]) -> dict[str, Tensor]:
        """(M,) bool `*_known` and (M, L) `*_labels` of media of one kind; nothing without a feature store."""
        if self.store is None or not media:
            return {}
        kind, known = media[0].kind, torch.tensor([medium.known for medium in media])
        return {f"{kind}_known": known, f"{kind}_labels": labels_of(media)}

    def tokens(
        self,
        side: Sequence[Mapping[str, Any]],
        rows: Sequence[Sequence[tuple[Medium, Sequence[int]]]],
        instruction: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """Ids of one side whose media come beside it.

        Args:
            side: B times {"text"}.
            rows: The media of each row, with their grids.
            instruction: System messages, or None for the default one.
            max_length: Tokens of a row; None takes the processor's.
        """
        shown = [{medium.kind: _place_of(medium, grid) for medium, grid in media} for media in rows]
        inputs = [{"text": parts["text"]} | media for parts, media in zip(side, shown, strict=True)]
        return dict(self.processor.prepare(inputs, instruction=instruction, max_length=max_length))


def _place_of(medium: Medium, grid: Sequence[int]) -> Features:
    """A medium whose features are wanted elsewhere."""
    if medium.kind == "image":
        return Features(None, tuple(grid))
    return Features(None, tuple(grid), medium.content.interval, medium.content.times)


def labels_of(media: Sequence[Medium]) -> Tensor:
    """What the feature store must know of media beside their features; tensors alone travel with a batch.

    Args:
        media: M of one kind.

    Returns:
        (M, L) uint8, JSON of key, seconds between frames, and times; padded with spaces.
    """
    texts = []
    for medium in media:
        clock = (medium.content.interval, list(medium.content.times)) if medium.kind == "video" else (0.0, [])
        texts.append(json.dumps([medium.key, *clock]).encode())
    width = max(map(len, texts))
    return torch.from_numpy(np.stack([np.frombuffer(text.ljust(width), np.uint8) for text in texts]))


def read_label(label: Tensor) -> tuple[str, float, list[float]]:
    """The opposite of `labels_of`, for one medium.

    Args:
        label: (L,) uint8.

    Returns:
        Key, seconds between frames, and times.
    """
    key, interval, times = json.loads(bytes(label.tolist()))
    return key, interval, times
