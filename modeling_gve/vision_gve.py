"""The vision tower: its features by themselves, in place of pixels, and its faster parts.

Shape legend: S patches of M images or videos, V their vision tokens, D width of the model, W width of their features,
H heads, E width of a head, R windows or frames.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLMLP,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from .packing_gve import (
    MEDIA,
    LengthGroups,
    attend_groups,
    attend_varlen,
    length_groups,
    on_device,
    row_edges,
    runs_varlen,
)

EVEN = 64
"""A width that a device's fast matrix kernels take divides by this."""


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
        options = self.attention_options()
        return self.features_of(self.get_image_features(pixel_values, grid_thw, return_dict=True, **options))

    def attention_options(self) -> dict[str, Any]:
        """Arguments that reach the attention of both parts."""
        return {"num_splits": 1} if self.config.batch_invariant else {}

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
    """The stock vision attention without its Python loop over windows or frames.

    A frame of 640 x 360 has windows of four sizes, so transformers 5.23 makes a call for each window: 960 a layer for 16
    videos. Here they are one call where torch attends over packed rows, else one for each distinct length. Parameters
    and results are those of the stock module.
    """

    windowed = False
    """Whether the layer attends within windows rather than frames."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        max_seqlen: int | None = None,
        *,
        window_groups: LengthGroups | None = None,
        frame_groups: LengthGroups | None = None,
        num_splits: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attend within each window or frame of (S, H * E).

        Args:
            cu_seqlens: (R + 1,), where they start and end.
            position_embeddings: Cosines and sines, each (S, E).
            max_seqlen: The longest; for attention in one call.
            window_groups: Windows by length, for attention by length; made from `cu_seqlens` if neither is given.
            frame_groups: The same for frames.
        """
        if is_flash_attention_requested(self.config):
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)
        patches = hidden_states.shape[0]
        q, k, v = self.qkv(hidden_states).view(patches, 3, self.num_heads, self.head_dim).unbind(1)  # (S, H, E)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        groups = window_groups if self.windowed else frame_groups
        if groups is None and max_seqlen is not None:
            out = attend_varlen(
                q, k, v, cu_seqlens, max_seqlen, causal=False, scale=self.scaling, num_splits=num_splits
            )
        else:
            groups = length_groups(cu_seqlens.diff().cpu().numpy(), q.device) if groups is None else groups
            dropout = self.attention_dropout if self.training else 0.0
            eager = self.config._attn_implementation == "eager"
            out = attend_groups(q, k, v, groups, causal=False, scale=self.scaling, dropout=dropout, eager=eager)
        return self.proj(out.reshape(patches, -1))


class GVEVisionMLP(Qwen2_5_VLMLP):
    """The stock MLP at a width that a device's fast matrix kernels take.

    Qwen2.5-VL's 3,420 is no multiple of 8, for which an H100 falls back to kernels of the generation before. The weights
    are padded with zeros at each call, which copies them once (26 MB a layer) where the product takes hundreds of times
    that; so loading, saving, adapters and sharding see the published shapes.
    """

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """(S, H * E) to (S, H * E)."""
        parts = (self.gate_proj, self.up_proj, self.down_proj)
        plain = all(type(part) is nn.Linear for part in parts)  # neither adapted nor quantised
        if plain and self.intermediate_size % 8 and hidden_state.is_cuda:
            return self.padded(hidden_state, -self.intermediate_size % EVEN)
        return super().forward(hidden_state)

    def padded(self, hidden_state: torch.Tensor, extra: int) -> torch.Tensor:
        """The same with `extra` units that are always zero."""
        gate, up = (
            F.linear(hidden_state, F.pad(part.weight, (0, 0, 0, extra)), F.pad(part.bias, (0, extra)))
            for part in (self.gate_proj, self.up_proj)
        )
        return F.linear(self.act_fn(gate) * up, F.pad(self.down_proj.weight, (0, extra)), self.down_proj.bias)


