"""Checkpoints on disk as the converter meets them: architecture, missing files, size."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from gve import GVEModel, GVEProcessor, GVEQwen3VLModel, GVEQwen3VLProcessor
from gve.eval.console import fail
from gve.model_cards.facts import count_numbers, read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number, by safetensors' names; others count as one."""


@dataclass(frozen=True)
class Architecture:
    """One architecture in our classes and in transformers' ("stock").

    Attributes:
        stock: The class that the stock checkpoint names; AutoModel loads its base model.
        stock_prefixes: Our prefix of a tensor's name to the published one.
        flat: Published configurations hold the language model's fields at the top.
        whole_video: The stock video processor's budget is for a whole video, not for each frame.
    """

    model: type[PreTrainedModel]
    processor: type[ProcessorMixin]
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
        GVEProcessor,
        Qwen2_5_VLForConditionalGeneration,
        "Qwen2_5_VLProcessor",
        "Qwen2VLVideoProcessor",
        {"language_model.": "model.", "visual.": "visual."},
        flat=True,
    ),
    Architecture(
        GVEQwen3VLModel,
        GVEQwen3VLProcessor,
        Qwen3VLForConditionalGeneration,
        "Qwen3VLProcessor",
        "Qwen3VLVideoProcessor",
        {"language_model.": "model.language_model.", "visual.": "model.visual."},
        whole_video=True,
    ),
)


@dataclass(frozen=True)
class Checkpoint:
    """A complete model folder; `numbers` counts weights by safetensors dtype."""

    folder: Path
    config: dict[str, Any]
    architecture: Architecture
    numbers: dict[str, int]

    def size(self, bytes_each: int | None = None) -> int:
        """Bytes of the weights with a language head; `bytes_each` is an element's size after a conversion."""
        return sum(count * (bytes_each or BYTES.get(kind, 1)) for kind, count in self.numbers.items())


def open_checkpoint(source: str) -> Checkpoint:
    """Find a model in a folder or on the Hub, and check that it converts without reading its weights.

    Raises:
        ValueError: If it is missing, incomplete, quantised, or of an unknown architecture.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(source)
    config, index = _read_json(folder / "config.json"), _read_json(folder / INDEX)
    shards = [WEIGHTS] if index is None else sorted(set(index["weight_map"].values()))
    tokenizer = ("tokenizer.json",) if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt")
    needed = ("config.json", *shards, *tokenizer, "tokenizer_config.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing or config is None:
        adapter = (folder / "adapter_config.json").is_file()
        fail(
            f"SRC: must hold config.json, safetensors weights and a tokenizer, but {source!r} has no "
            f"{', no '.join(missing)}. " + ("Convert its base model with --adapter." if adapter else "Complete it.")
        )
    if "quantization_config" in config:
        fail(f"SRC: the weights of {source!r} are quantised. Convert the original in full numbers.")
    architecture = architecture_of(config.get("model_type"))
    try:
        numbers = count_numbers(folder / name for name in shards)
    except SafetensorError as error:
        fail(f"SRC: the weights in {str(folder)!r} cannot be read ({error}). Fetch them again.")
    return Checkpoint(folder, config, architecture, numbers)


def architecture_of(model_type: str | None) -> Architecture:
    """The architecture of a `model_type`, stock or ours."""
    for one in ARCHITECTURES:
        if model_type in one.types:
            return one
    known = ", ".join(name for one in ARCHITECTURES for name in one.types)
    return fail(f"SRC: model_type in config.json must be one of {known}, got {model_type!r}. Choose another model.")


def _download(source: str) -> Path:
    try:
        return Path(snapshot_download(source, allow_patterns=list(HUB_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        return fail(f"SRC: {source!r} is not a folder, and the Hub does not give it ({reason}). Check the name.")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path) if path.is_file() else None
    except ValueError as error:
        fail(f"SRC: {str(path)!r} is not JSON ({error}). Fetch the file again.")
