"""VisionCache: features of a frozen vision tower, computed once and trained from ever after.

Shapes: M images or videos of one kind, S their patches, V their vision tokens, W values of the tower a token.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.distributed.fsdp import is_fsdp_managed_module
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from gve.embedder_gve import EmbedderMixin
from gve.frames_gve import Features
from gve.processing_gve import GVEProcessor
from gve.trainers.media.feature_store import FeatureStore
from gve.trainers.media.inputs import PATCHES, read_label
from gve.trainers.media.vision_folder import check_frozen, open_store


class VisionCache:
    """Completes the columns of a batch: what the workers did not find, the tower computes, and the store keeps.

    The tower sees one medium at a time: then features depend on weights and medium alone, not on the batch, and a run
    with a cold cache ends in the weights of one with a warm cache, to the bit.

    Args:
        model: The embedder; its tower is frozen.
        store: Where features are kept.
        autocast: Type in which the tower computes, if not its own.

    Attributes:
        computed: Media that the tower has seen.
    """

    def __init__(self, model: EmbedderMixin, store: FeatureStore, *, autocast: torch.dtype | None = None) -> None:
        self.model, self.store, self.autocast, self.computed = model, store, autocast, 0

    def complete(self, column: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features in place of patches.

        Args:
            column: The model's inputs of one side of a batch, as `MediaReader.column` makes them.

        Returns:
            The same with `image_embeds` and `video_embeds` of all media, and without patches. A column without media
            comes back as it is.
        """
        out = dict(column)
        for kind, patches in PATCHES.items():
            if f"{kind}_known" not in out:
                continue
            known, labels = out.pop(f"{kind}_known").tolist(), out.pop(f"{kind}_labels").cpu()
            pixels, features = out.pop(patches, None), out.pop(f"{kind}_embeds", None)
            out[f"{kind}_embeds"] = self.features(pixels, features, out[f"{kind}_grid_thw"], known, labels)
        return out

    def features(
        self, pixels: Tensor | None, features: Tensor | None, grids: Tensor, known: Sequence[bool], labels: Tensor
    ) -> Tensor:
        """Features of some media of one kind, in order.

        Args:
            pixels: (S, values a patch), patches of the media that are not known; None if all are.
            features: (V, W) of those that are known; None if none is.
            grids: (M, 3).
            known: M times whether the features are there.
            labels: (M, L) uint8, see `labels_of`.

        Returns:
            (V, W) of all, on the device of the grids.
        """
        if all(known):
            return features
        merge = self.model.config.vision_config.spatial_merge_size
        shapes = grids.tolist()
        patches = [time * height * width for time, height, width in shapes]
        fresh = iter(pixels.split([size for size, there in zip(patches, known, strict=True) if not there]))
        sizes = [size // merge**2 for size, there in zip(patches, known, strict=True) if there]
        ready = iter(features.split(sizes) if sizes else [])
        parts = [
            next(ready) if there else self._computed(next(fresh), grids[place : place + 1], labels[place])
            for place, there in enumerate(known)
        ]
        return torch.cat([part.to(grids.device) for part in parts])

    def _computed(self, pixels: Tensor, grid: Tensor, label: Tensor) -> Tensor:
        """(V, W) features of one medium, as they will be read from now on."""
        key, interval, times = read_label(label)
        stored = self.store.get(key)  # a worker may have looked before it was written
        if stored is None:
            if is_fsdp_managed_module(self.model):
                raise ValueError(
                    f"vision_cache_dir: got {key}, whose features are not kept, while weights are sharded by FSDP; "
                    "accepted is a folder that holds all, because processes would wait for one another's media; fill "
                    "it before with gve.trainers.media.vision_fill.fill_cache"
                )
            tower = self.model.visual
            training = tower.training
            tower.eval()
            try:
                with torch.no_grad(), self._precision(grid.device):
                    features = self.model.vision_features(pixels, grid)
            finally:
                tower.train(training)
            self.computed += 1
            shape = tuple(grid[0].tolist())
            stored = self.store.put(key, Features(features, shape, interval, times))
        return stored.features

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)


class CompletedPairs:
    """The two sides of rows with features in place of patches, for whatever embeds pairs with the live model.

    Args:
        collator: A `PairCollator`.
        cache: Completes what it makes.
    """

    def __init__(self, collator: Any, cache: VisionCache) -> None:
        self.collator, self.cache = collator, cache

    def pair(self, rows: Sequence[Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """The model's inputs of both sides; see `PairCollator.pair`."""
        device = next(self.cache.model.parameters()).device
        for name, column in self.collator.pair(rows):
            yield name, self.cache.complete({key: value.to(device) for key, value in column.items()})


class VisionCacheCallback(TrainerCallback):
    """Makes sure that the tower is still frozen, and writes features where a run may end and before workers look.

    Args:
        cache: The run's cache.
    """

    def __init__(self, cache: VisionCache) -> None:
        self.cache = cache

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The tower may have been thawed since the trainer was made."""
        check_frozen(self.cache.model)

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Before the workers read the next epoch."""
        self.cache.store.flush()

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        """With each checkpoint."""
        self.cache.store.flush()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """At the end."""
        self.cache.store.flush()


def cache_for(model: nn.Module, processor: GVEProcessor, args: Any) -> VisionCache | None:
    """The cache that a run's settings ask for.

    Args:
        model: The embedder.
        processor: Its processor.
        args: `GVETrainingArguments`.

    Returns:
        The cache, or None without `vision_cache_dir`.

    Raises:
        ValueError: If the tower is trained, or its weights are divided among processes from the start.
    """
    if args.vision_cache_dir is None:
        return None
    if is_deepspeed_zero3_enabled():
        raise ValueError(
            "vision_cache_dir: got a folder with DeepSpeed ZeRO-3, under which no process holds the tower; accepted are "
            "ZeRO-2, DDP and FSDP; choose one of them, or leave the folder out"
        )
    autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    limit = int(args.vision_cache_gb * (1 << 30))
    store = open_store(
        model,
        processor,
        args.vision_cache_dir,
        dtype=args.vision_cache_dtype,
        limit=limit,
        autocast=autocast,
        device=args.device.type,
    )
    return VisionCache(model, store, autocast=autocast)


def completed(columns: list[dict[str, Any]], cache: VisionCache | None) -> list[dict[str, Any]]:
    """The columns of a batch with features in place of patches.

    Args:
        columns: The model's inputs of each side; media that the sides share stand under "media" in the first one.
        cache: The run's cache, or None.

    Returns:
        The columns.
    """
    if cache is None:
        return columns
    columns = [cache.complete(column) for column in columns]
    return [column | {"media": cache.complete(column["media"])} if "media" in column else column for column in columns]


def completed_pairs(collator: Any, cache: VisionCache | None) -> Any:
    """A collator whose pairs hold features.

    Args:
        collator: A `PairCollator`.
        cache: The run's cache, or None.

    Returns:
        What a prober takes for its collator.
    """
    return collator if cache is None else CompletedPairs(collator, cache)


def cache_callbacks(cache: VisionCache | None) -> list[TrainerCallback]:
    """What a run with a cache needs beside it.

    Args:
        cache: The run's cache, or None.

    Returns:
        Callbacks.
    """
    return [] if cache is None else [VisionCacheCallback(cache)]
