"""VisionCache: features of a frozen vision tower, computed once and trained from ever after.

Shapes: M images or videos of one kind, S their patches, V their vision tokens, W values of the tower a token.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
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
"""Goes up when the reader changes the patches, since old features are then useless."""


def tower_digest(model: EmbedderMixin) -> str:
    """A digest of the vision tower: names, types and bytes of its parameters, and its configuration."""
    config = model.config.vision_config
    attention = config._attn_implementation
    settings = {**config.to_dict(), "attention": attention, "stock": model.config.stock_vision}
    settings.pop("transformers_version", None)
    digest = blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for name, value in sorted(model.visual.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_frozen(model: EmbedderMixin) -> None:
    """Refuse a vision tower that is trained."""
    if trained := [name for name, value in model.visual.named_parameters() if value.requires_grad]:
        raise ValueError(
            f"vision_cache_dir: got a folder while {len(trained)} parameters of the vision tower are trained, such as "
            f"visual.{trained[0]}; only a frozen tower is accepted, whose features stay the same; freeze it "
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
    """The features of one tower as one processor feeds it, in a folder of their own; `limit` is in bytes."""
    check_frozen(model)
    parts = {"image": processor.image_processor.to_dict(), "video": processor.video_processor.to_dict()}
    settings = {
        "version": VERSION,
        "tower": tower_digest(model),
        "autocast": None if autocast is None else str(autocast),
        "device": device,
        "dtype": dtype,
        "processor": json.loads(json.dumps(parts, sort_keys=True, default=str)),
    }
    name = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=12).hexdigest()
    place = Path(folder) / name
    store = FeatureStore(place, dtype=dtype, parts=model.vision_parts, limit=limit, root=folder)
    if not (place / "settings.json").is_file():  # for people, not for us
        partial = place / f".{secrets.token_hex(8)}.partial"
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        partial.replace(place / "settings.json")
    return store


class VisionCache(TrainerCallback):
    """Completes the columns of a batch: the tower computes what the workers did not find, and the store keeps it.

    The tower sees one medium at a time: then features depend on weights and medium alone, not on the batch, and a
    run with a cold cache ends in the weights of one with a warm cache, to the bit. As a callback it checks that the
    tower is still frozen, and writes features where a run may end and before the workers look for them.
    """

    def __init__(self, model: EmbedderMixin, store: FeatureStore, *, autocast: torch.dtype | None = None) -> None:
        self.model, self.store, self.autocast, self.computed = model, store, autocast, 0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The tower may have been thawed since the trainer was made."""
        check_frozen(self.model)

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        """Write what waits in memory."""
        self.store.flush()

    on_epoch_end = on_train_end = on_save

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
                    "a folder that holds all is accepted, because processes would wait for one another's media; fill it "
                    "first with gve.trainers.media.vision_cache.fill_cache"
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


def cache_for(model: nn.Module, processor: GVEProcessor, args: Any) -> VisionCache | None:
    """The cache of a run, or None without `vision_cache_dir`."""
    if args.vision_cache_dir is None:
        return None
    if is_deepspeed_zero3_enabled():
        raise ValueError(
            "vision_cache_dir: got a folder with DeepSpeed ZeRO-3, under which no process holds the tower; "
            "ZeRO-2, DDP and FSDP are accepted; choose one of them, or leave the folder out"
        )
    autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    store = open_store(
        model,
        processor,
        args.vision_cache_dir,
        dtype=args.vision_cache_dtype,
        limit=int(args.vision_cache_gb * (1 << 30)),
        autocast=autocast,
        device=args.device.type,
    )
    return VisionCache(model, store, autocast=autocast)


def completed(columns: list[dict[str, Any]], cache: VisionCache | None) -> list[dict[str, Any]]:
    """The columns of a batch with features in place of patches; media that sides share are the first one's "media"."""
    if cache is None:
        return columns
    columns = [cache.complete(column) for column in columns]
    return [column | {"media": cache.complete(column["media"])} if "media" in column else column for column in columns]


def fill_cache(
    cache: VisionCache,
    reader: MediaReader,
    datasets: Mapping[str, Dataset],
    *,
    workers: int = 0,
    batch_size: int = 8,
    progress: bool = True,
) -> int:
    """Compute the features of all media of the rows; media in the cache are not decoded."""
    device = next(cache.model.visual.parameters()).device
    before, total = cache.computed, sum(len(rows) for rows in datasets.values())
    with tqdm(total=total, desc="vision features", unit="row", disable=not progress, delay=2) as bar:
        for rows in datasets.values():
            loader = DataLoader(
                rows.with_format(None),
                batch_size=batch_size,
                num_workers=workers,
                collate_fn=partial(_unknown_media, reader),
            )
            for count, tensors in loader:
                cache.complete({name: value.to(device) for name, value in tensors.items()})
                bar.update(count)
    cache.store.flush()
    return cache.computed - before


def _unknown_media(reader: MediaReader, rows: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, Tensor]]:
    """The number of rows, and the tensors of their media whose features are not known yet, each once."""
    tensors: dict[str, Tensor] = {}
    for kind in PATCHES:
        sides = [side for row in rows for side in (row["query"], row["target"], *row["negatives"])]
        media = [reader.read(kind, side[kind]) for side in sides if side[kind] is not None]
        unknown = {medium.key: medium for medium in media if not medium.known}
        tensors |= reader.tensors(list(unknown.values())) if unknown else {}
    return len(rows), tensors
