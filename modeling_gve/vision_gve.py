"""Features of the vision tower by themselves: made once, and given to the model in place of pixels.

Shape legend: S patches of M images or videos, V their vision tokens, D width of the model, W width of their features.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
)
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from .packing_gve import MEDIA


class VisionFeaturesMixin:
    """Splits a model in two: vision tower, then language model."""

    @property
    def vision_parts(self) -> int:
        """Vectors of width D that the tower gives for a token."""
        return 1

    @property
    def vision_width(self) -> int:
        """W, values that the tower gives for a token."""
        return self.vision_parts * self.config.vision_config.out_hidden_size

    def vision_features(self, pixel_values: torch.Tensor, grid_thw: torch.Tensor) -> torch.Tensor:
        """(V, W) vision features of images or of videos, for `forward` as `image_embeds` or `video_embeds`.

        Any selection of whole images or videos, in any order and repeated or not, is what the tower would give for it.
        """
        tables = self.tower_tables(grid_thw, None)
        return self.features_of(self.get_image_features(pixel_values, grid_thw, return_dict=True, **tables))

    def tower_tables(self, image_grid_thw: torch.Tensor | None, video_grid_thw: torch.Tensor | None) -> dict[str, Any]:
        """Precomputed tables for the tower's forward, from (images, 3) and (videos, 3) grids."""
        return {}

    def features_of(self, output: BaseModelOutputWithPooling) -> torch.Tensor:
        """(V, W) features as one tensor, from what `get_image_features` gives."""
        return torch.cat(tuple(output.pooler_output))

    def tower_output(self, features: torch.Tensor) -> BaseModelOutputWithPooling:
        """(V, W) features as the output of the tower that the backbone expects: the opposite of `features_of`."""
        return BaseModelOutputWithPooling(pooler_output=(features,))

    def with_features(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Replace `image_embeds` and `video_embeds`, and with them pixels, by outputs of the tower."""
        given = {embeds: inputs[embeds] for *_, embeds in MEDIA}
        rest = {name: value for name, value in inputs.items() if name not in given}
        if all(features is None for features in given.values()):
            return rest
        outputs = {}
        for name, _, pixels, embeds in MEDIA:
            features = given[embeds]
            if rest[pixels] is not None:
                # the backbone takes either pixels or features, but not pixels of the one and features of the other
                features = self.vision_features(rest[pixels], rest[f"{name}_grid_thw"])
                rest[pixels] = None
            if features is not None:
                outputs[name] = self.tower_output(features)
        return rest | {"mm_encoder_outputs": outputs}

    def check_features(self, inputs: dict[str, Any]) -> None:
        """Reject features that do not fit their grids, or that come with pixels of the same medium."""
        merge = self.config.vision_config.spatial_merge_size
        for name, _, pixels, embeds in MEDIA:
            features, grids = inputs[embeds], inputs[f"{name}_grid_thw"]
            if features is None:
                continue
            if inputs[pixels] is not None:
                raise ValueError(
                    f"{embeds}: got features and {pixels}; accepted is one of them; leave out the pixels that the "
                    "features were made of"
                )
            if grids is None:
                raise ValueError(
                    f"{embeds}: got features without {name}_grid_thw; accepted are both; pass the processor's grids"
                )
            wanted = (int(grids.prod(-1).sum()) // merge**2, self.vision_width)
            if tuple(features.shape) != wanted:
                raise ValueError(
                    f"{embeds}: got shape {tuple(features.shape)} where {name}_grid_thw needs {wanted}; accepted is what "
                    f"vision_features gives for these {name}s; make them with this model"
                )


class GVEVisionAttention(Qwen2_5_VLVisionAttention):
    """The stock vision attention, except that chunks of one length run as one batch instead of one by one.

    transformers 5.23 loops over the chunks in Python; with many short chunks the loop costs more than the attention.
    Parameters and results are those of the stock module.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attend within each chunk of (S, H * E).

        Args:
            cu_seqlens: (C + 1,), where the chunks start and end.
            position_embeddings: Cosines and sines, each (S, E).
        """
        lengths = cu_seqlens.diff()
        length = int(lengths[0])
        if (
            is_flash_attention_requested(self.config)
            or length * len(lengths) != len(hidden_states)
            or not bool((lengths == length).all())
        ):
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)
        patches = hidden_states.shape[0]
        q, k, v = self.qkv(hidden_states).view(patches, 3, self.num_heads, self.head_dim).unbind(1)  # (S, H, E)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (
            x.view(-1, length, self.num_heads, self.head_dim).transpose(1, 2) for x in (q, k, v)
        )  # (C, H, L, E)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        out, _ = attend(
            self,
            q,
            k,
            v,
            attention_mask=None,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            is_causal=False,
            **kwargs,
        )  # (C, L, H, E)
        return self.proj(out.reshape(patches, -1).contiguous())


class GVEPatchEmbed(Qwen2_5_VisionPatchEmbed):
    """The stock patch embedding as one matrix product: a convolution over single patches is three times as slow."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(S, values a patch) flat patches to (S, H * E)."""
        weight = self.proj.weight
        return nn.functional.linear(hidden_states.to(weight.dtype), weight.view(self.embed_dim, -1))


def install(visual: nn.Module) -> None:
    """Give a Qwen2.5-VL vision tower the faster parts, keeping its parameters."""
    # the classes add no state: parameters, hooks and names stay as they are, also on the meta device
    visual.patch_embed.__class__ = GVEPatchEmbed
    for block in visual.blocks:
        block.attn.__class__ = GVEVisionAttention


@lru_cache(maxsize=1024)
def _grid_tables(
    grid: tuple[int, int, int], merge: int, window: int, patch: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    table = torch.tensor([grid])
    positions = get_vision_position_ids(table, merge)
    index, edges = get_vision_window_index(table, spatial_merge_size=merge, window_size=window, patch_size=patch)
    return positions, index, edges.diff()


def vision_tables(grids: torch.Tensor, config: Qwen2_5_VLVisionConfig) -> dict[str, torch.Tensor]:
    """The index tables the tower would otherwise rebuild for each image and video of each batch.

    Returns:
        `position_ids`, `window_index` and `cu_window_seqlens` as the tower's forward takes them.
    """
    merge = config.spatial_merge_size
    tables = [_grid_tables(tuple(g), merge, config.window_size, config.patch_size) for g in grids.tolist()]
    tokens = torch.tensor([0] + [len(index) for _, index, _ in tables[:-1]]).cumsum(0).tolist()
    lengths = torch.cat([t[2] for t in tables])
    device = grids.device
    return {
        "position_ids": torch.cat([t[0] for t in tables]).to(device),
        "window_index": torch.cat([t[1] + start for t, start in zip(tables, tokens, strict=True)]).to(device),
        "cu_window_seqlens": nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)).to(device),
    }
