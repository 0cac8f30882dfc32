"""Equation 1 of the paper as a module for sentence-transformers, with meters.

Shapes: B pairs of a batch, D embedding width, K hard negatives of a query.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.utils.generic import is_flash_attention_requested

from gve.embedder_gve import EmbedderMixin
from gve.trainers.contrast import Widths, gathered_info_nce, info_nce
from gve.trainers.gradcache.tower import FROZEN_TOKENS, TowerRun, is_trained
from gve.trainers.media.batch_media import column_inputs, media_of
from gve.trainers.watching.meters import LossMeters

__all__ = ["GVELoss", "embedder_of", "gathered_info_nce", "info_nce", "normaliser", "unwrapped"]


class GVELoss(nn.Module):
    """Equation 1 as a loss of sentence-transformers.

    Args:
        temperature: tau.
        false_negative_margin: In cosine; None turns the mask off.
        matryoshka_weights: One a width, where the full width has 1; None gives each 1.
        autocast: Type in which the run computes; None takes the one set around the call.

    Inputs:
        | features                                  | labels                          |
        |-------------------------------------------|---------------------------------|
        | query, target, negative_1, ... negative_K | (B, B) bool of matches, or None |
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        temperature: float = 0.03,
        false_negative_margin: float | None = None,
        gather_across_devices: bool = False,
        matryoshka_dims: Sequence[int] = (),
        matryoshka_weights: Sequence[float] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.false_negative_margin = false_negative_margin
        self.gather_across_devices = gather_across_devices
        self.widths = Widths(matryoshka_dims, matryoshka_weights)
        self.autocast = autocast
        self.meters = LossMeters()

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Embed each column of model inputs (query, target, negatives) and score it.

        Columns may hold tokens alone, with the distinct media of all in the first one, as `PairCollator` shares them.
        """
        columns = list(features)
        if "media" in columns[0]:
            columns = self._with_features(columns)
        vectors = [self.model(column)["sentence_embedding"] for column in columns]
        if self.training:
            for column in columns:
                if "attention_mask" in column:
                    mask = column["attention_mask"]
                    self.count_tokens(mask.sum(), mask.numel())
        return self.compute_loss_from_embeddings(vectors, labels)

    def _with_features(self, columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run the vision tower once a distinct medium, and give each column the features of what its rows show."""
        embedder = embedder_of(self.model)
        kind, dtype = embedder.device.type, self.precision_now(embedder.device.type)
        media = media_of(columns[0]["media"], embedder.config.vision_config.spatial_merge_size)
        with_grad = torch.is_grad_enabled() and is_trained(embedder)
        limit = None if with_grad else FROZEN_TOKENS
        with nullcontext() if dtype is None else torch.autocast(kind, dtype=dtype):
            tower = TowerRun(embedder, media, normaliser(self.model), limit=limit, with_grad=with_grad)
        return [column_inputs(column, media, tower.features) for column in columns]

    def precision_now(self, kind: str) -> torch.dtype | None:
        """The type of autocast in which the model runs, or None; parts of it that run by themselves must follow."""
        if self.autocast is not None or not torch.is_autocast_enabled(kind):
            return self.autocast
        return torch.get_autocast_dtype(kind)

    def count_tokens(self, tokens: int | Tensor, computed: int) -> None:
        """Take the tokens of a forward for the meters."""
        packed = is_flash_attention_requested(embedder_of(self.model).config.get_text_config())
        self.meters.count(tokens, tokens if packed else computed)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """The loss of (B, D) vectors of each column: query, target, negatives; labels as for `forward`."""
        queries, targets, *others = embeddings
        negatives = torch.stack(others, dim=1) if others else None  # (B, K, D)
        parts = (queries, targets) if negatives is None else (queries, targets, negatives)
        loss = self.widths.mean(self._equation, parts, labels)
        self._measure(queries, targets, negatives, labels, loss=loss)
        return loss

    def _equation(self, parts: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Equation 1 of queries, targets and perhaps negatives, alone or with the other processes."""
        options: dict[str, Any] = {
            "temperature": self.temperature,
            "matches": labels,
            "false_negative_margin": self.false_negative_margin,
        }
        if self.gather_across_devices and torch.distributed.is_initialized():
            return gathered_info_nce(*parts, rank=torch.distributed.get_rank(), **options)
        return info_nce(*parts, **options)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, as they stand in a model card."""
        return {
            "temperature": self.temperature,
            "false_negative_margin": self.false_negative_margin,
            "gather_across_devices": self.gather_across_devices,
        } | self.widths.settings()

    def pop_meters(self) -> dict[str, float]:
        """What Figures 9 and 10 of the paper plot, as means since the last call; see `LossMeters.pop`."""
        return self.meters.pop()

    @torch.no_grad()
    def _measure(
        self, queries: Tensor, targets: Tensor, negatives: Tensor | None, labels: Tensor | None, *, loss: Tensor
    ) -> None:
        if not self.training:
            return
        cosines = queries.float() @ targets.float().T  # (B, B)
        positives = cosines.diagonal()
        excluded = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
        if labels is not None:
            excluded |= labels
        rivals = cosines.masked_fill(excluded, -1.0)
        if negatives is not None:
            rivals = torch.cat([rivals, torch.einsum("bd,bkd->bk", queries.float(), negatives.float())], dim=1)
        self.meters.add(
            {
                "loss": loss.detach().float(),
                "score_positive": positives.mean(),
                "score_mean": cosines.mean(),
                "score_gap": (positives - rivals.max(dim=1).values).mean(),
            }
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The SentenceTransformer in training."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def embedder_of(model: nn.Module) -> EmbedderMixin:
    """The embedder inside a SentenceTransformer."""
    return unwrapped(model)[0].model


def normaliser(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The function that makes float patches of the (S, P) uint8 ones of a batch."""
    return unwrapped(model).processor.video_processor.normalise
