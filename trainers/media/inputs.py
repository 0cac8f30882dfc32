"""Images and videos of a batch to the tensors of the model; what the feature store holds is not even decoded.

Shapes: B rows, M images or videos of one kind, S their patches, P values a patch, V their vision tokens, W values of the
vision tower a token, L bytes of a label.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from gve.frames_gve import Clip
from gve.inputs_gve import located
from gve.processing_gve import MAX_LENGTH, GVEProcessor
from gve.trainers.media.feature_store import FeatureStore, Stored
from gve.trainers.media.frame_cache import DecodedCache, content_key

PATCHES = {"image": "pixel_values", "video": "pixel_values_videos"}


class Medium(NamedTuple):
    """One image or video.

    Attributes:
        kind: "image" or "video".
        content: A decoded image or video; None where features are known.
        stored: Features of the vision tower, or None where they are not known.
        key: Its content's name in the feature store; "" without one.
    """

    kind: str
    content: PIL.Image.Image | Clip | None
    stored: Stored | None = None
    key: str = ""

    @property
    def clip(self) -> Clip:
        """The times of a video, with its frames unless its features are known."""
        if self.stored is None:
            return self.content
        return Clip(np.empty(0), self.stored.interval, self.stored.times, sized=True)


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

        Returns:
            The medium.

        Raises:
            FileNotFoundError: If the path does not exist.
            ValueError: If it cannot be read.
        """
        key, stored = "", None
        if self.store is not None:
            key = f"{kind}-{content_key(source)}"
            stored = self.store.get(key)
        if stored is not None:
            return Medium(kind, None, stored, key)
        return Medium(kind, self.decoded.image(source) if kind == "image" else self.decoded.video(source), None, key)

    def column(
        self,
        side: Sequence[Mapping[str, Any]],
        instruction: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """The model's inputs of one side of a batch, as `processor.prepare` makes them.

        With a feature store, patches are those of the media that it does not hold, `image_embeds` and `video_embeds`
        are features of the others, and `image_known` and `image_labels` (and those of videos) tell them apart, which
        `VisionCache.complete` needs.

        Args:
            side: B times {"text", "image", "video"}.
            instruction: System messages, or None for the default one.
            max_length: Tokens of a row; None takes the processor's.

        Returns:
            Tensors by name.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If a medium cannot be read, or a row is empty, or too long without its text.
        """
        rows = []
        for number, parts in enumerate(side):
            media = []
            for kind in ("video", "image"):  # the order within a row
                if parts[kind] is not None:
                    with located(f"inputs[{number}][{kind!r}]"):
                        media.append(self.read(kind, parts[kind]))
            if not media and not (parts["text"] or "").strip():
                raise ValueError(
                    f"inputs[{number}]: got no words, no image and no video; accepted is at least one of them; leave the "
                    "row out"
                )
            rows.append(media)
        tensors: dict[str, Tensor] = {}
        for kind in PATCHES:
            found = [medium for media in rows for medium in media if medium.kind == kind]
            tensors |= self.tensors(found) if found else {}
        return self.tokens([parts["text"] for parts in side], rows, tensors, instruction, max_length) | tensors

    def tensors(self, media: Sequence[Medium], *, as_bytes: bool = False) -> dict[str, Tensor]:
        """Patches, grids and seconds of some media of one kind.

        Args:
            media: M, at least one.
            as_bytes: Whether patches of videos stay uint8; see `GVEVideoProcessor.normalise`.

        Returns:
            Tensors by name: (M, 3) grids; (S, P) patches of those without features; with a feature store also (V, W)
            features of the others, (M,) bool `*_known` and (M, L) `*_labels`.
        """
        kind, processor = media[0].kind, self.processor
        fresh = [medium.content for medium in media if medium.stored is None]
        data: dict[str, Tensor] = {}
        if fresh and kind == "image":
            data = dict(processor.image_processor(fresh, return_tensors="pt"))
        elif fresh:
            data = dict(processor.video_processor.tensors(fresh, as_bytes=as_bytes))
            del data["second_per_grid_ts"]
        made = iter(data.pop(f"{kind}_grid_thw").tolist() if fresh else [])
        grids = [next(made) if medium.stored is None else list(medium.stored.grid) for medium in media]
        data[f"{kind}_grid_thw"] = torch.tensor(grids)
        if kind == "video":
            seconds = [processor.video_processor.seconds_per_grid(medium.clip) for medium in media]
            data["second_per_grid_ts"] = torch.tensor(seconds)
        if self.store is None:
            return data
        if len(fresh) < len(media):
            data[f"{kind}_embeds"] = torch.cat([medium.stored.features for medium in media if medium.stored])
        data[f"{kind}_known"] = torch.tensor([medium.stored is not None for medium in media])
        data[f"{kind}_labels"] = labels_of(media)
        return data

    def tokens(
        self,
        texts: Sequence[str | None],
        rows: Sequence[Sequence[Medium]],
        tensors: Mapping[str, Tensor],
        instruction: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """Ids of a batch, as `processor.prepare` makes them, from the grids of its media.

        Args:
            texts: B texts; None for a row without one.
            rows: Media of each row, in order.
            tensors: Grids of all images, and of all videos, in the order of the rows.
            instruction: System messages, or None for the default one.
            max_length: Tokens of a row; None takes the processor's.

        Returns:
            `input_ids`, `attention_mask` and `mm_token_type_ids`.
        """
        processor, chat = self.processor, self.processor.chat
        names = [f"{kind}_grid_thw" for kind in PATCHES]
        grids = {
            kind: iter(tensors[name].tolist()) for kind, name in zip(PATCHES, names, strict=True) if name in tensors
        }
        ids = []
        for media in rows:
            seen: list[int] = []
            for medium in media:
                grid = next(grids[medium.kind])
                seen += processor.image_ids(grid) if medium.kind == "image" else processor.video_ids(grid, medium.clip)
            ids.append(seen)
        systems = [None] * len(texts) if instruction is None else instruction
        limit = MAX_LENGTH if max_length is None else max_length
        return chat.pad(chat.finish_rows(chat.row_ids(texts, systems, ids), limit))


def labels_of(media: Sequence[Medium]) -> Tensor:
    """What the feature store must know of media beside their features; tensors alone travel with a batch.

    Args:
        media: M of one kind.

    Returns:
        (M, L) uint8, JSON of key, seconds between frames, and times; padded with spaces.
    """
    texts = []
    for medium in media:
        clip = medium.clip if medium.kind == "video" else Clip(np.empty(0), 0.0, [])
        texts.append(json.dumps([medium.key, clip.interval, list(clip.times)]).encode())
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
