"""VisionCache: features of a frozen vision tower, computed once and trained from ever after.

Shapes: M images or videos of one kind, S their patches, V their vision tokens, W values of the tower a token.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
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
from gve.packing_gve import on_device
from gve.processing_gve import GVEProcessor
from gve.trainers.gradcache.tower import FROZEN_TOKENS, TowerRun
from gve.trainers.media.batch_media import KINDS, Media
from gve.trainers.media.feature_store import FeatureStore
from gve.trainers.media.reader import PATCHES, Label, MediaReader, read_label

AUTO = "auto"
"""Type on disk that holds what the tower gives, exactly, in the fewest bytes."""
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
    dtype: str = AUTO,
    limit: int = 64 << 30,
    autocast: torch.dtype | None = None,
    device: str = "cpu",
) -> FeatureStore:
    """The features of one tower as one processor feeds it, in a folder of their own; `limit` is in bytes."""
    check_frozen(model)
    if dtype == AUTO:
        dtype = "bfloat16" if (autocast or model.visual.dtype) == torch.bfloat16 else "float32"
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

    On a CPU the tower sees one medium at a time: then features depend on weights and medium alone, not on the batch, and
    a run with a cold cache ends in the weights of one with a warm cache, to the bit. On a device that would leave most of
    it idle, so many run together; they agree with one at a time within the precision, since matrix kernels are chosen by
    the size of the whole. As a callback it checks that the tower is still frozen, and writes features where a run may end
    and before the workers look for them.

    Args:
        normalise: Makes float patches of the uint8 ones of videos.
        piece_tokens: Tokens that run together at most, as on a device; None runs one medium at a time.
    """

    def __init__(
        self,
        model: EmbedderMixin,
        store: FeatureStore,
        normalise: Callable[[Tensor], Tensor],
        *,
        autocast: torch.dtype | None = None,
        piece_tokens: int | None = None,
    ) -> None:
        self.model, self.store, self.normalise, self.autocast = model, store, normalise, autocast
        self.piece_tokens, self.computed = piece_tokens, 0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The tower may have been thawed since the trainer was made."""
        check_frozen(self.model)

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        """Write what waits in memory."""
        self.store.flush()

    # an epoch begins with a probe, which may have computed some
    on_epoch_begin = on_epoch_end = on_train_end = on_save

    def complete(self, column: dict[str, Any]) -> dict[str, Any]:
        """Features in place of patches."""
        out = dict(column)
        for kind, (_, pixels, embeds) in KINDS.items():
            if f"{kind}_known" not in out:
                continue
            known, labels = out.pop(f"{kind}_known"), [read_label(text) for text in out.pop(f"{kind}_labels")]
            patches, features = out.pop(pixels, None), out.get(embeds)
            if not all(known):
                out[embeds] = self.features(patches, features, out[f"{kind}_grid_thw"], known, labels)
        return out

    def features(
        self, pixels: Tensor, features: Tensor | None, grids: Tensor, known: Sequence[bool], labels: Sequence[Label]
    ) -> Tensor:
        """Features of M media of one kind, in order.

        Args:
            pixels: (S, values a patch), patches of the media that are not known.
            features: (V, W) of those that are known; None if none is.
            grids: (M, 3).

        Returns:
            (V, W) of all, on the device of the grids.
        """
        patches = np.array([label.grid for label in labels]).prod(-1)  # from the labels: the grids are on the device
        sizes, there = patches // self.model.config.vision_config.spatial_merge_size**2, np.array(known)
        ready = iter(features.split(sizes[there].tolist()) if there.any() else [])
        cut = dict(zip(np.flatnonzero(~there).tolist(), pixels.split(patches[~there].tolist()), strict=True))
        fresh: dict[str, int] = {}
        for place in cut:
            fresh.setdefault(labels[place].key, place)  # a column of its own media may show one twice
        found = {key: self._kept(key, grids.device) for key in fresh}
        places = [place for key, place in fresh.items() if found[key] is None]
        if places:
            media = Media(
                grids[on_device(places, grids.device)], patches[places], [cut[p] for p in places], [None] * len(places)
            )
            found |= self._computed(media, [labels[place] for place in places])
        return torch.cat([next(ready) if there[place] else found[label.key] for place, label in enumerate(labels)])

    def _kept(self, key: str, device: torch.device) -> Tensor | None:
        """(V, W) features that were written since a worker looked; on a device they are sooner made again than read."""
        kept = self.store.get(key) if self.piece_tokens is None else None
        return None if kept is None else kept.features.to(device)

    def _computed(self, media: Media, labels: Sequence[Label]) -> dict[str, Tensor]:
        """(V, W) features of each medium by its key, as they will be read from now on."""
        if is_fsdp_managed_module(self.model):
            raise ValueError(
                f"vision_cache_dir: got {labels[0].key}, whose features are not kept, while weights are sharded by FSDP; "
                "a folder that holds all is accepted, because processes would wait for one another's media; fill it "
                "first with gve.trainers.media.vision_cache.fill_cache"
            )
        tower = self.model.visual
        training = tower.training
        tower.eval()
        try:
            with torch.no_grad(), self._precision(media.grids.device):
                run = TowerRun(
                    self.model, {"video": media}, self.normalise, limit=self.piece_tokens or 0, with_grad=False
                )
        finally:
            tower.train(training)
        self.computed += len(labels)
        out = {}
        for label, made in zip(labels, run.features["video"], strict=True):
            facts = Features(made, tuple(label.grid), label.interval, label.times)
            out[label.key] = self.store.put(label.key, facts).features
        return out

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
    piece = None if args.device.type == "cpu" else args.cache_tokens or FROZEN_TOKENS
    return VisionCache(model, store, processor.video_processor.normalise, autocast=autocast, piece_tokens=piece)


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
                cache.complete(
                    {name: value.to(device) if isinstance(value, Tensor) else value for name, value in tensors.items()}
                )
                bar.update(count)
    cache.store.flush()
    return cache.computed - before


def _unknown_media(reader: MediaReader, rows: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, Any]]:
    """The number of rows, and the tensors of their media whose features are not known yet, each once."""
    tensors: dict[str, Any] = {}
    for kind in PATCHES:
        sides = [side for row in rows for side in (row["query"], row["target"], *row["negatives"])]
        media = [reader.read(kind, side[kind]) for side in sides if side[kind] is not None]
        unknown = {medium.key: medium for medium in media if not medium.known}
        tensors |= reader.tensors(list(unknown.values()), as_bytes=True) if unknown else {}
    return len(rows), tensors
