"""Vectors of one side of UVRD rows, by the weights in training or by any other embedder.

Shapes: n rows, D width.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gve.eval.encode import encode_rows
from gve.eval.encoders import Encoder
from gve.eval.store import Store
from gve.trainers.collator import PairCollator, Row
from gve.trainers.media.vision_cache import VisionCache, completed

Side = Literal["query", "target"]
SideEncoder = Callable[[Sequence[Row], Side], np.ndarray]
"""Rows of one task and a side to (n, D) float32 unit vectors; random states stay as they are."""


class OutsideEncoder:
    """Any embedder, such as the strong one that scores alignment in the first epoch (paper, section 3.3).

    Args:
        cache: Keeps vectors by content, so that nothing is embedded twice; None keeps them for one call.
    """

    def __init__(self, encoder: Encoder, *, batch_size: int = 32, cache: Store | None = None) -> None:
        self.encoder, self.batch_size, self.cache = encoder, batch_size, cache

    def __call__(self, rows: Sequence[Row], side: Side) -> np.ndarray:
        """Embed one side, queries by the instruction of their row."""
        inputs = [{**row[side], "id": row["id"]} for row in rows]
        label = rows[0]["task"]
        try:
            with torch.random.fork_rng():
                if side == "target":
                    return _unit(self._encode(inputs, "document", None, label))
                vectors: list[np.ndarray | None] = [None] * len(rows)
                for instruction in dict.fromkeys(row["instruction"] for row in rows):
                    places = [place for place, row in enumerate(rows) if row["instruction"] == instruction]
                    found = self._encode([inputs[place] for place in places], "query", instruction, label)
                    for place, vector in zip(places, found, strict=True):
                        vectors[place] = vector
            return _unit(np.stack(vectors))
        except ValueError as error:
            raise ValueError(f"prober {type(self.encoder).__name__}: {error}") from error

    def _encode(
        self, inputs: list[dict], role: Literal["query", "document"], instruction: str | None, label: str
    ) -> np.ndarray:
        options = {"instruction": instruction, "batch_size": self.batch_size, "cache": self.cache}
        return encode_rows(self.encoder, inputs, role=role, progress=False, label=label, **options)


class LiveEncoder:
    """The model in training, as from the second epoch on (section 3.3), with the collator's preparation and caches.

    Dropout is off while it works, and neither weights nor random states change.

    Args:
        cache: Features of the frozen vision tower, for media whose patches the collator leaves out; or None.
    """

    def __init__(
        self, model: nn.Module, collator: PairCollator, *, cache: VisionCache | None = None, batch_size: int = 32
    ) -> None:
        self.model, self.collator, self.cache, self.batch_size = model, collator, cache, batch_size

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row], side: Side) -> np.ndarray:
        """Embed one side; nan and infinity are a ValueError."""
        training = self.model.training
        device = next(self.model.parameters()).device
        vectors: list[Tensor] = []
        self.model.eval()
        try:
            with torch.random.fork_rng():
                for start in range(0, len(rows), self.batch_size):
                    features = self.collator.side(rows[start : start + self.batch_size], side)
                    features = {key: v.to(device) if isinstance(v, Tensor) else v for key, v in features.items()}
                    (features,) = completed([features], self.cache)
                    vectors.append(self.model(features)["sentence_embedding"].float().cpu())
        finally:
            self.model.train(training)
        found = torch.cat(vectors).numpy()
        if not np.isfinite(found).all():
            row = rows[int(np.argmin(np.isfinite(found).all(axis=1)))]
            raise ValueError(
                f"weights: the {side} of row {row['id']!r} of {row['task']} became nan or infinity; finite vectors are "
                "accepted; look at the last losses, and lower the learning rate"
            )
        return _unit(found)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows at unit length, as float32."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError("vectors: one is zero; only vectors with a direction are accepted; check the embedder")
    return (wide / lengths).astype(np.float32)
