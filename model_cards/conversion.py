"""A published checkpoint to a folder of ours, or one of ours to a stock Qwen-VL folder: the work of `gve convert`.

Shape legend: B rows of a batch, T tokens, D width.
"""

import argparse
import gc
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, PreTrainedModel, ProcessorMixin

from gve.adapters import load_adapter
from gve.eval.console import fail
from gve.hub_datasets.uvrb import instructions
from gve.model_cards.checkpoints import Checkpoint, open_checkpoint
from gve.model_cards.stock import save_stock
from gve.pooling_gve import last_token_pool, truncate, unit
from gve.sentence_gve import save_embedder

ROOM = 64 << 20
"""Bytes for the tokenizer and the other small files."""

TOLERANCE = {torch.float32: 1e-5}
"""Difference between vectors of the source and the result that still counts as none; else `ROUNDED`."""
ROUNDED = 2e-2

logger = logging.getLogger(__name__)


def convert(arguments: argparse.Namespace) -> int:
    """Convert, compare the result with the source, and print a summary.

    Args:
        arguments: Those of `gve convert`.

    Returns:
        0.

    Raises:
        ValueError: For what cannot be converted, or has come out with other vectors; nothing is left behind.
    """
    started = time.monotonic()
    target: Path = arguments.target.absolute()
    checkpoint = open_checkpoint(arguments.source)
    _check_target(checkpoint.folder, target, force=arguments.force)
    _check_room(checkpoint, target, arguments.dtype)
    model, processor = _load(checkpoint, arguments)
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # what a killed run has left
    beside.mkdir(parents=True)
    try:
        summary = _write(beside, model, processor, checkpoint, arguments)
        expected = _vectors(model, processor)
        dtype, config = model.dtype, model.config
        del model
        gc.collect()  # the result is loaded next, and there may be room for one of them only
        logger.info("comparing the result with the source")
        differences = _compare(beside, processor, expected, config=config, stock=arguments.to == "stock")
        worst = max(differences.values())
        if not worst <= TOLERANCE.get(dtype, ROUNDED):
            fail(f"SRC: the result's vectors differ by {worst:.1e}; nothing was written; report this with the model")
        _put(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    summary |= {"bytes": size, "difference": differences, "seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps({"source": arguments.source, "target": str(arguments.target), **summary}) + "\n")
    return 0


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    """Refuse a target whose writing would lose something."""
    source, there = source.resolve(), target.resolve()
    if there == source or source in there.parents or there in source.parents:
        fail(f"DST: {str(target)!r} and SRC lie one in the other; a folder of its own is accepted; choose another")
    if not target.exists():
        return
    if not target.is_dir():
        fail(f"DST: {str(target)!r} is a file; a new or empty folder is accepted; choose another")
    if not any(target.iterdir()):
        return
    model = (target / "config.json").is_file() and (target / "modules.json").is_file()
    if not model:
        fail(f"DST: {str(target)!r} holds other files; a new or empty folder is accepted; choose another")
    if not force:
        fail(f"DST: {str(target)!r} holds a model; a new or empty folder is accepted; use --force to replace it")


def _check_room(checkpoint: Checkpoint, target: Path, dtype: str | None) -> None:
    """Refuse to begin what would not fit on the disk."""
    parent = next(folder for folder in target.parents if folder.is_dir())
    needed = checkpoint.size(getattr(torch, dtype).itemsize if dtype else None) + ROOM
    free = shutil.disk_usage(parent).free
    if free < needed:
        fail(
            f"DST: {str(parent)!r} has {_gib(free)} free; {_gib(needed)} are needed; make room or choose another disk"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _load(checkpoint: Checkpoint, arguments: argparse.Namespace) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The source as a model of ours, the adapter merged, every tensor in its place."""
    family, options = checkpoint.family, {}
    modes = "position_mode" in family.model.config_class.__dataclass_fields__
    if arguments.position_mode is not None:
        if not modes:
            fail(f"--position-mode: {family.types[1]} has one way to count positions; leave the option out")
        options["position_mode"] = arguments.position_mode
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else "auto"
    logger.info("loading %s as %s", checkpoint.folder, family.model.__name__)
    model, report = family.model.from_pretrained(checkpoint.folder, dtype=dtype, output_loading_info=True, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(sorted(map(str, report[kind]))[:3])
            fail(f"SRC: {len(report[kind])} {kind.replace('_', ' ')} ({names}); complete weights are accepted")
    if arguments.to == "stock" and modes and model.config.position_mode == "sequential":
        fail("--position-mode: stock code cannot count positions as 'sequential' does; pass mrope to accept its own")
    if arguments.adapter is not None:
        load_adapter(model, arguments.adapter, merge=True)
    processor = family.processor.from_pretrained(checkpoint.folder)
    processor.tokenizer.padding_side = "left"
    return model.eval(), processor


def _write(
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    checkpoint: Checkpoint,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Write the folder, and tell what is in it."""
    logger.info("writing the weights")
    family = checkpoint.family
    if arguments.to == "stock":
        save_stock(
            folder,
            model,
            processor,
            family=family,
            tokenizer=checkpoint.folder,
            prompts=instructions(),
            max_shard_size=arguments.max_shard_size,
        )
    else:
        save_embedder(folder, model, processor, prompts=instructions(), max_shard_size=arguments.max_shard_size)
    own = family.model.config_class.__dataclass_fields__
    return {
        "layout": arguments.to,
        "model_type": family.types[0 if arguments.to == "stock" else 1],
        "source_type": checkpoint.config["model_type"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tensors": len(model.state_dict()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "position_mode": model.config.position_mode if "position_mode" in own and arguments.to == "gve" else None,
        "adapter": None if arguments.adapter is None else str(arguments.adapter),
    }


def _samples() -> dict[str, Any]:
    """One text and one image, of which the vectors are compared."""
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    pixels = np.stack([*np.broadcast_arrays(ramp[:, None], ramp[None, ::-1]), np.full((96, 96), 90, np.uint8)], -1)
    return {"text": "a red circle moves to the left of a blue box", "image": {"image": PIL.Image.fromarray(pixels)}}


@torch.no_grad()
def _vectors(model: PreTrainedModel, processor: ProcessorMixin) -> dict[str, torch.Tensor]:
    """(D,) of each sample, on its own, so that no padding takes part."""
    return {name: model(**processor.prepare([row])).embeddings[0].float() for name, row in _samples().items()}


@torch.no_grad()
def _stock_vectors(folder: Path, processor: ProcessorMixin, config: Any) -> dict[str, torch.Tensor]:
    """(D,) of each sample by the stock model, pooled as the sentence-transformers files say."""
    model = AutoModel.from_pretrained(folder, dtype="auto").eval()
    out = {}
    for name, row in _samples().items():
        batch = processor.prepare([row])
        hidden = model(**batch, use_cache=False).last_hidden_state  # (1, T, D)
        pooled = truncate(last_token_pool(hidden, batch["attention_mask"]), config.truncate_dim)
        out[name] = (unit(pooled) if config.normalize else pooled)[0].float()
    return out


def _sentence_vectors(folder: Path) -> dict[str, torch.Tensor]:
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "auto"})
    rows = _samples()
    return {name: torch.from_numpy(model.encode([row])[0]).float() for name, row in rows.items()}


def _compare(
    folder: Path, processor: ProcessorMixin, expected: dict[str, torch.Tensor], *, config: Any, stock: bool
) -> dict[str, float]:
    """Largest difference of each sample's vector, over every way to load the folder."""
    if stock:  # sentence-transformers would need torchvision for the stock processor
        ways: list[Callable[[], dict[str, torch.Tensor]]] = [lambda: _stock_vectors(folder, processor, config)]
    else:
        ways = [lambda: _vectors(AutoModel.from_pretrained(folder, dtype="auto").eval(), processor)]
        ways.append(lambda: _sentence_vectors(folder))
    out = dict.fromkeys(expected, 0.0)
    for way in ways:
        for name, vector in way().items():
            out[name] = max(out[name], float((vector - expected[name]).abs().max()))
        gc.collect()
    return out


def _put(beside: Path, target: Path) -> None:
    """Give the complete folder its name; one that is replaced goes only then."""
    old = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    beside.rename(target)
    shutil.rmtree(old, ignore_errors=True)
