"""GVEModel: Qwen2.5-VL without a language head, whose output is one unit vector a row.

Shape legend: B batch, T tokens, D width.
"""

from typing import Any

import torch
from transformers import Qwen2_5_VLModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from .configuration_gve import GVEConfig
from .embedder_gve import EmbedderMixin, choose_attention
from .positions_gve import mrope_positions
from .vision_gve import install


class GVEModel(EmbedderMixin, Qwen2_5_VLModel):
    """The General Video Embedder on the Qwen2.5-VL architecture.

    Weights in every published layout of Qwen2.5-VL load, with or without a language head; the head is dropped.
    """

    config_class = GVEConfig
    config: GVEConfig

    def __init__(self, config: GVEConfig) -> None:
        choose_attention(config)
        super().__init__(config)
        if not config.stock_vision:
            install(self.visual)

    def get_rope_index(
        self,
        input_ids: torch.Tensor,
        mm_token_type_ids: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | list[float] | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(3, B, T) positions on the three axes, and (B, 1) their excess over each row's length.

        Args:
            second_per_grid_ts: (videos,), seconds between two steps of the time axis.
        """
        types = self.token_types(input_ids) if mm_token_type_ids is None else mm_token_type_ids
        if self.config.position_mode == "stock":
            return super().get_rope_index(
                input_ids, types, image_grid_thw, video_grid_thw, second_per_grid_ts, attention_mask, **kwargs
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if isinstance(second_per_grid_ts, torch.Tensor):
            second_per_grid_ts = second_per_grid_ts.float().tolist()
        sequential = self.config.position_mode == "sequential"
        vision = self.config.vision_config
        positions, deltas = mrope_positions(
            torch.zeros_like(types).cpu().numpy() if sequential else types.cpu().numpy(),
            mask.cpu().numpy() != 0,
            image_grids=[] if sequential or image_grid_thw is None else image_grid_thw.tolist(),
            video_grids=[] if sequential or video_grid_thw is None else video_grid_thw.tolist(),
            seconds=None if sequential else second_per_grid_ts,
            merge=vision.spatial_merge_size,
            tokens_per_second=vision.tokens_per_second,
        )
        device = input_ids.device
        return torch.from_numpy(positions).to(device), torch.from_numpy(deltas).unsqueeze(1).to(device)

    def positions(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Positions on the three axes, videos on the clock of `second_per_grid_ts`; see `EmbedderMixin`."""
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        return self.get_rope_index(*(inputs[name] for name in names), attention_mask=inputs["attention_mask"])[0]

    def backbone_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add the positions; see `EmbedderMixin`."""
        if inputs["position_ids"] is None and inputs["input_ids"] is not None and self.config.position_mode != "stock":
            inputs["position_ids"] = self.positions(inputs)
        return inputs


# The published layouts are visual.* + model.* and model.visual.* + model.language_model.*; the first needs a renaming
# (the library converts none for classes outside it). The pattern is also reversed on saving: this form survives that.
register_checkpoint_conversion_mapping(
    "GVEModel",
    [WeightRenaming(source_patterns=r"^model(?!\.(language_model|visual))", target_patterns="language_model")],
    overwrite=True,
)
