"""GVEModel: Qwen2.5-VL without a language head, whose output is one unit vector a row.

Shape legend: B batch, T tokens, D width.
"""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from transformers import Qwen2_5_VLModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.utils import ModelOutput

from .attention_gve import install, vision_tables
from .configuration_gve import GVEConfig
from .pooling_gve import last_token_pool, unit
from .positions_gve import mrope_positions


@dataclass
class GVEModelOutput(ModelOutput):
    """Output of `GVEModel`.

    Attributes:
        embeddings: (B, D), float32 rows of unit length unless `config.normalize` is off.
        last_hidden_state: (B, T, D).
        hidden_states: One (B, T, D) a layer, when asked for.
        attentions: One (B, heads, T, T) a layer, when asked for.
    """

    embeddings: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class EmbedderMixin:
    """Pooling and normalising, apart from the backbone, so that another backbone can take them over."""

    def embed(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Pool the last attended token and normalise.

        Args:
            hidden: (B, T, D).
            attention_mask: (B, T) or None.

        Returns:
            (B, D), float32 when normalised.
        """
        pooled = last_token_pool(hidden, attention_mask)
        return unit(pooled) if self.config.normalize else pooled


class GVEModel(EmbedderMixin, Qwen2_5_VLModel):
    """The General Video Embedder on the Qwen2.5-VL architecture.

    Weights in every published layout of Qwen2.5-VL load, with or without a language head; the head is dropped.

    Args:
        config: A `GVEConfig`.
    """

    config_class = GVEConfig
    config: GVEConfig
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # noqa: RUF012 - read as a list by transformers

    def __init__(self, config: GVEConfig) -> None:
        super().__init__(config)
        install(self.visual)

    def save_pretrained(
        self, save_directory: str | PathLike[str], save_original_format: bool = False, **kwargs: Any
    ) -> None:
        """Save under the module's own parameter names.

        transformers would otherwise rename them back to the layout they were loaded from, which Trainer's resume then
        fails to read (huggingface/transformers#43701).

        Args:
            save_directory: The folder.
            save_original_format: Rename the weights back all the same.
            **kwargs: Passed on to transformers.
        """
        super().save_pretrained(save_directory, save_original_format=save_original_format, **kwargs)

    def token_types(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Type of each token, from its id.

        Args:
            input_ids: (B, T).

        Returns:
            (B, T), 0 text, 1 image, 2 video.
        """
        return (input_ids == self.config.image_token_id).int() + 2 * (input_ids == self.config.video_token_id).int()

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
        """Positions on the three axes.

        Args:
            input_ids: (B, T).
            mm_token_type_ids: (B, T), or None to derive it from the ids.
            image_grid_thw: (images, 3).
            video_grid_thw: (videos, 3).
            second_per_grid_ts: (videos,), seconds between two steps of the time axis.
            attention_mask: (B, T).
            **kwargs: Passed on in the `stock` mode.

        Returns:
            (3, B, T) positions and (B, 1) differences to the row's length.
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

    def _vision_kwargs(
        self, image_grid_thw: torch.Tensor | None, video_grid_thw: torch.Tensor | None
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, grids in (("image", image_grid_thw), ("video", video_grid_thw)):
            if grids is not None:
                tables = vision_tables(grids, self.config.vision_config)
                out.update({f"{name}_{key}": value for key, value in tables.items()})
        return out

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        image_grid_thw: torch.LongTensor | None = None,
        video_grid_thw: torch.LongTensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | list[float] | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> GVEModelOutput | tuple[torch.Tensor, ...]:
        """Embed a batch made by `GVEProcessor`.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T); the embedding is read at the last token it marks.
            position_ids: (3, B, T), computed when None.
            pixel_values: Patches of all images, one after another.
            pixel_values_videos: Patches of all videos, one after another.
            image_grid_thw: (images, 3), patches along time, height and width.
            video_grid_thw: (videos, 3).
            mm_token_type_ids: (B, T), 0 text, 1 image, 2 video; derived from the ids when None.
            second_per_grid_ts: (videos,), seconds between two steps of the time axis.
            return_dict: False for a tuple.
            **kwargs: Passed on to Qwen2.5-VL.

        Returns:
            The embeddings and the hidden states.
        """
        kwargs.pop("use_cache", None)  # a cache has no use here, and would switch packed masks off
        if input_ids is not None and mm_token_type_ids is None:
            # without it transformers silently counts positions on one axis
            mm_token_type_ids = self.token_types(input_ids)
        if position_ids is None and input_ids is not None and self.config.position_mode != "stock":
            position_ids, _ = self.get_rope_index(
                input_ids, mm_token_type_ids, image_grid_thw, video_grid_thw, second_per_grid_ts, attention_mask
            )
        out = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            second_per_grid_ts=second_per_grid_ts,
            return_dict=True,
            **{**self._vision_kwargs(image_grid_thw, video_grid_thw), **kwargs},
        )
        embeddings = self.embed(out.last_hidden_state, attention_mask)
        result = GVEModelOutput(embeddings, out.last_hidden_state, out.hidden_states, out.attentions)
        return result.to_tuple() if return_dict is False else result


# The published layouts are visual.* + model.* and model.visual.* + model.language_model.*; the first needs a renaming
# (the library converts none for classes outside it). The pattern is also reversed on saving: this form survives that.
register_checkpoint_conversion_mapping(
    "GVEModel",
    [WeightRenaming(source_patterns=r"^model(?!\.(language_model|visual))", target_patterns="language_model")],
    overwrite=True,
)
