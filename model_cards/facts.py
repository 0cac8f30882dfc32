"""Facts of a card, read from the files of a model folder, and strict loading of its weights."""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

NEEDED = ("config.json", "processor_config.json", "sentence_bert_config.json", "config_sentence_transformers.json")
BACKBONES = {"gve": "Qwen2.5-VL", "gve_qwen3_vl": "Qwen3-VL"}
"""Architecture by model type."""


@dataclass(frozen=True)
class ModelFacts:
    """A model folder in numbers."""

    backbone: str
    width: int  # D of the embeddings
    parameters: int
    dtypes: tuple[str, ...]  # of the weights on disk
    layers: int
    vision_layers: int  # blocks of the vision tower
    vocabulary: int
    position_mode: str | None  # see `GVEConfig`; None for Qwen3-VL, which has one rule
    normalize: bool
    num_frames: int
    frame_tokens: int  # most visual tokens a frame
    frame_pixels: int  # most pixels a frame
    image_tokens: int
    max_length: int  # most tokens of an input
    prompts: dict[str, str]


def read_model(folder: str | PathLike[str]) -> ModelFacts:
    """Facts of a folder that `save_embedder` or training wrote; ValueError if files are missing."""
    folder = Path(folder)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    weights = sorted(folder.glob("*.safetensors"))
    if missing or not weights:
        raise ValueError(
            f"model: must be a folder of `gve train` or save_embedder, got {str(folder)!r}, which has no "
            f"{', '.join(missing or ['*.safetensors'])}. Check the path."
        )
    from transformers import AutoConfig, Qwen2VLImageProcessorPil  # seconds to import

    from gve import GVEConfig, GVEVideoProcessor
    from gve.encoding.checkpoints import count_numbers, stored_tensors

    config = AutoConfig.from_pretrained(folder)
    video = GVEVideoProcessor.from_pretrained(folder)
    image = Qwen2VLImageProcessorPil.from_pretrained(folder)
    numbers = count_numbers(stored_tensors(weights))
    return ModelFacts(
        backbone=BACKBONES[config.model_type],
        width=config.text_config.hidden_size,
        parameters=sum(numbers.values()),
        dtypes=tuple(sorted(numbers)),
        layers=config.text_config.num_hidden_layers,
        vision_layers=config.vision_config.depth,
        vocabulary=config.text_config.vocab_size,
        position_mode=config.position_mode if isinstance(config, GVEConfig) else None,
        normalize=config.normalize,
        num_frames=video.num_frames,
        frame_tokens=video.size["longest_edge"] // (video.patch_size * video.merge_size) ** 2,
        frame_pixels=video.size["longest_edge"],
        image_tokens=image.size["longest_edge"] // (image.patch_size * image.merge_size) ** 2,
        max_length=read_json(folder / NEEDED[2])["processing_kwargs"]["text"]["max_length"],
        prompts={name: text for name, text in read_json(folder / NEEDED[3])["prompts"].items() if text},
    )


def load_whole(model_class: Any, folder: Path, *, argument: str, **options: Any) -> Any:
    """Load a model for inference; ValueError if tensors are missing, unexpected or misshapen.

    transformers only warns about these. `argument` is the folder's name on the command line, for the message.
    """
    model, report = model_class.from_pretrained(folder, output_loading_info=True, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(sorted(map(str, report[kind]))[:3])
            raise ValueError(
                f"{argument}: must have complete weights, got {len(report[kind])} {kind.replace('_', ' ')} ({names}). "
                "Save or fetch it again."
            )
    return model.eval()


def read_json(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
