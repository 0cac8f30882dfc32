"""VisionCache: features of a frozen vision tower, computed once and trained from ever after.

Shapes: M images or videos of one kind, S their patches, V their vision tokens, W values of the tower a token.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.distributed.fsdp import is_fsdp_managed_module
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from gve.embedder_gve import EmbedderMixin
from gve.frames_gve import Features
from gve.processing_gve import GVEProcessor
from gve.trainers.media.feature_store import FeatureStore
from gve.trainers.media.reader import PATCHES, MediaReader, read_label

VERSION = 2
"""Goes up when the reader gives other patches than before: then what is kept is of no use."""


def tower_digest(model: EmbedderMixin) -> str:
    """What tells one vision tower from another.

    Returns:
        A digest of names, types and bytes of the tower's parameters, and of its configuration.
    """
    config = model.config.vision_config
    attention = config._attn_implementation
    settings = {**config.to_dict(), "attention": attention, "stock": model.config.stock_vision}
    settings.pop("transformers_version", None)
    digest = blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for name, value in sorted(model.visual.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def processor_settings(processor: GVEProcessor) -> dict[str, Any]:
    """What of a processor changes the patches or the times of media."""
    parts = {"image": processor.image_processor.to_dict(), "video": processor.video_processor.to_dict()}
    return json.loads(json.dumps(parts, sort_keys=True, default=str))


def check_frozen(model: EmbedderMixin) -> None:
    """Refuse a vision tower that is trained."""
    if trained := [name for name, value in model.visual.named_parameters() if value.requires_grad]:
        raise ValueError(
            f"vision_cache_dir: got a folder while {len(trained)} parameters of the vision tower are trained, such as "
            f"visual.{trained[0]}; accepted with a frozen tower alone, whose features stay as they are; freeze it "
            "(--freeze_vision, or adapters on the language model), or keep decoded frames with frame_cache_dir"
        )


def open_store(
    model: EmbedderMixin,
    processor: GVEProcessor,
    folder: str | PathLike[str],
    *,
    dtype: str = "float32",
    limit: int = 64 << 30,
    autocast: torch.dtype | None = None,
    device: str = "cpu",
) -> FeatureStore:
    """The features of one tower as one processor feeds it, in a folder of their own.

    Args:
        limit: Bytes of all of them at most.
    """
    check_frozen(model)
    settings = {
        "version": VERSION,
        "tower": tower_digest(model),
        "autocast": None if autocast is None else str(autocast),
        "device": device,
        "dtype": dtype,
        "processor": processor_settings(processor),
    }
    name = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=12).hexdigest()
    place = Path(folder) / name
    store = FeatureStore(place, dtype=dtype, parts=model.vision_parts, limit=limit, root=folder)
    if not (place / "settings.json").is_file():  # nobody reads it but people
        partial = place / f".{secrets.token_hex(8)}.partial"
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        partial.replace(place / "settings.json")
    return store


class VisionCache:
    """Completes the columns of a batch: what the workers did not find, the tower computes, and the store keeps.

    The tower sees one medium at a time: then features depend on weights and medium alone, not on the batch, and a run
    with a cold cache ends in the weights of one with a warm cache, to the bit.

    Attributes:
        computed: Media that the tower has seen.
    """

    def __init__(self, model: EmbedderMixin, store: FeatureStore, *, autocast: torch.dtype | None = None) -> None:
        self.model, self.store, self.autocast, self.computed = model, store, autocast, 0

    def complete(self, column: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features in place of patches."""
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
                    "it before with gve.trainers.media.vision_cache.fill_cache"
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


class VisionCacheCallback(TrainerCallback):
    """Makes sure that the tower is still frozen, and writes features where a run may end and before workers look."""

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

    Returns:
        The cache, or None without `vision_cache_dir`.
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
    """
    if cache is None:
        return columns
    columns = [cache.complete(column) for column in columns]
    return [column | {"media": cache.complete(column["media"])} if "media" in column else column for column in columns]


def cache_callbacks(cache: VisionCache | None) -> list[TrainerCallback]:
    """What a run with a cache needs beside it.

    Args:
        cache: The run's cache, or None.
    """
    return [] if cache is None else [VisionCacheCallback(cache)]


def fill_cache(
    cache: VisionCache,
    reader: MediaReader,
    datasets: Mapping[str, Dataset],
    *,
    workers: int = 0,
    batch_size: int = 8,
    progress: bool = True,
) -> int:
    """Compute the features of all media that rows show; what is there already is not even decoded.

    Args:
        cache: Of `GVETrainer.vision_cache`, or made by hand; its tower runs on the device where it is.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a medium cannot be read.
    """
    device = next(cache.model.visual.parameters()).device
    before, total = cache.computed, sum(len(rows) for rows in datasets.values())
    with tqdm(total=total, desc="vision features", unit="row", disable=not progress, delay=2) as bar:
        for rows in datasets.values():
            loader = DataLoader(
                rows.with_format(None), batch_size=batch_size, num_workers=workers, collate_fn=UnknownMedia(reader)
            )
            for count, tensors in loader:
                cache.complete({name: value.to(device) for name, value in tensors.items()})
                bar.update(count)
    cache.store.flush()
    return cache.computed - before


class UnknownMedia:
    """Rows to the tensors of the media whose features are not known yet, each once."""

    def __init__(self, reader: MediaReader) -> None:
        self.reader = reader

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, Tensor]]:
        """Collate."""
        tensors: dict[str, Tensor] = {}
        for kind in PATCHES:
            unknown = {}
            for row in rows:
                for side in (row["query"], row["target"], *row["negatives"]):
                    if side[kind] is not None:
                        medium = self.reader.read(kind, side[kind])
                        if not medium.known:
                            unknown[medium.key] = medium
            tensors |= self.reader.tensors(list(unknown.values())) if unknown else {}
        return len(rows), tensors
