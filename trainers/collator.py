"""Rows of UVRD to the inputs of a training step.

Shapes: B rows of a batch, K hard negatives of a row.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gve.encoding.frame_cache import FrameCache
from gve.media_gve import located
from gve.processing_gve import GVEProcessor
from gve.trainers.media.batch_media import TOKENS
from gve.trainers.media.feature_store import FeatureStore
from gve.trainers.media.reader import PATCHES, DecodedCache, MediaReader, Medium, media_key

Row = Mapping[str, Any]
"""A UVRD row, as `gve.hub_datasets.schema.pair_features` types it."""


def match_mask(query_facts: Sequence[Sequence[int]], target_facts: Sequence[Sequence[int]]) -> np.ndarray:
    """(B, B) bool: True at (i, j) where query i states something, and all of it holds for target j."""
    queries, targets = [frozenset(facts) for facts in query_facts], [frozenset(facts) for facts in target_facts]
    mask = np.zeros((len(queries), len(targets)), dtype=bool)
    for i, stated in enumerate(queries):
        if stated:
            mask[i] = [stated <= held for held in targets]
    return mask


class PairCollator:
    """A list of UVRD rows to one flat dict: `query_*`, `target_*`, `reference_*`, `negative_1_*` ..., and `label`.

    Queries carry the instruction of their row in the system message, targets and negatives the default one. `label`
    is the (B, B) match mask of the loss. Only the processor and its cache are held, so workers may be spawned.

    Args:
        reference_negatives: Tasks in which what the query shows, without its words, is a hard negative too.
        store: Features of the vision tower; what it holds is not decoded, see `MediaReader.column`.
        share_media: Whether a batch brings each distinct image and video once, whichever rows and sides show it.
    """

    valid_label_columns = ("label",)
    """What sentence-transformers' data loaders ask of a collator."""

    def __init__(
        self,
        processor: GVEProcessor,
        *,
        num_negatives: int | Mapping[str, int] = 0,
        reference_negatives: Collection[str] = (),
        max_length: int | None = None,
        cache_bytes: int = 0,
        frames: FrameCache | None = None,
        store: FeatureStore | None = None,
        share_media: bool = False,
    ) -> None:
        self.processor, self.num_negatives, self.max_length = processor, num_negatives, max_length
        self.reference_negatives, self.share_media = reference_negatives, share_media
        self.cache = DecodedCache(processor.video_processor, cache_bytes, frames)
        self.reader = MediaReader(processor, self.cache, store)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Tensors by name; `label` is (B, B) bool.

        Where media are shared, a side has its tokens and, if it shows any, `image_places` and `video_places` in the order
        of its rows; `query_media` holds the patches, grids and seconds that these number. What only the CPU reads comes as
        NumPy arrays and lists, which no loader moves to the device.
        """
        columns = self.shared_columns(rows) if self.share_media else self.columns(rows)
        batch = {f"{name}_{key}": value for name, column in columns for key, value in column.items()}
        mask = match_mask([row["query_facts"] for row in rows], [row["target_facts"] for row in rows])
        return batch | {"label": torch.from_numpy(mask)}

    def columns(self, rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The model's inputs of each side: `query`, `target`, perhaps `reference`, `negative_1` to `negative_K`."""
        for name, side, instruction in self._sides(rows):
            yield name, self._prepare(side, instruction)

    def shared_columns(self, rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The same with each distinct image and video of the batch read once."""
        table = MediaTable(self.reader)
        sides = [(name, side, table.rows(side, name), system) for name, side, system in self._sides(rows)]
        media = table.tensors()
        grids = {kind: media[f"{kind}_grid_thw"].tolist() for kind in PATCHES if f"{kind}_grid_thw" in media}
        for name, side, seen, system in sides:
            places = {kind: [place for row in seen for found, place in row if found == kind] for kind in PATCHES}
            places = {kind: np.array(found) for kind, found in places.items() if found}
            shown = [[(table.media[kind][place], grids[kind][place]) for kind, place in row] for row in seen]
            made = self.reader.tokens(side, shown, system, self.max_length)
            column: dict[str, Any] = {key: made[key] for key in TOKENS}
            column |= {f"{kind}_places": found for kind, found in places.items()}
            yield name, column | ({"media": media} if media and name == "query" else {})

    def _sides(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Row], list[str] | None]]:
        """Name, parts and instructions of query, target, reference and negatives."""
        yield "query", [row["query"] for row in rows], [row["instruction"] for row in rows]
        yield "target", [row["target"] for row in rows], None
        if rows[0]["task"] in self.reference_negatives:
            yield "reference", [{**row["query"], "text": None} for row in rows], None
        count = self._count(rows[0]["task"])
        for row in rows if count else ():
            if len(row["negatives"]) < count:
                raise ValueError(
                    f"num_negatives: got {count} for row {row['id']!r}, which has {len(row['negatives'])}; every row "
                    f"of {row['task']} needs as many; lower the number or mine more"
                )
        for k in range(count):
            yield f"negative_{k + 1}", [row["negatives"][k] for row in rows], None

    def side(self, rows: Sequence[Row], name: str) -> dict[str, Any]:
        """The model's inputs of one side."""
        instruction = [row["instruction"] for row in rows] if name == "query" else None
        return self._prepare([row[name] for row in rows], instruction)

    def _count(self, task: str) -> int:
        return self.num_negatives if isinstance(self.num_negatives, int) else self.num_negatives.get(task, 0)

    def _prepare(self, side: Sequence[Row], instruction: list[str] | None = None) -> dict[str, Any]:
        return self.reader.column(side, instruction, self.max_length)


class MediaTable:
    """The distinct images and videos of a batch by kind, in order of first appearance, each read once."""

    def __init__(self, reader: MediaReader) -> None:
        self.reader = reader
        self.media: dict[str, list[Medium]] = {kind: [] for kind in PATCHES}
        self._places: dict[tuple[str, str], int] = {}

    def rows(self, side: Sequence[Row], name: str) -> list[list[tuple[str, int]]]:
        """Kind and place of each medium of each row, B times {"text", "image", "video"}, in the order of the chat."""
        out = []
        for number, parts in enumerate(side):
            out.append([])
            for kind in ("video", "image"):  # the order within a row
                if parts[kind] is not None:
                    with located(f"{name}[{number}][{kind!r}]"):
                        out[-1].append((kind, self._place(kind, parts[kind])))
        return out

    def tensors(self) -> dict[str, Any]:
        """What a model takes of all of them; videos stay uint8, in a quarter of the memory."""
        tensors: dict[str, Any] = {}
        for kind, found in self.media.items():
            if found:
                tensors |= self.reader.tensors(found, as_bytes=True)
                tensors[f"{kind}_patches"] = tensors[f"{kind}_grid_thw"].prod(-1).numpy()
        return tensors

    def _place(self, kind: str, source: Mapping[str, Any]) -> int:
        key = kind, media_key(source)
        if key not in self._places:
            self._places[key] = len(self.media[kind])
            self.media[kind].append(self.reader.read(kind, source))
        return self._places[key]
