"""Architectures as numbers: what a plan needs of a model, counted without its weights.

Shapes: D width, L layers, R rank of an adapter.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from gve import GVEConfig
from gve.encoding.adapters import LORA_TARGETS

_QWEN_VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN_TEXT: dict[str, Any] = {
    "max_position_embeddings": 128000,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
BUILT_IN: dict[str, dict[str, dict[str, Any]]] = {
    "qwen2.5-vl-3b": {
        "text_config": _QWEN_TEXT
        | {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
        },
        "vision_config": _QWEN_VISION | {"out_hidden_size": 2048},
    },
    "qwen2.5-vl-7b": {
        "text_config": _QWEN_TEXT
        | {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
        "vision_config": _QWEN_VISION | {"out_hidden_size": 3584},
    },
}
"""The two backbones of the paper (Table 9), as their published configurations give them."""


@dataclass(frozen=True)
class Shape:
    """A model in numbers."""

    name: str  # what a plan calls it
    text: int  # parameters of the language model's layers
    embeddings: int  # parameters of its token embeddings
    vision: int  # parameters of the vision tower
    hidden: int  # D
    layers: int  # L
    heads: int  # attention heads
    kv_width: int  # width of the keys
    intermediate: int  # width of the MLP
    adapter: int  # inputs plus outputs of all layers that get adapters; times R it is the adapters' parameters
    vision_hidden: int  # width of the vision tower
    vision_depth: int  # its blocks
    vision_intermediate: int  # width of its MLP
    patch_values: int  # numbers of one patch's pixels
    merged: int  # patches that make one token

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.text + self.embeddings + self.vision


def load_shape(source: str) -> Shape:
    """The shape of a built-in backbone or of a folder with a `config.json`; no weight is read."""
    if source in BUILT_IN:
        return shape_of(GVEConfig(**BUILT_IN[source]), source)
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"shape: got {source!r}; {', '.join(BUILT_IN)} or a folder with config.json is accepted "
            f"({str(error).splitlines()[0]}); check the path"
        ) from error
    if not {"text_config", "vision_config"} <= set(config.sub_configs):
        raise ValueError(
            f"shape: got {source!r}, whose configuration is {type(config).__name__}; one with text_config and "
            "vision_config is accepted; take the folder of an embedder"
        )
    return shape_of(config, Path(source).name)


def shape_of(config: Any, name: str) -> Shape:
    """Count a configuration's model on the meta device."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    text, vision = config.text_config, config.vision_config
    embeddings = model.get_input_embeddings().weight.numel()
    tower = sum(value.numel() for value in model.visual.parameters())
    layers = [module for path, module in model.named_modules() if re.fullmatch(LORA_TARGETS, path)]
    head = text.hidden_size // text.num_attention_heads
    return Shape(
        name=name,
        text=sum(value.numel() for value in model.parameters()) - embeddings - tower,
        embeddings=embeddings,
        vision=tower,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_width=head * text.num_key_value_heads,
        intermediate=text.intermediate_size,
        adapter=sum(layer.in_features + layer.out_features for layer in layers),
        vision_hidden=vision.hidden_size,
        vision_depth=vision.depth,
        vision_intermediate=vision.intermediate_size,
        patch_values=3 * vision.temporal_patch_size * vision.patch_size**2,
        merged=vision.spatial_merge_size**2,
    )
