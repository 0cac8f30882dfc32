"""Whole weights into and out of a model, also one whose parameters are spread over processes (FSDP2)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from gve.sentence_gve import save_embedder
from gve.trainers.arguments import GVETrainingArguments

EXCLUDED = {
    "cache_tokens": "processes would wait for one another's pieces",
    "use_muon": "the optimizer would keep the parameters that FSDP replaces",
    "master_weights": "the optimizer would keep the parameters that FSDP replaces",
    "share_media": "the vision tower would run outside the forward that brings its weights together",
    "vision_cache_dir": "the vision tower would run outside the forward that brings its weights together",
}
"""Settings that do not work with sharded parameters, and why."""

INNER = "0.model."
"""Where a SentenceTransformer keeps the model of transformers."""


def load_weights(model: nn.Module, checkpoint: Path, *, sharded: bool) -> bool:
    """Read the weights of a checkpoint into a live model."""
    files = weight_files(checkpoint)
    if not files:
        return False
    missing, unknown = set(model[0].model.state_dict()), set()
    for part in map(load_file, files):  # one file of a large model at a time
        unknown |= set(part) - set(_load_part(model, part, sharded=sharded))
        missing -= set(part)
    if missing or unknown:
        raise ValueError(
            f"resume_from_checkpoint: got {checkpoint} without {len(missing)} of the model's tensors and with "
            f"{len(unknown)} unknown ones ({', '.join(sorted(missing | unknown)[:3])}); a checkpoint of the same model "
            "is accepted; resume with the model that the run began with"
        )
    return True


def weight_files(folder: Path) -> list[Path]:
    """The files of the weights in a model folder; none where it holds an adapter only."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return [file for file in (folder / SAFE_WEIGHTS_NAME,) if file.is_file()]


def _load_part(model: nn.Module, part: dict[str, Tensor], *, sharded: bool) -> Iterator[str]:
    """Load some of the weights, and give the names that the model knows."""
    inner = model[0].model
    if sharded:
        options = StateDictOptions(full_state_dict=True, strict=False)
        result = set_model_state_dict(inner, part, options=options)
    else:
        result = inner.load_state_dict(part, strict=False)
    unknown = set(result.unexpected_keys)
    return (name for name in part if name not in unknown)


def write_model(model: nn.Module, folder: Path, weights: dict[str, Any] | None) -> None:
    """Write a model folder, or only its adapter; without the stock card, which would run the model."""
    inner = model[0].model
    weights = None if weights is None else {name.removeprefix(INNER): value for name, value in weights.items()}
    if inner._hf_peft_config_loaded:
        with saving_as(inner, weights):
            model.save_pretrained(str(folder), create_model_card=False)
    else:
        save_embedder(folder, inner, model.processor, prompts=dict(model.prompts), state_dict=weights)


@contextmanager
def saving_as(model: nn.Module, weights: dict[str, Any] | None) -> Iterator[None]:
    """Let a model be saved with weights, by its names, that it does not hold whole itself; None changes nothing."""
    if weights is None:
        yield
        return
    model.save_pretrained = partial(type(model).save_pretrained, model, state_dict=weights)
    try:
        yield
    finally:
        del model.save_pretrained


def check_sharding(args: GVETrainingArguments, *, enabled: bool) -> None:
    """Refuse settings that do not work with sharded parameters."""
    if args.fsdp and not enabled:
        raise ValueError(
            f"fsdp: got {args.fsdp} on {args.device.type} with {args.world_size} process(es), where accelerate would run "
            "plain data parallelism without a word; several processes on GPUs are accepted; start with accelerate launch "
            "or torchrun, or leave fsdp out"
        )
    for name, reason in EXCLUDED.items():
        if enabled and getattr(args, name):
            raise ValueError(
                f"{name}: got {getattr(args, name)} under FSDP; {reason}; turn it off, or use DDP, where it is accepted"
            )
