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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, PreTrainedModel, ProcessorMixin

from gve.embedder_gve import last_token_pool, truncate, unit
from gve.encoding.adapters import load_adapter
from gve.encoding.checkpoints import Checkpoint, check_position_mode, open_checkpoint
from gve.eval.console import fail
from gve.hub_datasets.uvrb import instructions
from gve.model_cards.loadback import model_vectors, samples, sentence_vectors, tolerance
from gve.model_cards.stock import architecture_of, save_stock
from gve.sentence_gve import save_embedder

ROOM = 64 << 20
"""Bytes for the tokenizer and the other small files."""

logger = logging.getLogger(__name__)


def convert(arguments: argparse.Namespace) -> int:
    """Convert, compare with the source, and print a summary; an error leaves nothing behind."""
    started = time.monotonic()
    target: Path = arguments.target.absolute()
    checkpoint = open_checkpoint(arguments.source, argument="SRC")
    _check_target(checkpoint.folder, target, force=arguments.force)
    _check_room(checkpoint, target, arguments.dtype)
    model, processor = _load(checkpoint, arguments)
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # what a killed run has left
    beside.mkdir(parents=True)
    try:
        summary = _write(beside, model, processor, checkpoint, arguments)
        expected, config = model_vectors(model, processor), model.config
        del model
        gc.collect()  # the result is loaded next, and there may be room for one of them only
        logger.info("comparing the result with the source")
        differences = _compare(beside, processor, expected, config=config, stock=arguments.to == "stock")
        worst = max(differences.values())
        if not worst <= tolerance(summary["dtype"]):
            fail(f"SRC: the result's vectors differ by {worst:.1e}; nothing was written. Report this with the model.")
        _put(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    summary |= {"bytes": size, "difference": differences, "seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps({"source": arguments.source, "target": str(arguments.target), **summary}) + "\n")
    return 0


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    """Refuse a target if writing it would lose something."""
    source, there = source.resolve(), target.resolve()
    if there == source or source in there.parents or there in source.parents:
        fail(f"DST: {str(target)!r} and SRC lie one in the other. Choose a folder of its own.")
    if not target.exists():
        return
    if not target.is_dir():
        fail(f"DST: must be a new or empty folder, got {str(target)!r}, which is a file. Choose another.")
    if not any(target.iterdir()):
        return
    if not ((target / "config.json").is_file() and (target / "modules.json").is_file()):
        fail(f"DST: must be a new or empty folder, got {str(target)!r}, which holds other files. Choose another.")
    if not force:
        fail(f"DST: {str(target)!r} holds a model. Choose a new or empty folder, or use --force to replace it.")


def _check_room(checkpoint: Checkpoint, target: Path, dtype: str | None) -> None:
    parent = next(folder for folder in target.parents if folder.is_dir())
    needed = checkpoint.size(getattr(torch, dtype).itemsize if dtype else None) + ROOM
    free = shutil.disk_usage(parent).free
    if free < needed:
        fail(
            f"DST: {str(parent)!r} has {free / 2**30:.2f} GiB free, {needed / 2**30:.2f} GiB are needed. Make room or "
            "choose another disk."
        )


def _load(checkpoint: Checkpoint, arguments: argparse.Namespace) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The source as our model, with the adapter merged."""
    check_position_mode(arguments.position_mode, checkpoint.config["model_type"], argument="--position-mode")
    config = checkpoint.load_config(arguments.position_mode)
    if arguments.to == "stock" and getattr(config, "position_mode", None) == "sequential":
        fail("--position-mode: stock code cannot count positions as 'sequential' does. Pass mrope to accept its own.")
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else "auto"
    logger.info("loading %s as %s", checkpoint.folder, checkpoint.model_class.__name__)
    model = checkpoint.model_class.from_pretrained(checkpoint.folder, config=config, dtype=dtype)
    if arguments.adapter is not None:
        load_adapter(model, arguments.adapter, merge=True)
    return model.eval(), checkpoint.load_processor()


def _write(
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    checkpoint: Checkpoint,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    logger.info("writing the weights")
    architecture, stock = architecture_of(checkpoint.published_type), arguments.to == "stock"
    options = {"prompts": instructions() | checkpoint.prompts, "max_shard_size": arguments.max_shard_size}
    if stock:
        options |= {"architecture": architecture, "tokenizer": checkpoint.folder}
    (save_stock if stock else save_embedder)(folder, model, processor, **options)
    return {
        "layout": arguments.to,
        "model_type": architecture.types[0 if stock else 1],
        "source_type": checkpoint.config["model_type"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tensors": len(model.state_dict()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "position_mode": None if stock else getattr(model.config, "position_mode", None),
        "adapter": None if arguments.adapter is None else str(arguments.adapter),
    }


@torch.no_grad()
def _stock_vectors(folder: Path, processor: ProcessorMixin, config: Any) -> np.ndarray:
    """(2, D) of text and image by the stock model, pooled as the sentence-transformers files say."""
    model = AutoModel.from_pretrained(folder, dtype="auto").eval()
    rows = []
    for row in [*samples().values()][:2]:  # times of a video count otherwise in stock code
        batch = processor.prepare([row])
        hidden = model(**batch, use_cache=False).last_hidden_state  # (1, T, D)
        pooled = truncate(last_token_pool(hidden, batch["attention_mask"]), config.truncate_dim)
        rows.append((unit(pooled) if config.normalize else pooled)[0].float().numpy())
    return np.stack(rows)


def _compare(
    folder: Path, processor: ProcessorMixin, expected: np.ndarray, *, config: Any, stock: bool
) -> dict[str, float]:
    """Largest difference of each sample's vector, over every way to load the folder."""
    if stock:  # sentence-transformers would need torchvision for the stock processor
        found = [_stock_vectors(folder, processor, config)]
    else:
        found = [model_vectors(AutoModel.from_pretrained(folder, dtype="auto").eval(), processor)]
        gc.collect()
        sentence = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "auto"})
        found.append(sentence_vectors(sentence))
    worst = np.max([np.abs(rows - expected[: len(rows)]).max(-1) for rows in found], axis=0)
    return dict(zip(samples(), worst.tolist(), strict=False))  # stock has no third


def _put(beside: Path, target: Path) -> None:
    """Move the complete folder into place; only then does the old one go."""
    old = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    beside.rename(target)
    shutil.rmtree(old, ignore_errors=True)
