"""GVEQwen3VLModel: Qwen3-VL without a language head, whose output is one unit vector a row.

Shape legend: S patches of M images or videos, P values a patch, H width of the vision tower, V vision tokens, D width of the
model, L layers of the tower whose features the language model takes too.
"""

from typing import Any

import torch
from torch import nn
from transformers import Qwen3VLModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    BaseModelOutputWithDeepstackFeatures,
    Qwen3VLVisionAttention,
    Qwen3VLVisionModel,
    Qwen3VLVisionPatchEmbed,
)

from .configuration_qwen3vl_gve import GVEQwen3VLConfig
from .embedder_gve import EmbedderMixin, choose_attention
from .vision_gve import GVEVisionAttention, attention_of, frame_lengths, row_tables


class GVEQwen3VLVisionAttention(GVEVisionAttention, Qwen3VLVisionAttention):
    """The vision attention without the loop over frames; the two families' modules are alike."""


class GVEQwen3VLPatchEmbed(Qwen3VLVisionPatchEmbed):
    """The stock patch embedding as one matrix product, which is faster than a convolution over single patches."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(S, P) flat patches to (S, H)."""
        weight = self.proj.weight
        return nn.functional.linear(hidden_states.to(weight.dtype), weight.view(self.embed_dim, -1), self.proj.bias)


class GVEQwen3VLVisionTower(Qwen3VLVisionModel):
    """The stock tower with what attention needs made once a forward."""

    def forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        """(S, P) patches and (M, 3) grids of images and videos to what the stock tower gives."""
        lengths = frame_lengths(grid_thw.tolist())
        tables = row_tables(lengths, grid_thw.device, attention_of(self), windows=False)
        return super().forward(hidden_states, grid_thw=grid_thw, **(tables | kwargs))


class GVEQwen3VLModel(EmbedderMixin, Qwen3VLModel):
    """The General Video Embedder on the Qwen3-VL architecture.

    Published weights of Qwen3-VL load, with or without a language head; the head is dropped.
    """

    config_class = GVEQwen3VLConfig
    config: GVEQwen3VLConfig

    def __init__(self, config: GVEQwen3VLConfig) -> None:
        choose_attention(config)
        super().__init__(config)
        if config.stock_vision:
            return
        # the classes add no state: parameters, hooks and names stay as they are, also on the meta device
        self.visual.__class__ = GVEQwen3VLVisionTower
        self.visual.patch_embed.__class__ = GVEQwen3VLPatchEmbed
        for block in self.visual.blocks:
            block.attn.__class__ = GVEQwen3VLVisionAttention

    def backbone_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Drop the time steps, which this family reads as words; see `EmbedderMixin`."""
        return {name: value for name, value in inputs.items() if name != "second_per_grid_ts"}

    @property
    def vision_parts(self) -> int:
        """1 + L: the merged features, and those of the layers whose features the language model takes too."""
        return 1 + len(self.config.vision_config.deepstack_visual_indexes)

    def features_of(self, output: BaseModelOutputWithDeepstackFeatures) -> torch.Tensor:
        """(V, (1 + L) D) features: the merged ones, then those of each layer; see `VisionFeaturesMixin`."""
        return torch.cat(
            [torch.cat(tuple(part)) for part in (output.pooler_output, *output.deepstack_features)], dim=1
        )

    def tower_output(self, features: torch.Tensor) -> BaseModelOutputWithDeepstackFeatures:
        """What the backbone takes for the output of its vision tower; see `VisionFeaturesMixin`."""
        merged, *layers = features.chunk(self.vision_parts, dim=1)  # (V, D) each
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=(merged,), deepstack_features=[(layer,) for layer in layers]
        )
