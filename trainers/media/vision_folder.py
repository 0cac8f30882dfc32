"""Where the features of one vision tower, as one processor feeds it, are kept: whatever changes them names the folder."""

import json
import secrets
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from gve.embedder_gve import EmbedderMixin
from gve.processing_gve import GVEProcessor
from gve.trainers.media.feature_store import FeatureStore

VERSION = 2
"""Goes up when the reader gives other patches than before: then what is kept is of no use."""


def tower_digest(model: EmbedderMixin) -> str:
    """What tells one vision tower from another.

    Args:
        model: The embedder, with all its weights in this process.

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
    """What of a processor changes the patches or the times of media.

    Args:
        processor: The embedder's.

    Returns:
        Values that JSON takes.
    """
    parts = {"image": processor.image_processor.to_dict(), "video": processor.video_processor.to_dict()}
    return json.loads(json.dumps(parts, sort_keys=True, default=str))


def check_frozen(model: EmbedderMixin) -> None:
    """Refuse a vision tower that is trained.

    Args:
        model: The embedder.

    Raises:
        ValueError: If a parameter of the tower takes gradients.
    """
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
        model: The embedder; its tower is frozen.
        processor: Its processor.
        folder: Where the features of all towers are.
        dtype: "float32", "bfloat16" or "int8".
        limit: Bytes of all of them at most.
        autocast: Type in which the tower computes, if not its own.
        device: Kind of device on which it computes; others round in another way.

    Returns:
        The store.

    Raises:
        ValueError: If the tower is trained, the type is unknown, or the limit less than 1.
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
