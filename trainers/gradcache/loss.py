"""GradCache by tokens: batches of any size in the memory of a piece of them, with the gradients of the whole batch.

Shape legend: B pairs, N rows of all columns, n distinct ones, D embedding width.

Gao et al. 2021 (arXiv:2101.06983) embed a batch piece by piece without gradients, take the gradient of the loss to the
vectors, and embed each piece again to hand it on. Here the costliest piece keeps its graph and runs once. A piece is bounded
by tokens: it mixes rows of like length from all columns, and rows that repeat one another, as hard negatives often repeat
targets, run once. The vision tower has pieces of its own, of the distinct media of the batch: a frozen tower runs once a
medium, a trained one twice, and rows that show the same medium add to the same gradient.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.distributed.fsdp import is_fsdp_managed_module

from gve.packing_gve import on_device, overhead
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.gradcache.tower import RandomState, TowerRun, chunk_rows, is_trained
from gve.trainers.losses import GVELoss, embedder_of, normaliser, unwrapped
from gve.trainers.media.batch_media import Batch

EMBEDDING = "sentence_embedding"
Leaves = dict[str, dict[int, Tensor]]
"""Features that collect gradients, by kind and place."""


class CachedGVELoss(GVELoss):
    """`GVELoss` in two passes over pieces of the batch; loss and gradients are the same.

    Works with adapters, frozen and trained towers, dropout, checkpointed activations, autocast, and several processes
    under DistributedDataParallel; weights that are sharded over processes are refused.

    Args:
        cache_tokens: Tokens of a piece at most, padding included; see `gve.trainers.gradcache.tower`.
    """

    def __init__(self, model: nn.Module, *, cache_tokens: int, **options: Any) -> None:
        super().__init__(model, **options)
        if cache_tokens < 1:
            raise ValueError(
                f"cache_tokens: got {cache_tokens}; at least 1 is accepted; take what a forward and backward of that many "
                "tokens has memory for"
            )
        self.cache_tokens = cache_tokens

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Embed all columns without gradients and score them; the second pass waits for the backward."""
        columns = list(features)
        size, with_grad = len(columns[0]["input_ids"]), torch.is_grad_enabled()
        passes = TwoPasses(self, columns)
        vectors = passes.first(with_grad=with_grad).requires_grad_(with_grad)  # (n, D)
        loss = self.compute_loss_from_embeddings(list(vectors[passes.places].split(size)), labels)
        if not with_grad:
            return loss
        (gradient,) = torch.autograd.grad(loss, vectors)
        loss = loss.detach().requires_grad_()
        loss.register_hook(lambda scale: passes.second(gradient * scale))
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, as they stand in a model card."""
        return super().get_config_dict() | {"cache_tokens": self.cache_tokens}


class TwoPasses:
    """One batch on its way through the model, twice."""

    def __init__(self, loss: CachedGVELoss, columns: Sequence[dict[str, Any]]) -> None:
        self.loss, self.wrapper, self.model = loss, loss.model, unwrapped(loss.model)
        self.embedder = embedder_of(loss.model)
        if is_fsdp_managed_module(self.model) or is_fsdp_managed_module(self.embedder):
            raise ValueError(
                "cache_tokens: got a number for a model whose weights are sharded by FSDP; only None is accepted, because "
                "processes would wait for one another's pieces; use gradient checkpointing, or DDP with adapters"
            )
        self.batch = Batch.of(columns, self.embedder.config.vision_config.spatial_merge_size)
        device = self.embedder.device
        rows, places = self.batch.distinct()
        self.places = on_device(places, device)
        pieces = chunk_rows(self.batch.lengths[rows], limit=loss.cache_tokens, extra=overhead(device))
        self.pieces = sorted((rows[piece] for piece in pieces), key=self._cost)
        self.states: list[RandomState] = []
        self.precision = loss.precision_now(self.embedder.device.type)
        self.trained = is_trained(self.embedder)
        with torch.no_grad(), self._autocast():
            options = {"limit": loss.cache_tokens, "with_grad": False}
            self.tower = TowerRun(self.embedder, self.batch.media, normaliser(self.wrapper), **options)
        self.through_tower = self.trained and bool(self.tower.pieces)
        self.kept: tuple[Tensor, Leaves] | None = None

    @property
    def averages(self) -> bool:
        """Whether DDP averages the gradients of this batch."""
        return isinstance(self.wrapper, DistributedDataParallel) and self.wrapper.require_backward_grad_sync

    def first(self, *, with_grad: bool) -> Tensor:
        """(n, D) vectors of the distinct rows, without gradients but for the last piece; `places` maps the N rows to them.

        The costliest piece comes last and keeps its graph: nothing else needs the memory of a piece until its backward,
        and it need not run again.
        """
        vectors: list[Tensor] = []
        with self._autocast():
            for number, rows in enumerate(self.pieces, 1):
                keep = with_grad and number == len(self.pieces)
                self.states.append(RandomState(self.embedder.device))
                with torch.set_grad_enabled(keep):
                    made, leaves = self._embed(rows, averaged=keep and number == 1)
                vectors.append(made.detach())
                self.kept = (made, leaves) if keep else None
        if self.loss.training:
            computed = sum(self._cost(rows) for rows in self.pieces)
            self.loss.count_tokens(sum(int(self.batch.lengths[rows].sum()) for rows in self.pieces), computed)
        order = np.argsort(np.concatenate(self.pieces))
        return torch.cat(vectors)[on_device(order, vectors[0].device)]

    @torch.enable_grad()
    def second(self, gradient: Tensor) -> None:
        """Embed every distinct row again and hand on the (n, D) gradient of the loss to the vectors of `first`."""
        *others, last = range(len(self.pieces))
        with self._autocast():
            self._hand_on(self.pieces[last], *self.kept, gradient)
            self.kept = None
            for number in others:
                rows = self.pieces[number]
                with self.states[number].replayed():
                    vectors, leaves = self._embed(rows, averaged=number == len(others) - 1)
                self._hand_on(rows, vectors, leaves, gradient)
            if self.through_tower:
                self.tower.backward()
                if self.averages:
                    self._average()

    def _cost(self, rows: np.ndarray) -> int:
        """Tokens of a piece, padding included."""
        return len(rows) * int(self.batch.lengths[rows].max())

    def _embed(self, rows: np.ndarray, *, averaged: bool) -> tuple[Tensor, Leaves]:
        """(b, D) vectors of a piece, and the features that collect its gradients; `averaged` in its backward or not."""
        trained = self.trained and torch.is_grad_enabled()
        leaves = self.tower.leaves(self.batch.shown(rows)) if trained else {}
        model = self.wrapper if averaged and self.averages and not self.through_tower else self.model
        return model(self.batch.inputs(rows, leaves or self.tower.features))[EMBEDDING], leaves

    def _hand_on(self, rows: np.ndarray, vectors: Tensor, leaves: Leaves, gradient: Tensor) -> None:
        if vectors.requires_grad:
            chosen = self.places[on_device(rows, gradient.device)]
            torch.autograd.backward(vectors, gradient[chosen].to(vectors.dtype))
        self.tower.collect(leaves)

    def _average(self) -> None:
        """Let DDP average what the pieces added up: run the shortest row with media again, with a zero gradient.

        DDP averages only in the backward that follows its own forward, and waits there for every weight it knows; no
        piece reaches both the language model and the tower.
        """
        shown = [row for row in range(len(self.batch.lengths)) if self.batch.shown(np.array([row]))]
        row = np.array([min(shown, key=lambda row: self.batch.lengths[row])])
        with RandomState(self.embedder.device).replayed():
            features = {
                name: {place: self.tower.run(name, [place]) for place in places}
                for name, places in self.batch.shown(row).items()
            }
            vectors = self.wrapper(self.batch.inputs(row, features))[EMBEDDING]
            torch.autograd.backward(vectors, torch.zeros_like(vectors))

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = self.embedder.device.type
        return nullcontext() if self.precision is None else torch.autocast(kind, dtype=self.precision)


def build_loss(model: nn.Module, args: GVETrainingArguments) -> GVELoss:
    """Equation 1 with the settings of a run."""
    options = {
        "temperature": args.temperature,
        "false_negative_margin": args.false_negative_margin,
        "gather_across_devices": args.gather_across_devices,
        "matryoshka_dims": args.matryoshka_dims,
        "matryoshka_weights": args.matryoshka_weights,
        "autocast": torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None,
    }
    if args.cache_tokens is None:
        return GVELoss(model, **options)
    return CachedGVELoss(model, cache_tokens=args.cache_tokens, **options)
