"""Vectors of one side of rows: by the model in training, or by any other embedder.

Shapes: n rows, D width, W processes.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gve.eval.encode import EmbeddingCache, encode_rows
from gve.eval.encoders import Encoder
from gve.eval.store import Store
from gve.trainers.collator import PairCollator, Row
from gve.trainers.media.vision_cache import VisionCache, completed

Side = Literal["query", "target"]
SideEncoder = Callable[[Sequence[Row], Side], np.ndarray]
"""UVRD rows and a side to (n, D) float32 unit vectors."""


class OutsideSide:
    """Any embedder, queries by the instruction of their row.

    Args:
        encoder: With `encode_query` and `encode_document`.
        batch_size: Rows of a forward pass.
        cache: Keeps vectors by content, so that nothing is embedded twice; None keeps none.
    """

    def __init__(self, encoder: Encoder, *, batch_size: int = 32, cache: Store | None = None) -> None:
        self.encoder, self.batch_size, self.cache = encoder, batch_size, cache

    def __call__(self, rows: Sequence[Row], side: Side) -> np.ndarray:
        """Embed one side.

        Args:
            rows: n rows of one task.
            side: "query" or "target".

        Returns:
            (n, D) float32.
        """
        inputs = [{**row[side], "id": row["id"]} for row in rows]
        with torch.random.fork_rng():
            if side == "target":
                return _unit(self._encode(inputs, "document", None, rows[0]["task"]))
            vectors: list[np.ndarray | None] = [None] * len(rows)
            for instruction in dict.fromkeys(row["instruction"] for row in rows):
                places = [place for place, row in enumerate(rows) if row["instruction"] == instruction]
                found = self._encode([inputs[place] for place in places], "query", instruction, rows[0]["task"])
                for place, vector in zip(places, found, strict=True):
                    vectors[place] = vector
        return _unit(np.stack(vectors))

    def _encode(
        self, inputs: list[dict], role: Literal["query", "document"], instruction: str | None, task: str
    ) -> np.ndarray:
        cache = EmbeddingCache() if self.cache is None else self.cache
        return encode_rows(
            self.encoder,
            inputs,
            role=role,
            instruction=instruction,
            batch_size=self.batch_size,
            cache=cache,
            progress=False,
            label=task,
        )


class LiveSide:
    """The model in training, with the collator's own preparation and caches.

    Dropout is off while it works, and neither the weights nor the state of the random numbers change.

    Args:
        model: A SentenceTransformer.
        collator: Prepares the rows.
        cache: Features of the frozen vision tower that the collator may leave patches out for, or None.
        batch_size: Rows of a forward pass.
    """

    def __init__(
        self, model: nn.Module, collator: PairCollator, *, cache: VisionCache | None = None, batch_size: int = 32
    ) -> None:
        self.model, self.collator, self.cache, self.batch_size = model, collator, cache, batch_size

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row], side: Side) -> np.ndarray:
        """Embed one side.

        Args:
            rows: n rows of one task.
            side: "query" or "target".

        Returns:
            (n, D) float32.

        Raises:
            ValueError: Where the model gives nan or infinity.
        """
        training = self.model.training
        device = next(self.model.parameters()).device
        vectors: list[Tensor] = []
        self.model.eval()
        try:
            with torch.random.fork_rng():
                for start in range(0, len(rows), self.batch_size):
                    features = self.collator.side(rows[start : start + self.batch_size], side)
                    features = {key: value.to(device) for key, value in features.items()}
                    (features,) = completed([features], self.cache)
                    vectors.append(self.model(features)["sentence_embedding"].float().cpu())
        finally:
            self.model.train(training)
        found = torch.cat(vectors).numpy()
        if not np.isfinite(found).all():
            row = rows[int(np.argmin(np.isfinite(found).all(axis=1)))]
            raise ValueError(
                f"prober: the {side} of row {row['id']!r} of {row['task']} became nan or infinity; finite vectors are "
                "accepted; look at the last losses, and lower the learning rate"
            )
        return _unit(found)


def gather_rows(values: np.ndarray) -> np.ndarray:
    """Arrays of one shape from all processes, end to end in the order of ranks.

    Args:
        values: (n, ...) of this process.

    Returns:
        (W n, ...) on every process.
    """
    distributed = torch.distributed
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    here = torch.from_numpy(np.ascontiguousarray(values)).to(device)
    all_of_them = [torch.empty_like(here) for _ in range(distributed.get_world_size())]
    distributed.all_gather(all_of_them, here)
    return torch.cat(all_of_them).cpu().numpy()


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows at unit length, as float32."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError("prober: a vector is zero; vectors with a direction are accepted; check the embedder")
    return (wide / lengths).astype(np.float32)
