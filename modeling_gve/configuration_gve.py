"""The configuration of GVE: Qwen2.5-VL's, under its own model type, with the embedder's fields."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Qwen2_5_VLConfig

from .positions_gve import POSITION_MODES


def check_dim(dim: int | None, width: int) -> None:
    """Reject a `truncate_dim` outside 1 to the model's width; None keeps all dimensions."""
    if dim is not None and not (isinstance(dim, int) and 1 <= dim <= width):
        raise ValueError(f"truncate_dim: got {dim}; accepted are 1 to {width}, the model's width; lower it")


def drop_foreign_code(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Drop another model's `auto_map`: it would be saved again and name files that are not there."""
    own = (fields.get("auto_map") or {}).get("AutoConfig", "").rpartition(".")[2] == name
    return fields if own else {key: value for key, value in fields.items() if key != "auto_map"}


@strict
class GVEConfig(Qwen2_5_VLConfig):
    """Configuration of a `GVEModel`.

    Args:
        position_mode: `mrope` (default) is Qwen2.5-VL's own rule: three axes, and the text after an image or video
            continues at the largest position of all three plus one. `stock` is the rule of the installed transformers,
            which since 5.3 ignores the time axis there. `sequential` counts tokens on one axis.
        normalize: Whether embeddings have unit length.
        truncate_dim: Dimensions kept before normalising; None keeps all.
        stock_vision: Whether the vision tower computes exactly as transformers does, to the bit, instead of in fewer
            and larger products.
        batch_invariant: Whether attention on a CUDA device sums each row in one order, whatever else is in the batch;
            somewhat slower for few rows.
    """

    model_type = "gve"

    position_mode: str = "mrope"
    normalize: bool = True
    truncate_dim: int | None = None
    stock_vision: bool = False
    batch_invariant: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Take the fields over; a Qwen2.5-VL checkpoint's own model type is not kept, so that it saves as a GVE."""
        super().__post_init__(**drop_foreign_code(kwargs, type(self).__name__))
        self.model_type = type(self).model_type

    def validate_truncate_dim(self) -> None:
        """Reject more dimensions than the language model has."""
        check_dim(self.truncate_dim, self.text_config.hidden_size)

    def validate_position_mode(self) -> None:
        """Reject an unknown position mode."""
        if self.position_mode not in POSITION_MODES:
            raise ValueError(
                f"position_mode: got {self.position_mode!r}; accepted are {', '.join(POSITION_MODES)}; "
                "use 'mrope' unless a checkpoint was trained otherwise"
            )
