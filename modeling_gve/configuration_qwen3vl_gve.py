"""The configuration of GVE on Qwen3-VL: Qwen3-VL's, under its own model type, with the embedder's fields."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Qwen3VLConfig

from .configuration_gve import check_dim, drop_foreign_code


@strict
class GVEQwen3VLConfig(Qwen3VLConfig):
    """Configuration of a `GVEQwen3VLModel`; see `GVEConfig` for the fields.

    It has no `position_mode`: each step of a video is a grid of its own after its time in words, so the three rules
    give the same positions.
    """

    model_type = "gve_qwen3_vl"

    normalize: bool = True
    truncate_dim: int | None = None
    stock_vision: bool = False
    batch_invariant: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Take the fields over; a Qwen3-VL checkpoint's own model type is not kept, so that it saves as a GVE."""
        super().__post_init__(**drop_foreign_code(kwargs, type(self).__name__))
        self.model_type = type(self).model_type

    def validate_truncate_dim(self) -> None:
        """Reject more dimensions than the language model has."""
        check_dim(self.truncate_dim, self.text_config.hidden_size)
