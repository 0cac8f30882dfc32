"""Faster parts of the vision tower: attention over equal chunks as a batch, patch embedding, cached index tables.

Shape legend: S patches of a batch, C chunks (one a frame pair or window), L patches a chunk, H heads, E head width.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
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
        """Attend within each chunk.

        Args:
            hidden_states: (S, H * E).
            cu_seqlens: (C + 1,), where the chunks start and end.
            position_embeddings: Cosines and sines, each (S, E).
            max_seqlen: Length of the longest chunk, for flash attention.
            **kwargs: Passed on to the attention function.

        Returns:
            (S, H * E).
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
        """Embed flat patches.

        Args:
            hidden_states: (S, values a patch).

        Returns:
            (S, H * E).
        """
        weight = self.proj.weight
        return nn.functional.linear(hidden_states.to(weight.dtype), weight.view(self.embed_dim, -1))


def install(visual: nn.Module) -> None:
    """Give a Qwen2.5-VL vision tower the faster parts, keeping its parameters.

    Args:
        visual: The tower, `Qwen2_5_VLModel.visual`.
    """
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
    """The index tables that the vision tower would otherwise rebuild for each image and video of each batch.

    Args:
        grids: (images or videos, 3), patches along time, height and width.
        config: The tower's configuration.

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
