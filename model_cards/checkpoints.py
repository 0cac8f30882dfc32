"""Checkpoints on disk as the converter meets them: which family, what is missing, how many bytes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from gve import GVEModel, GVEProcessor, GVEQwen3VLModel, GVEQwen3VLProcessor
from gve.eval.console import fail

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number, by safetensors' names; others count as one."""


@dataclass(frozen=True)
class Family:
    """One architecture under its two names: ours and that of transformers.

    Attributes:
        model: Our model.
        processor: Our processor.
        stock: The class that the stock checkpoint names; its base model is what AutoModel loads.
        stock_processor: The processor that the stock files name.
        stock_video: The video processor that they name.
        stock_prefixes: Our beginning of a tensor's name to that of the published checkpoints.
        flat: Whether published configurations hold the language model's fields at the top.
        whole_video: Whether the stock video processor's budget is for all frames of a video, not for each.
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


FAMILIES = (
    # transformers 4.49 to 5.x, vLLM and llama.cpp all read this layout; the later one breaks AutoModel
    Family(
        GVEModel,
        GVEProcessor,
        Qwen2_5_VLForConditionalGeneration,
        "Qwen2_5_VLProcessor",
        "Qwen2VLVideoProcessor",
        {"language_model.": "model.", "visual.": "visual."},
        flat=True,
    ),
    Family(
        GVEQwen3VLModel,
        GVEQwen3VLProcessor,
        Qwen3VLForConditionalGeneration,
        "Qwen3VLProcessor",
        "Qwen3VLVideoProcessor",
        {"language_model.": "model.language_model.", "visual.": "model.visual."},
        whole_video=True,
    ),
)
"""Every architecture that can be converted."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete folder with a model.

    Attributes:
        folder: Where it is.
        config: Its config.json.
        family: Its architecture.
        numbers: Numbers in the weights, by safetensors' name of their type.
    """

    folder: Path
    config: dict[str, Any]
    family: Family
    numbers: dict[str, int]

    def size(self, bytes_each: int | None = None) -> int:
        """Bytes of the weights.

        Args:
            bytes_each: Bytes of each number after a conversion; None for those of the file.

        Returns:
            The sum, a language head included.
        """
        return sum(count * (bytes_each or BYTES.get(kind, 1)) for kind, count in self.numbers.items())


def open_checkpoint(source: str) -> Checkpoint:
    """Find a model and check that it is complete, without reading its weights.

    Args:
        source: A folder, or the name of a Hub repository, which is downloaded.

    Returns:
        What is there.

    Raises:
        ValueError: If it is not there, not complete, quantised, or of an unknown architecture.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(source)
    config = _read_json(folder / "config.json")
    shards = _shards(folder)
    missing = [] if config is not None else ["config.json"]
    missing += [name for name in shards if not (folder / name).is_file()]
    if not (folder / "tokenizer.json").is_file():
        missing += [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    missing += [] if (folder / "tokenizer_config.json").is_file() else ["tokenizer_config.json"]
    if missing or config is None:
        adapter = (folder / "adapter_config.json").is_file()
        fail(
            f"SRC: {source!r} has no {', no '.join(missing)}; a folder with config.json, safetensors weights and a "
            "tokenizer is accepted; " + ("convert its base model with --adapter" if adapter else "complete it")
        )
    if "quantization_config" in config:
        fail(f"SRC: the weights of {source!r} are quantised; full numbers are accepted; convert the original")
    return Checkpoint(folder, config, family_of(config.get("model_type")), _count(folder, shards))


def family_of(model_type: str | None) -> Family:
    """The architecture of a `model_type`, stock or ours.

    Args:
        model_type: As in config.json.

    Returns:
        The family.

    Raises:
        ValueError: If there is none.
    """
    for family in FAMILIES:
        if model_type in family.types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.types)
    return fail(f"SRC: its config.json has model_type {model_type!r}; accepted are {known}; choose another model")


def _download(source: str) -> Path:
    try:
        return Path(snapshot_download(source, allow_patterns=list(HUB_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        return fail(f"SRC: {source!r} is no folder, and the Hub does not give it ({reason}); check the name")


def _read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if there is no file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        fail(f"SRC: {str(path)!r} is no JSON ({error}); a complete checkpoint is accepted; fetch the file again")
    return content


def _shards(folder: Path) -> list[str]:
    """Names of the files that hold the weights."""
    index = _read_json(folder / INDEX)
    return [WEIGHTS] if index is None else sorted(set(index["weight_map"].values()))


def _count(folder: Path, shards: list[str]) -> dict[str, int]:
    """Numbers of each type, from the headers alone."""
    numbers: dict[str, int] = {}
    for name in shards:
        try:
            with safe_open(folder / name, framework="numpy") as file:
                for key in file.keys():  # noqa: SIM118 - it is no dict
                    part = file.get_slice(key)
                    kind = part.get_dtype()
                    numbers[kind] = numbers.get(kind, 0) + math.prod(part.get_shape())
        except SafetensorError as error:
            fail(f"SRC: {str(folder / name)!r} cannot be read ({error}); safetensors are accepted; fetch it again")
    return numbers
