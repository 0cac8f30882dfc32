"""A GVE of about a million parameters, built from scratch, with a tokenizer trained on given texts."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from gve.chat_gve import DEFAULT_SYSTEM
from gve.configuration_gve import GVEConfig
from gve.configuration_qwen3vl_gve import GVEQwen3VLConfig
from gve.modeling_gve import GVEModel
from gve.modeling_qwen3vl_gve import GVEQwen3VLModel
from gve.processing_gve import GVEProcessor
from gve.processing_qwen3vl_gve import QWEN3VL_SYSTEM, GVEQwen3VLProcessor
from gve.tiny.tokenizer import build_tokenizer
from gve.video_processing_gve import GVEVideoProcessor

INITIALIZER_RANGE = 0.05
QK_BIAS_STD = 0.5


class Family(NamedTuple):
    """What distinguishes one backbone's tiny embedder; `time_words` is what a video adds to the words of a chat."""

    config: type[GVEConfig | GVEQwen3VLConfig]
    model: type[GVEModel | GVEQwen3VLModel]
    processor: type[GVEProcessor | GVEQwen3VLProcessor]
    default_system: str
    time_words: str
    mean: Sequence[float]
    std: Sequence[float]


FAMILIES = {
    "qwen2_5_vl": Family(GVEConfig, GVEModel, GVEProcessor, DEFAULT_SYSTEM, "", OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "qwen3_vl": Family(
        GVEQwen3VLConfig,
        GVEQwen3VLModel,
        GVEQwen3VLProcessor,
        QWEN3VL_SYSTEM,
        "<0.1 seconds>",
        IMAGENET_STANDARD_MEAN,
        IMAGENET_STANDARD_STD,
    ),
}
"""The backbones by the model type of their published checkpoints."""


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"family: got {name!r}; accepted are {', '.join(FAMILIES)}; choose one")
    return FAMILIES[name]


def tiny_config(
    tokenizer: Qwen2Tokenizer,
    *,
    family: str = "qwen2_5_vl",
    vision_depth: int = 2,
    vision_hidden: int = 96,
    text_layers: int = 3,
    text_hidden: int = 128,
    heads: int = 4,
    patch_size: int = 8,
    rope_theta: float = 2.0,
    mrope_section: Sequence[int] | None = None,
) -> GVEConfig | GVEQwen3VLConfig:
    """The tiny architecture, with eager attention.

    The base of the rotary positions is 2, not a million: an image is three tokens wide, and with a large base the
    height and width axes turn by less than a hundredth of a radian from one side to the other.

    Args:
        mrope_section: Rotary pairs of the time, height and width axes.
    """
    config = _family(family).config
    tokens = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    start, stop, image, video = tokenizer.convert_tokens_to_ids(list(tokens))
    text = _text_config(tokenizer, text_hidden, text_layers, heads, rope_theta, mrope_section)
    vision = _vision_config(vision_depth, vision_hidden, heads, patch_size) | {"out_hidden_size": text_hidden}
    own: dict[str, Any] = {}
    if config is GVEQwen3VLConfig:
        text["head_dim"] = text_hidden // heads
        text["rope_parameters"]["mrope_interleaved"] = True
        # as published: no features from the last block, and no more of them than the language model has layers
        taps = list(range(max(1, min(vision_depth - 1, text_layers))))
        vision |= {"num_position_embeddings": 8 * 8, "deepstack_visual_indexes": taps}
    else:
        blocks = list(range(vision_depth))
        vision |= {"tokens_per_second": 2, "window_size": 4096, "fullatt_block_indexes": blocks}
        own["vision_token_id"] = tokenizer.convert_tokens_to_ids("<|vision_pad|>")
    return config(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=stop,
        attn_implementation="eager",
        **own,
    )


def _vision_config(depth: int, hidden: int, heads: int, patch_size: int) -> dict[str, Any]:
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": hidden * 8 // 3,
        "num_heads": heads,
        "patch_size": patch_size,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": INITIALIZER_RANGE,
        "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
    }


def _text_config(
    tokenizer: Qwen2Tokenizer,
    hidden: int,
    layers: int,
    heads: int,
    rope_theta: float,
    mrope_section: Sequence[int] | None,
) -> dict[str, Any]:
    pairs = hidden // heads // 2
    side = pairs * 5 // 16
    end, turn = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    # no pad_token_id: it would freeze the end token's vector at zero
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": hidden * 5 // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 8192,
        "initializer_range": INITIALIZER_RANGE,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": rope_theta,
            "mrope_section": list(mrope_section or (pairs - 2 * side, side, side)),
        },
        "bos_token_id": end,
        "eos_token_id": turn,
        "use_cache": False,
    }


def tiny_processor(
    tokenizer: Qwen2Tokenizer, *, frame_size: int, num_frames: int, patch_size: int, family: str = "qwen2_5_vl"
) -> GVEProcessor | GVEQwen3VLProcessor:
    """The processor of a tiny model; frames and images larger than `frame_size` pixels a side are resized to it."""
    side = 2 * patch_size
    if frame_size < 2 * side or frame_size % side:
        raise ValueError(
            f"frame_size: got {frame_size}; accepted are multiples of {side} from {2 * side} on; round it"
        )
    kind = _family(family)
    budget = {"shortest_edge": 4 * side**2, "longest_edge": frame_size**2}
    pixels = {"patch_size": patch_size, "image_mean": list(kind.mean), "image_std": list(kind.std)}
    image = Qwen2VLImageProcessorPil(size=dict(budget), merge_size=2, temporal_patch_size=2, **pixels)
    video = GVEVideoProcessor(num_frames=num_frames, size=budget, **pixels)
    return kind.processor(image, tokenizer, video)


def build_tiny(
    texts: Iterable[str],
    *,
    family: str = "qwen2_5_vl",
    seed: int = 0,
    frame_size: int = 48,
    num_frames: int = 8,
    vocab_size: int = 900,
    patch_size: int = 8,
    qk_bias_std: float | None = None,
    **architecture: Any,
) -> tuple[GVEModel | GVEQwen3VLModel, GVEProcessor | GVEQwen3VLProcessor]:
    """Build an untrained model, float32 and in evaluation mode, and its processor.

    Args:
        seed: Seed of the weights; the caller's random state does not change.
        qk_bias_std: Deviation of the query and key biases of Qwen2.5-VL's language model, which let attention depend
            on positions from the first step; `QK_BIAS_STD` by default. Qwen3-VL has none: it normalises queries and
            keys, which has the same effect.
    """
    kind = _family(family)
    biased = kind.model is GVEModel
    if qk_bias_std is not None and not biased:
        raise ValueError(
            f"qk_bias_std: got {qk_bias_std}; accepted is None, {family} has no such biases; leave it out"
        )
    tokenizer = build_tokenizer(texts, vocab_size, default_system=kind.default_system, time_words=kind.time_words)
    processor = tiny_processor(
        tokenizer, frame_size=frame_size, num_frames=num_frames, patch_size=patch_size, family=family
    )
    config = tiny_config(tokenizer, patch_size=patch_size, family=family, **architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.model(config)
        if biased:
            for layer in model.language_model.layers:
                for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                    torch.nn.init.normal_(projection.bias, std=QK_BIAS_STD if qk_bias_std is None else qk_bias_std)
    return model.eval(), processor
