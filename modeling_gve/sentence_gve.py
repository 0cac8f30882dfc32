"""Folders that AutoModel, AutoProcessor and SentenceTransformer read alike."""

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

PROMPTS = {"query": "Find the video according to the text description.", "document": ""}
"""Instructions by name: queries state the task, documents have none."""

MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]

MAX_LENGTH = 8192
"""Tokens a row at most (paper, section A.2)."""

MAX_SHARD_SIZE = "5GB"
"""Size of one file of weights at most, unless said otherwise."""


def sentence_config() -> dict[str, Any]:
    """Content of `sentence_bert_config.json`: the one module reads `embeddings` from the model's output."""
    forward = {"method": "forward", "method_output_name": "embeddings"}
    return {
        "transformer_task": "feature-extraction",
        "module_output_name": "sentence_embedding",
        "modality_config": {
            "text": forward,
            "image": forward,
            "video": forward,
            "message": {**forward, "format": "structured"},
        },
        "unpad_inputs": False,
        "processing_kwargs": {
            "text": {"max_length": MAX_LENGTH, "truncation": True},
            # the processor keeps the end of the chat itself, and user text must not write control tokens
            "chat_template": {"sanitize_control_tokens": True, "restore_suffix": False},
        },
    }


def prompt_config(prompts: dict[str, str], truncate_dim: int | None = None) -> dict[str, Any]:
    """Content of `config_sentence_transformers.json`; without `truncate_dim` if the model keeps all dimensions."""
    config = {
        "model_type": "SentenceTransformer",
        "__version__": _versions("sentence-transformers", "transformers"),
        "prompts": prompts,
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "requirements": {"av": ">=16"},
    }
    return config if truncate_dim is None else config | {"truncate_dim": truncate_dim}


def _versions(*names: str) -> dict[str, str]:
    """Versions of the installed ones among some packages; a model can be saved without sentence-transformers."""
    found = {}
    for name in names:
        try:
            found[name.replace("-", "_")] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_sentence_files(
    folder: str | PathLike[str],
    *,
    prompts: dict[str, str] | None = None,
    truncate_dim: int | None = None,
    replace: bool = False,
) -> None:
    """Write the files SentenceTransformer needs besides the weights; without them it would pool by the mean.

    Args:
        prompts: Instructions by name, added to `PROMPTS`.
    """
    contents = {
        "modules.json": MODULES,
        "sentence_bert_config.json": sentence_config(),
        "config_sentence_transformers.json": prompt_config({**PROMPTS, **(prompts or {})}, truncate_dim),
    }
    for name, content in contents.items():
        if replace or not Path(folder, name).is_file():
            write_json(Path(folder, name), content)


def save_embedder(
    folder: str | PathLike[str],
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    *,
    prompts: dict[str, str] | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    state_dict: dict[str, Any] | None = None,
) -> None:
    """Save a model of any of our families with everything needed to load it, its code included.

    Args:
        prompts: Instructions by name for `encode(..., prompt_name=)`, added to `PROMPTS`.
        state_dict: The weights, if the model itself does not hold all of them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    register_code(model, processor)
    model.save_pretrained(folder, max_shard_size=max_shard_size, state_dict=state_dict)
    processor.save_pretrained(folder)
    write_code(folder, model, processor)
    write_sentence_files(folder, prompts=prompts, truncate_dim=model.config.truncate_dim, replace=True)


def register_code(model: "PreTrainedModel", processor: "ProcessorMixin") -> None:
    """Have `save_pretrained` write the `auto_map` entries by which the Hub finds the code."""
    type(model.config).register_for_auto_class()
    type(model).register_for_auto_class("AutoModel")
    type(processor).register_for_auto_class("AutoProcessor")
    type(processor.video_processor).register_for_auto_class("AutoVideoProcessor")


def write_code(folder: Path, model: "PreTrainedModel", processor: "ProcessorMixin") -> None:
    """Copy the files of a model's classes and of what they import, and no others, into an existing folder."""
    for source in code_files(model, processor):
        if source.parent != folder.resolve():
            shutil.copyfile(source, folder / source.name)


def code_files(model: "PreTrainedModel", processor: "ProcessorMixin") -> list[Path]:
    """The files that a model's classes need, sorted."""
    from transformers.dynamic_module_utils import get_relative_import_files

    found: set[Path] = set()
    for part in (model, model.config, processor, processor.video_processor):
        source = sys.modules[type(part).__module__].__file__
        found |= {Path(name).resolve() for name in (source, *get_relative_import_files(source))}
    return sorted(found)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    part.replace(path)
