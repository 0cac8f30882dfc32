"""Rows of UVRD to the inputs of a training step.

Shapes: B rows of a batch, K hard negatives of a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gve.processing_gve import GVEProcessor
from gve.trainers.cache import DecodedCache

Row = Mapping[str, Any]
"""A UVRD row, as `gve.hub_datasets.schema.pair_features` types it."""


def match_mask(query_facts: Sequence[Sequence[int]], target_facts: Sequence[Sequence[int]]) -> np.ndarray:
    """Which targets answer which queries, by what their rows state.

    Args:
        query_facts: Ids of what each query states.
        target_facts: Ids of all that holds for each target.

    Returns:
        (B, B) bool; True at (i, j) where query i states something, all of which holds for target j.
    """
    queries, targets = [frozenset(facts) for facts in query_facts], [frozenset(facts) for facts in target_facts]
    mask = np.zeros((len(queries), len(targets)), dtype=bool)
    for i, stated in enumerate(queries):
        if stated:
            mask[i] = [stated <= held for held in targets]
    return mask


class PairCollator:
    """A list of UVRD rows to one flat dict: `query_*`, `target_*`, `negative_1_*` ..., and `label`.

    Queries carry the instruction of their row in the system message, targets and negatives the default one. `label`
    is the (B, B) match mask of the loss. Only the processor and its cache are held, so workers may be spawned.

    Args:
        processor: Prepares one side of the batch.
        num_negatives: K, one number or one by task.
        max_length: Tokens of a row; None takes the processor's.
        cache_bytes: Decoded media to keep in each worker.
    """

    valid_label_columns = ("label",)
    """What sentence-transformers' data loaders ask of a collator."""

    def __init__(
        self,
        processor: GVEProcessor,
        *,
        num_negatives: int | Mapping[str, int] = 0,
        max_length: int | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self.processor, self.num_negatives, self.max_length = processor, num_negatives, max_length
        self.cache = DecodedCache(processor.video_processor, cache_bytes)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Collate.

        Args:
            rows: B rows of one task.

        Returns:
            Tensors by name; `label` is (B, B) bool.
        """
        batch = {f"{name}_{key}": value for name, column in self.columns(rows) for key, value in column.items()}
        mask = match_mask([row["query_facts"] for row in rows], [row["target_facts"] for row in rows])
        return batch | {"label": torch.from_numpy(mask)}

    def columns(self, rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """The model's inputs of each side: `query`, `target`, `negative_1` to `negative_K`.

        Args:
            rows: B rows of one task.

        Yields:
            The name of the side, and its tensors.

        Raises:
            ValueError: Where a row has fewer hard negatives than asked for.
        """
        yield from self.pair(rows)
        count = self._count(rows[0]["task"])
        for row in rows if count else ():
            if len(row["negatives"]) < count:
                raise ValueError(
                    f"num_negatives: got {count} for row {row['id']!r}, which has {len(row['negatives'])}; every row "
                    f"of {row['task']} needs as many; lower the number or mine more"
                )
        for k in range(count):
            yield f"negative_{k + 1}", self._prepare([row["negatives"][k] for row in rows])

    def pair(self, rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """The model's inputs of `query` and `target` only.

        Args:
            rows: B rows.

        Yields:
            The name of the side, and its tensors.
        """
        yield "query", self._prepare([row["query"] for row in rows], [row["instruction"] for row in rows])
        yield "target", self._prepare([row["target"] for row in rows])

    def _count(self, task: str) -> int:
        return self.num_negatives if isinstance(self.num_negatives, int) else self.num_negatives.get(task, 0)

    def _prepare(self, side: Sequence[Row], instruction: list[str] | None = None) -> dict[str, Tensor]:
        inputs = [self._decoded(media) for media in side]
        return dict(self.processor.prepare(inputs, instruction=instruction, max_length=self.max_length))

    def _decoded(self, media: Row) -> dict[str, Any]:
        decoded: dict[str, Any] = {}
        if media["video"] is not None:
            decoded["video"] = self.cache.video(media["video"])
        if media["image"] is not None:
            decoded["image"] = self.cache.image(media["image"])
        if media["text"] is not None:
            decoded["text"] = media["text"]
        return decoded
