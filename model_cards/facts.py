"""What a card says of a model, read from the files in its folder; nothing is typed by hand."""

import json
import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import safe_open

NEEDED = ("config.json", "processor_config.json", "sentence_bert_config.json", "config_sentence_transformers.json")
BACKBONES = {"gve": "Qwen2.5-VL", "gve_qwen3_vl": "Qwen3-VL"}
"""Architecture by model type."""


@dataclass(frozen=True)
class ModelFacts:
    """A model folder in numbers.

    Attributes:
        backbone: Name of the architecture.
        width: D of the embeddings.
        parameters: Number of weights.
        dtypes: Number formats of the weights on disk.
        layers: Layers of the language model.
        vision_layers: Blocks of the vision tower.
        vocabulary: Tokens.
        position_mode: How positions are given to tokens; see `GVEConfig`. Other families have one rule.
        normalize: Whether the embeddings have unit length.
        num_frames: Frames taken from a video.
        frame_tokens: Visual tokens of a frame at most.
        frame_pixels: Pixels of a frame at most.
        image_tokens: Visual tokens of an image at most.
        max_length: Tokens of an input at most.
        prompts: Instructions by name.
    """

    backbone: str
    width: int
    parameters: int
    dtypes: tuple[str, ...]
    layers: int
    vision_layers: int
    vocabulary: int
    position_mode: str | None
    normalize: bool
    num_frames: int
    frame_tokens: int
    frame_pixels: int
    image_tokens: int
    max_length: int
    prompts: dict[str, str]


def read_model(folder: str | PathLike[str]) -> ModelFacts:
    """Read a model folder.

    Args:
        folder: Written by `save_embedder` or training.

    Returns:
        Its facts.

    Raises:
        ValueError: If files are missing.
    """
    folder = Path(folder)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    weights = sorted(folder.glob("*.safetensors"))
    if missing or not weights:
        raise ValueError(
            f"model: {str(folder)!r} has no {', '.join(missing or ['*.safetensors'])}; a folder written by "
            "`gve train` or save_embedder is accepted; check the path"
        )
    from transformers import AutoConfig, Qwen2VLImageProcessorPil  # seconds to import

    from gve import GVEConfig, GVEVideoProcessor

    config = AutoConfig.from_pretrained(folder)
    video = GVEVideoProcessor.from_pretrained(folder)
    image = Qwen2VLImageProcessorPil.from_pretrained(folder)
    parameters, dtypes = _count_weights(weights)
    return ModelFacts(
        backbone=BACKBONES[config.model_type],
        width=config.text_config.hidden_size,
        parameters=parameters,
        dtypes=dtypes,
        layers=config.text_config.num_hidden_layers,
        vision_layers=config.vision_config.depth,
        vocabulary=config.text_config.vocab_size,
        position_mode=config.position_mode if isinstance(config, GVEConfig) else None,
        normalize=config.normalize,
        num_frames=video.num_frames,
        frame_tokens=video.size["longest_edge"] // (video.patch_size * video.merge_size) ** 2,
        frame_pixels=video.size["longest_edge"],
        image_tokens=image.size["longest_edge"] // (image.patch_size * image.merge_size) ** 2,
        max_length=_read_json(folder / NEEDED[2])["processing_kwargs"]["text"]["max_length"],
        prompts={name: text for name, text in _read_json(folder / NEEDED[3])["prompts"].items() if text},
    )


def _count_weights(paths: list[Path]) -> tuple[int, tuple[str, ...]]:
    """Number of weights and their formats, from the headers alone."""
    total, dtypes = 0, set()
    for path in paths:
        with safe_open(path, framework="numpy") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                part = stored.get_slice(name)
                total += math.prod(part.get_shape())
                dtypes.add(part.get_dtype())
    return total, tuple(sorted(dtypes))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
