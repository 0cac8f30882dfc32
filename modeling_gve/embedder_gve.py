"""What every backbone needs to be an embedder: its output, pooling, normalising and one layout of weights.

Shape legend: B batch, T tokens, D width, M images or videos, V vision tokens of M, W width of their features.
"""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from transformers.distributed.fsdp import is_fsdp_managed_module
from transformers.integrations import peft as peft_integration
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import ModelOutput
from transformers.utils.generic import is_flash_attention_requested

from .configuration_gve import check_dim
from .packing_gve import (
    ATTENTION,
    group_by_length,
    join_parts,
    overhead,
    pack_batch,
    runs_varlen,
    spans,
    split_batch,
    unpack_hidden,
)
from .sentence_gve import write_sentence_files
from .vision_gve import VisionFeaturesMixin

# Versions. 5.24 refuses adapters unless peft is 0.22, which is not out, though all that it calls is in 0.20: drop this
# once pyproject.toml asks for peft >= 0.22. Elsewhere the code is the same for every version in the ranges.
if peft_integration.MIN_PEFT_VERSION == "0.22.0":
    peft_integration.MIN_PEFT_VERSION = "0.20.0"

BATCH_INPUTS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "pixel_values",
    "pixel_values_videos",
    "image_grid_thw",
    "video_grid_thw",
    "mm_token_type_ids",
    "second_per_grid_ts",
    "image_embeds",
    "video_embeds",
)
"""Arguments of `EmbedderMixin.forward` that hold a part for each row of the batch."""


