"""Folders that AutoModel, AutoProcessor and SentenceTransformer read alike."""

import json
import shutil
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from .configuration_gve import GVEConfig
from .modeling_gve import GVEModel
from .processing_gve import MAX_LENGTH, GVEProcessor
from .video_processing_gve import GVEVideoProcessor

PROMPTS = {"query": "Find the video according to the text description.", "document": ""}
"""Instructions by name: queries state the task, documents have none."""

MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]


def sentence_config() -> dict[str, Any]:
    """The settings of the one sentence-transformers module, which reads `embeddings` from the model's output.

    Returns:
        What `sentence_bert_config.json` holds.
    """
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


def prompt_config(prompts: dict[str, str]) -> dict[str, Any]:
    """The settings of the SentenceTransformer.

    Args:
        prompts: Instructions by name.

    Returns:
        What `config_sentence_transformers.json` holds.
    """
    return {
        "model_type": "SentenceTransformer",
        "__version__": {name.replace("-", "_"): version(name) for name in ("sentence-transformers", "transformers")},
        "prompts": prompts,
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "requirements": {"av": ">=16"},
    }


def save_embedder(
    folder: str | PathLike[str],
    model: GVEModel,
    processor: GVEProcessor,
    *,
    prompts: dict[str, str] | None = None,
) -> None:
    """Save a model with everything that loads it, its code included.

    Args:
        folder: Where to; made if missing.
        model: The model.
        processor: Its processor.
        prompts: Instructions by name for `encode(..., prompt_name=)`, `PROMPTS` by default; "query" and "document" are
            kept unless given.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _register_code()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for source in sorted(Path(__file__).parent.glob("*_gve.py")):
        if source.parent != folder.resolve():
            shutil.copyfile(source, folder / source.name)
    write_json(folder / "modules.json", MODULES)
    write_json(folder / "sentence_bert_config.json", sentence_config())
    write_json(folder / "config_sentence_transformers.json", prompt_config({**PROMPTS, **(prompts or {})}))


def _register_code() -> None:
    """Have `save_pretrained` write the `auto_map` entries through which the Hub finds the code."""
    GVEConfig.register_for_auto_class()
    GVEModel.register_for_auto_class("AutoModel")
    GVEProcessor.register_for_auto_class("AutoProcessor")
    GVEVideoProcessor.register_for_auto_class("AutoVideoProcessor")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step: first beside it, then renamed.

    Args:
        path: The file.
        content: What to write.
    """
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    beside.replace(path)
