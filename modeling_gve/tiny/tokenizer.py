"""A byte-level BPE tokenizer of Qwen2's kind, trained on given texts."""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from gve.chat_gve import DEFAULT_SYSTEM, template_with

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


def build_tokenizer(
    texts: Iterable[str], vocab_size: int = 900, *, default_system: str = DEFAULT_SYSTEM, time_words: str = ""
) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer with Qwen's special tokens, padding on the left.

    Args:
        time_words: What a video adds to their words.
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
    chat = f"system\n{default_system}\nuser\nassistant\n{time_words}"
    trained.train_from_iterator([*texts, *[chat] * 1000], trainer)
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
    tokenizer.chat_template = template_with(default_system)
    return tokenizer
