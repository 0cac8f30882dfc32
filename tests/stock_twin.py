"""Stock Qwen-VL models with the weights of a tiny embedder, and folders as they are published."""

import dataclasses
import json

import torch
from safetensors.torch import save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

STOCK = {"gve": Qwen2_5_VLForConditionalGeneration, "gve_qwen3_vl": Qwen3VLForConditionalGeneration}
BUDGET = {"min_pixels": 3136, "max_pixels": 12845056}
"""Of images, as Qwen2.5-VL is published."""


def stock_config(config):
    kind = STOCK[config.model_type].config_class
    names = {field.name for field in dataclasses.fields(kind)} - {"transformers_version", "architectures"}
    kept = {key: value for key, value in config.to_dict().items() if key in names}
    return kind(**kept)


def stock_twin(model):
    """The stock generating model with an embedder's weights, and a language head of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        twin = STOCK[model.config.model_type](stock_config(model.config))
    twin.model.load_state_dict(model.state_dict())
    twin.set_attn_implementation(model.config._attn_implementation)
    return twin.eval()


def publish(folder, model, processor, *, prefixes=None, drop_head=False):
    """A folder as a publisher fills it: weights in the layout of 2025, tokenizer, image settings, no code of ours."""
    twin = stock_twin(model)
    tensors = {key: value for key, value in twin.state_dict().items() if not (drop_head and "lm_head" in key)}
    prefixes = prefixes or {"model.language_model.": "model.", "model.visual.": "visual."}
    for old, new in prefixes.items():
        tensors = {new + key.removeprefix(old) if key.startswith(old) else key: tensors[key] for key in tensors}
    twin.config.save_pretrained(folder)
    tensors = {key: value.clone().contiguous() for key, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    processor.tokenizer.save_pretrained(folder)
    image = processor.image_processor
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", **BUDGET}
    settings |= {name: getattr(image, name) for name in ("patch_size", "temporal_patch_size", "merge_size")}
    settings |= {name: list(getattr(image, name)) for name in ("image_mean", "image_std")}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