class GVEPatchEmbed(Qwen2_5_VisionPatchEmbed):
    """The stock patch embedding as one matrix product: a convolution over single patches is three times as slow."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(S, values a patch) flat patches to (S, H * E)."""
        weight = self.proj.weight
        return nn.functional.linear(hidden_states.to(weight.dtype), weight.view(self.embed_dim, -1))


class GVEVisionTower(Qwen2_5_VisionTransformerPretrainedModel):
    """The stock tower with its index tables looked up instead of rebuilt for each image and video of each batch."""

    def forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        """(S, values a patch) patches and (M, 3) grids to what the stock tower gives."""
        tables = vision_tables(grid_thw, self.config, attention_of(self))
        return super().forward(hidden_states, grid_thw=grid_thw, **(tables | kwargs))


def install(visual: nn.Module) -> None:
    """Give a Qwen2.5-VL vision tower the faster parts, keeping its parameters."""
    # the classes add no state: parameters, hooks and names stay as they are, also on the meta device
    visual.__class__ = GVEVisionTower
    visual.patch_embed.__class__ = GVEPatchEmbed
    for number, block in enumerate(visual.blocks):
        block.attn.__class__ = GVEVisionAttention
        block.attn.windowed = number not in visual.fullatt_block_indexes
        block.mlp.__class__ = GVEVisionMLP


def attention_of(visual: nn.Module) -> str:
    """How the tower attends: "varlen" or "groups"."""
    if is_flash_attention_requested(visual.config):
        return "varlen"
    if visual.config._attn_implementation == "eager":
        return "groups"
    device = visual.device
    casts = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if casts else visual.dtype
    return "varlen" if runs_varlen(device, dtype) else "groups"


@lru_cache(maxsize=1024)
def _grid_tables(
    grid: tuple[int, int, int], merge: int, window: int, patch: int
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Positions, order and lengths of the windows of one image or video."""
    table = torch.tensor([grid])
    positions = get_vision_position_ids(table, merge)
    index, edges = get_vision_window_index(table, spatial_merge_size=merge, window_size=window, patch_size=patch)
    return positions, index, edges.diff().numpy()


def row_tables(lengths: np.ndarray, device: torch.device, attention: str, *, windows: bool) -> dict[str, Any]:
    """What attention over R windows or frames of these (R,) lengths takes, under the names of the tower's forward."""
    edges = row_edges(lengths, device)
    out: dict[str, Any] = {"cu_window_seqlens" if windows else "cu_seqlens": edges}
    if attention == "varlen":
        out["max_window_seqlen" if windows else "max_seqlen"] = int(lengths.max())
    elif attention == "groups":
        out["window_groups" if windows else "frame_groups"] = length_groups(lengths, device)
    return out


def frame_lengths(grids: list[list[int]]) -> np.ndarray:
    """(R,) patches of each frame of images and videos."""
    return np.concatenate([np.full(time, height * width) for time, height, width in grids])


@torch.compiler.disable
def vision_tables(grids: torch.Tensor, config: Qwen2_5_VLVisionConfig, attention: str) -> dict[str, Any]:
    """The arguments that the tower's forward would otherwise compute, from (M, 3) grids.

    The grids come to the CPU once; nothing else waits for the device.
    """
    merge, known, device = config.spatial_merge_size, grids.tolist(), grids.device
    tables = [_grid_tables(tuple(grid), merge, config.window_size, config.patch_size) for grid in known]
    tokens = np.cumsum([0] + [len(index) for _, index, _ in tables[:-1]]).tolist()
    return {
        "position_ids": on_device(torch.cat([positions for positions, *_ in tables]), device),
        "window_index": on_device(
            torch.cat([index + start for (_, index, _), start in zip(tables, tokens, strict=True)]), device
        ),
        **row_tables(np.concatenate([lengths for *_, lengths in tables]), device, attention, windows=True),
        **row_tables(frame_lengths(known), device, attention, windows=False),
    }
