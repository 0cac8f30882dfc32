"""Writes an embedder as a plain Qwen-VL folder, for transformers without this package, vLLM and others.

Such a checkpoint cannot carry positions or truncation: stock code counts positions its own way. The
sentence-transformers files state last-token pooling and normalisation.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from gve import GVEModel, GVEQwen3VLModel
from gve.chat_gve import template_with
from gve.sentence_gve import PROMPTS, prompt_config, sentence_config, write_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
# the names before sentence-transformers 5.2: later versions and vLLM read them, vLLM no others
MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
IMAGE_FIELDS = (
    "do_resize",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "do_convert_rgb",
    "resample",
    "image_mean",
    "image_std",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One architecture in our classes and in transformers' ("stock").

    Attributes:
        stock: The class that the stock checkpoint names; AutoModel loads its base model.
        stock_prefixes: Our prefix of a tensor's name to the published one.
        flat: Published configurations hold the language model's fields at the top.
        whole_video: The stock video processor's budget is for a whole video, not for each frame.
    """

    model: type[PreTrainedModel]
    stock: type[PreTrainedModel]
    stock_processor: str
    stock_video: str
    stock_prefixes: Mapping[str, str]
    flat: bool = False
    whole_video: bool = False

    @property
    def types(self) -> tuple[str, str]:
        """The stock `model_type` and ours."""
        return self.stock.config_class.model_type, self.model.config_class.model_type


ARCHITECTURES = (
    # transformers 4.49 to 5.x, vLLM and llama.cpp all read this layout; the later one breaks AutoModel
    Architecture(
        GVEModel,
        Qwen2_5_VLForConditionalGeneration,
        "Qwen2_5_VLProcessor",
        "Qwen2VLVideoProcessor",
        {"language_model.": "model.", "visual.": "visual."},
        flat=True,
    ),
    Architecture(
        GVEQwen3VLModel,
        Qwen3VLForConditionalGeneration,
        "Qwen3VLProcessor",
        "Qwen3VLVideoProcessor",
        {"language_model.": "model.language_model.", "visual.": "model.visual."},
        whole_video=True,
    ),
)


def architecture_of(model_type: str) -> Architecture:
    """The architecture of a published model type."""
    return next(one for one in ARCHITECTURES if one.types[0] == model_type)


def save_stock(
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    *,
    architecture: Architecture,
    tokenizer: Path,
    prompts: Mapping[str, str],
    max_shard_size: str,
) -> None:
    """Write a stock checkpoint into an existing folder; `tokenizer` holds the tokenizer files to copy."""
    named = {stock_name(name, architecture): tensor for name, tensor in model.state_dict().items()}
    save_torch_state_dict(named, folder, max_shard_size=max_shard_size)
    write_json(folder / "config.json", stock_config(model, architecture))
    _write_processor(folder, processor, architecture)
    _write_tokenizer(folder, tokenizer, architecture)
    _write_sentence(folder, model, {**PROMPTS, **prompts})


def stock_name(name: str, architecture: Architecture) -> str:
    """Published name of one of our tensors."""
    ours, stock = next((ours, stock) for ours, stock in architecture.stock_prefixes.items() if name.startswith(ours))
    return stock + name.removeprefix(ours)


def stock_config(model: PreTrainedModel, architecture: Architecture) -> dict[str, Any]:
    """config.json without our fields; if flat, in the form that every release since 4.49 reads."""
    fields = {field.name for field in dataclasses.fields(type(model.config))}
    own = fields - {field.name for field in dataclasses.fields(architecture.stock.config_class)}
    saved = json.loads(model.config.to_json_string())
    config = {key: value for key, value in saved.items() if key not in own | {"auto_map"}}
    config |= {"model_type": architecture.types[0], "architectures": [architecture.stock.__name__]}
    # an embedder has no language head; tied to the input embeddings, the stock class does not miss it
    config["tie_word_embeddings"] = True
    config["torch_dtype"] = config["dtype"] = str(model.dtype).removeprefix("torch.")
    if architecture.flat:
        config = _flat_text(config.pop("text_config")) | config
    return config


def _flat_text(text: dict[str, Any]) -> dict[str, Any]:
    """Language fields as before 5.0: at the top, with the rotary base apart."""
    rope = dict(text.pop("rope_parameters"))
    kind = rope.pop("rope_type")
    theta = rope.pop("rope_theta")
    scaling = {"type": "mrope" if kind == "default" else kind, **rope}
    dropped = ("model_type", "dtype", "architectures")
    kept = {key: value for key, value in text.items() if key not in dropped}
    return {**kept, "rope_theta": theta, "rope_scaling": scaling}


def _write_processor(folder: Path, processor: ProcessorMixin, architecture: Architecture) -> None:
    """Processor files with old and new names of the pixel budget."""
    image, video = processor.image_processor, processor.video_processor
    common = {name: getattr(image, name) for name in IMAGE_FIELDS}
    common |= {"resample": int(common["resample"]), "processor_class": architecture.stock_processor}
    write_json(
        folder / "preprocessor_config.json",
        {"image_processor_type": "Qwen2VLImageProcessor", **common, **_budget(image.size)},
    )
    times = video.num_frames if architecture.whole_video else 1
    own = {name: getattr(video, name) for name in ("image_mean", "image_std", "patch_size", "temporal_patch_size")}
    frames = {"num_frames": video.num_frames, "fps": None, "do_sample_frames": True, "cap_pixels_per_frame": False}
    write_json(
        folder / "video_preprocessor_config.json",
        {"video_processor_type": architecture.stock_video, **common, **own, **_budget(video.size, times), **frames},
    )
    # the end token closes the template: the stock processor appends nothing, and its hidden state is the embedding
    template = template_with(processor.default_system) + processor.end_token
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_json(folder / "chat_template.json", {"chat_template": template})


def _budget(size: Mapping[str, int], times: int = 1) -> dict[str, Any]:
    least, most = size["shortest_edge"] * times, size["longest_edge"] * times
    return {"min_pixels": least, "max_pixels": most, "size": {"shortest_edge": least, "longest_edge": most}}


def _write_tokenizer(folder: Path, source: Path, architecture: Architecture) -> None:
    """Copy the tokenizer, with settings that transformers 4 and 5 both read."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for name in ("auto_map", "chat_template", "backend", "is_local", "local_files_only"):
        settings.pop(name, None)
    if isinstance(settings.get("extra_special_tokens"), list):  # as 5.x saves them, which 4.x cannot read
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    own = {
        "padding_side": "left",
        "processor_class": architecture.stock_processor,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    write_json(path, {**settings, **own})


def _write_sentence(folder: Path, model: PreTrainedModel, prompts: dict[str, str]) -> None:
    """Three modules: transformer, last-token pooling, and unit length if the model normalises."""
    config = model.config
    modules = MODULES if config.normalize else MODULES[:2]
    entries = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for idx, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)
    transformer = sentence_config()
    for forward in transformer["modality_config"].values():
        forward["method_output_name"] = "last_hidden_state"
    write_json(folder / "sentence_bert_config.json", {**transformer, "module_output_name": "token_embeddings"})
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    pooling: dict[str, Any] = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes}
    pooling |= {"word_embedding_dimension": config.get_text_config().hidden_size, "include_prompt": True}
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling)
    if config.normalize:
        write_json(folder / "2_Normalize" / "config.json", {})  # a folder without files would not reach the Hub
    sentence = prompt_config(prompts, config.truncate_dim)
    sentence.pop("requirements")
    write_json(folder / "config_sentence_transformers.json", sentence)