@dataclass
class GVEModelOutput(ModelOutput):
    """Output of `GVEModel`.

    Attributes:
        embeddings: (B, D), float32 rows of unit length unless `config.normalize` is off.
        last_hidden_state: (B, T, D); at padding it means nothing.
    """

    embeddings: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class EmbedderMixin(VisionFeaturesMixin):
    """Makes a model of transformers an embedder; put it before the backbone's class.

    A backbone adds `backbone_inputs`, which turns the batch into what its own forward takes, and where its vision tower
    gives more than one vector a token, the methods of `VisionFeaturesMixin`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # noqa: RUF012 - read as a list by transformers

    def embed(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None, truncate_dim: int | None = None
    ) -> torch.Tensor:
        """Pool the last attended token of (B, T, D), truncate and normalise: (B, D), float32 if normalised."""
        pooled = last_token_pool(hidden, attention_mask)
        pooled = truncate(pooled, self.config.truncate_dim if truncate_dim is None else truncate_dim)
        return unit(pooled) if self.config.normalize else pooled

    def save_pretrained(
        self, save_directory: str | PathLike[str], save_original_format: bool = False, **kwargs: Any
    ) -> None:
        """Save under the module's own parameter names, with the files that sentence-transformers reads.

        transformers would rename the parameters back to the layout they were loaded from, and Trainer could not resume
        from that (huggingface/transformers#43701); pass `save_original_format` if you want it. Without the extra files
        sentence-transformers would average over all tokens.
        """
        super().save_pretrained(save_directory, save_original_format=save_original_format, **kwargs)
        if kwargs.get("is_main_process", True):
            write_sentence_files(save_directory, truncate_dim=self.config.truncate_dim)

    def compile_layers(self, **options: Any) -> None:
        """Compile each layer of both parts at its first call, with shapes that may change from batch to batch.

        Layers share their compiled code, so it takes seconds rather than the minutes of a whole model, and a new shape
        compiles nothing anew.

        Args:
            **options: For `torch.compile`, such as `backend`.
        """
        # all layers share the code that is compiled: both parts, with and without gradients, first and later passes
        torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)
        for layer in (*self.visual.blocks, *self.language_model.layers):
            layer.compile(dynamic=True, **options)

    def token_types(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) type of each token: 0 text, 1 image, 2 video."""
        return (input_ids == self.config.image_token_id).int() + 2 * (input_ids == self.config.video_token_id).int()

    def backbone_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Turn the arguments of `forward` into arguments of the backbone's forward."""
        return inputs

    def positions(self, inputs: dict[str, Any]) -> torch.Tensor:
        """(3, B, T) positions on the three axes, from the arguments of `forward`."""
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "attention_mask")
        return self.get_rope_index(**{name: inputs[name] for name in names})[0]

    def _backbone(self, inputs: dict[str, Any]) -> Any:
        given = self.attention_options() | self.backbone_inputs(self.with_features(inputs))
        return super().forward(use_cache=False, return_dict=True, **given)

    def _has_padding_to_spare(self, inputs: dict[str, Any]) -> bool:
        """Whether the rows may run in another arrangement than one padded batch.

        Not if an input or output has the batch's own shape, nor under a compiler, which would have to follow.
        """
        mask, text = inputs["attention_mask"], self.config.get_text_config()
        others = [value for name, value in inputs.items() if name not in BATCH_INPUTS]
        return (
            isinstance(mask, torch.Tensor)
            and mask.ndim == 2
            and inputs["input_ids"] is not None
            and inputs["position_ids"] is None
            and all(value is None or value is False for value in others)
            and not any(c.output_hidden_states or c.output_attentions for c in (self.config, text))
            and not torch.compiler.is_compiling()
            and (self._packs_rows() or not bool(mask.all()))
        )

    def _packs_rows(self) -> bool:
        """Whether attention reads where rows start, so that a batch needs no padding.

        Not in full precision on a device: there ours would wait for the rows' lengths in every layer.
        """
        text = self.config.get_text_config()
        kinds = getattr(text, "layer_types", None) or ()  # Qwen3-VL's text model has none
        if text._attn_implementation != ATTENTION or "sliding_attention" in kinds:
            return is_flash_attention_requested(text)
        casts = torch.is_autocast_enabled(self.device.type)
        dtype = torch.get_autocast_dtype(self.device.type) if casts else self.dtype
        return self.device.type == "cpu" or runs_varlen(self.device, dtype)

    def _must_stay_whole(self) -> bool:
        """Whether a batch must run as one.

        A training step may repeat a forward under the first one's random state, to drop the same units; and processes
        with sharded weights must run equally many batches.
        """
        sharded = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self)
        return torch.is_grad_enabled() or self.training or sharded

    def _encode(self, inputs: dict[str, Any]) -> Any:
        """Run the backbone, without most of the padding where that is cheaper."""
        if not self._has_padding_to_spare(inputs):
            return self._backbone(inputs)
        mask = inputs["attention_mask"]
        if self._packs_rows():
            packed, place = pack_batch(inputs, self.positions(inputs))
            out = self._backbone(packed)
            out.last_hidden_state = unpack_hidden(out.last_hidden_state, place, mask.shape)
            return out
        if self._must_stay_whole():
            return self._backbone(inputs)
        first, end = spans(mask.cpu().numpy() != 0)
        groups = group_by_length(end - first, overhead(mask.device))
        if len(groups) == 1:
            return self._backbone(inputs)
        parts = split_batch(inputs, groups, self.config.vision_config.spatial_merge_size)
        outs = [self._backbone(part) for part, _, _ in parts]
        hidden = join_parts([out.last_hidden_state for out in outs], [place for _, *place in parts], mask.shape)
        outs[0].last_hidden_state = hidden
        return outs[0]

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
        image_embeds: torch.Tensor | None = None,
        video_embeds: torch.Tensor | None = None,
        truncate_dim: int | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> GVEModelOutput | tuple[torch.Tensor, ...]:
        """Embed a batch made by the processor.

        Rows run without padding, as one, under attention that reads where they start (`gve_varlen`, flash attention);
        else, in evaluation and without gradients, as several batches of similar length. The embeddings are the same.

        Args:
            attention_mask: (B, T); the embedding is read at the last token it marks.
            pixel_values: Patches of all images, one after another.
            pixel_values_videos: Patches of all videos, one after another.
            image_grid_thw: (images, 3), patches along time, height and width.
            video_grid_thw: (videos, 3).
            mm_token_type_ids: (B, T), 0 text, 1 image, 2 video; derived from the ids when None.
            second_per_grid_ts: (videos,), seconds between two steps of the time axis.
            image_embeds: (V, W) from `vision_features`, in place of `pixel_values`.
            video_embeds: (V, W), in place of `pixel_values_videos`.
            truncate_dim: Dimensions to keep, `config.truncate_dim` by default.
        """
        kwargs.pop("use_cache", None)  # a cache has no use here, and would switch packed masks off
        dim = self.config.truncate_dim if truncate_dim is None else truncate_dim
        check_dim(dim, self.config.get_text_config().hidden_size)
        if input_ids is not None and mm_token_type_ids is None:
            # without it transformers silently counts positions on one axis
            mm_token_type_ids = self.token_types(input_ids)
        batch = (input_ids, attention_mask, position_ids, pixel_values, pixel_values_videos, image_grid_thw)
        batch += (video_grid_thw, mm_token_type_ids, second_per_grid_ts, image_embeds, video_embeds)
        inputs = dict(zip(BATCH_INPUTS, batch, strict=True))
        self.check_features(inputs)
        out = self._encode(inputs | kwargs)
        embeddings = self.embed(out.last_hidden_state, attention_mask, dim)
        result = GVEModelOutput(embeddings, out.last_hidden_state, out.hidden_states, out.attentions)
        return result.to_tuple() if return_dict is False else result


def choose_attention(config: Any) -> None:
    """Choose attention over packed rows where a device runs it, unless the caller chose."""
    usable = torch.cuda.is_available() and runs_varlen(torch.device("cuda"), torch.bfloat16)
    if usable and config._attn_implementation is None:
        config._attn_implementation = ATTENTION


def last_token_index(attention_mask: torch.Tensor) -> torch.Tensor:
    """(B,) column of the last attended token of each row, whatever the padding side."""
    length = attention_mask.shape[1]
    return length - 1 - attention_mask.ne(0).long().flip(-1).argmax(-1)  # (B,)


def last_token_pool(hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """(B, D) hidden state of each row's last attended token (paper, section 3.3); without a mask, its last token."""
    if attention_mask is None:
        return hidden[:, -1]
    index = last_token_index(attention_mask).to(hidden.device)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), index]  # (B, D)


def unit(embeddings: torch.Tensor) -> torch.Tensor:
    """Rows of unit length, in float32: bfloat16 would leave norms off by 0.2 %."""
    return F.normalize(embeddings.float(), p=2, dim=-1)


def truncate(embeddings: torch.Tensor, dim: int | None) -> torch.Tensor:
    """The first `dim` dimensions, not normalised, as Matryoshka training orders them (arXiv 2205.13147)."""
    check_dim(dim, embeddings.shape[-1])
    return embeddings if dim is None else embeddings[..., :dim]
