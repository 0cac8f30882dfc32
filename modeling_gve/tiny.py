"""A GVE of about a million parameters, built from scratch, with a tokenizer trained on given texts."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from .configuration_gve import GVEConfig
from .modeling_gve import GVEModel
from .processing_gve import CHAT_TEMPLATE, GVEProcessor
from .video_processing_gve import GVEVideoProcessor

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2.5-VL's, in its order."""

INITIALIZER_RANGE = 0.05
CHAT_WORDS = "system\nYou are a helpful assistant.\nuser\nassistant\n"


def build_tokenizer(texts: Iterable[str], vocab_size: int = 900) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer of Qwen2's kind.

    Args:
        texts: What to train on.
        vocab_size: Tokens at most, the special ones included.

    Returns:
        A tokenizer with Qwen's special tokens, padding on the left.
    """
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(pattern=Regex(PRETOKENIZE_REGEX), behavior="isolated")
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([*texts, *[CHAT_WORDS] * 1000], trainer)
    learned = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=32768,
        padding_side="left",
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]}
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_config(
    tokenizer: Qwen2Tokenizer,
    *,
    vision_depth: int = 2,
    vision_hidden: int = 96,
    text_layers: int = 3,
    text_hidden: int = 128,
    heads: int = 4,
    patch_size: int = 8,
    rope_theta: float = 2.0,
    mrope_section: Sequence[int] | None = None,
) -> GVEConfig:
    """The tiny architecture.

    The base of the rotary positions is 2, not a million: an image is three tokens wide, and with a large base the
    height and width axes turn by less than a hundredth of a radian from one side to the other.

    Args:
        tokenizer: Where the vocabulary and the special tokens' ids come from.
        vision_depth: Blocks of the vision tower, all with full attention.
        vision_hidden: Width of the vision tower.
        text_layers: Layers of the language model.
        text_hidden: Width of the language model and of the embeddings.
        heads: Attention heads of both.
        patch_size: Side of a patch in pixels.
        rope_theta: Base of the rotary positions.
        mrope_section: Rotary pairs of the time, height and width axes.

    Returns:
        The configuration, with eager attention.
    """
    tokens = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
    start, stop, pad, image, video = tokenizer.convert_tokens_to_ids(list(tokens))
    vision = {
        "depth": vision_depth,
        "hidden_size": vision_hidden,
        "intermediate_size": vision_hidden * 8 // 3,
        "num_heads": heads,
        "patch_size": patch_size,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "window_size": 4096,
        "out_hidden_size": text_hidden,
        "fullatt_block_indexes": list(range(vision_depth)),
        "initializer_range": INITIALIZER_RANGE,
        "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
    }
    return GVEConfig(
        text_config=_text_config(tokenizer, text_hidden, text_layers, heads, rope_theta, mrope_section),
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=stop,
        vision_token_id=pad,
        attn_implementation="eager",
    )


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


def tiny_processor(tokenizer: Qwen2Tokenizer, *, frame_size: int, num_frames: int, patch_size: int) -> GVEProcessor:
    """The processor of a tiny model.

    Args:
        tokenizer: Its tokenizer.
        frame_size: Frames and images of this side are used as they are; larger ones are made as small.
        num_frames: Frames taken from each video.
        patch_size: Side of a patch in pixels.

    Returns:
        The processor.

    Raises:
        ValueError: If `frame_size` is not a multiple of two patches.
    """
    side = 2 * patch_size
    if frame_size < 2 * side or frame_size % side:
        raise ValueError(
            f"frame_size: got {frame_size}; accepted are multiples of {side} from {2 * side} on; round it"
        )
    budget = {"shortest_edge": 4 * side**2, "longest_edge": frame_size**2}
    image = Qwen2VLImageProcessorPil(size=dict(budget), patch_size=patch_size, merge_size=2, temporal_patch_size=2)
    video = GVEVideoProcessor(num_frames=num_frames, size=budget, patch_size=patch_size)
    return GVEProcessor(image, tokenizer, video)


def build_tiny(
    texts: Iterable[str],
    *,
    seed: int = 0,
    frame_size: int = 48,
    num_frames: int = 8,
    vocab_size: int = 900,
    patch_size: int = 8,
    qk_bias_std: float = 0.5,
    **architecture: Any,
) -> tuple[GVEModel, GVEProcessor]:
    """Build an untrained model and its processor.

    Args:
        texts: What the tokenizer is trained on.
        seed: Seed of the weights; the caller's random state stays as it is.
        frame_size: Side of the frames and images in pixels.
        num_frames: Frames taken from each video.
        vocab_size: Tokens at most.
        patch_size: Side of a patch in pixels.
        qk_bias_std: Deviation of the query and key biases of the language model, which let attention depend on
            positions from the first step on.
        **architecture: Passed on to `tiny_config`.

    Returns:
        The model in evaluation mode, float32, and the processor.
    """
    tokenizer = build_tokenizer(texts, vocab_size)
    processor = tiny_processor(tokenizer, frame_size=frame_size, num_frames=num_frames, patch_size=patch_size)
    config = tiny_config(tokenizer, patch_size=patch_size, **architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GVEModel(config)
        for layer in model.language_model.layers:
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                torch.nn.init.normal_(projection.bias, std=qk_bias_std)
    return model.eval(), processor
