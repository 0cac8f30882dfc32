"""GVE: one embedder for text, images, videos and their combinations, on the Qwen2.5-VL architecture."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration import register

if TYPE_CHECKING:
    from .configuration_gve import GVEConfig
    from .configuration_qwen3vl_gve import GVEQwen3VLConfig
    from .embedder_gve import GVEModelOutput
    from .encoding.adapters import load_adapter, lora_config
    from .encoding.quantization import quantization_config
    from .encoding.sentence_transformer import GVESentenceTransformer
    from .modeling_gve import GVEModel
    from .modeling_qwen3vl_gve import GVEQwen3VLModel
    from .processing_gve import GVEProcessor
    from .processing_qwen3vl_gve import GVEQwen3VLProcessor
    from .sentence_gve import save_embedder
    from .tiny import build_tiny
    from .tiny.demo import load_demo
    from .video_gve import Frames, Limits, VideoInfo, read_video, video_info
    from .video_processing_gve import GVEVideoProcessor

__version__ = "0.1.0"

__all__ = [
    "Frames",
    "GVEConfig",
    "GVEModel",
    "GVEModelOutput",
    "GVEProcessor",
    "GVEQwen3VLConfig",
    "GVEQwen3VLModel",
    "GVEQwen3VLProcessor",
    "GVESentenceTransformer",
    "GVEVideoProcessor",
    "Limits",
    "VideoInfo",
    "build_tiny",
    "load_adapter",
    "load_demo",
    "lora_config",
    "quantization_config",
    "read_video",
    "save_embedder",
    "video_info",
]

_MODULES = {
    "Frames": "video_gve",
    "GVEConfig": "configuration_gve",
    "GVEModel": "modeling_gve",
    "GVEModelOutput": "embedder_gve",
    "GVEProcessor": "processing_gve",
    "GVEQwen3VLConfig": "configuration_qwen3vl_gve",
    "GVEQwen3VLModel": "modeling_qwen3vl_gve",
    "GVEQwen3VLProcessor": "processing_qwen3vl_gve",
    "GVESentenceTransformer": "encoding.sentence_transformer",
    "GVEVideoProcessor": "video_processing_gve",
    "Limits": "video_gve",
    "VideoInfo": "video_gve",
    "build_tiny": "tiny",
    "load_adapter": "encoding.adapters",
    "load_demo": "tiny.demo",
    "lora_config": "encoding.adapters",
    "quantization_config": "encoding.quantization",
    "read_video": "video_gve",
    "save_embedder": "sentence_gve",
    "video_info": "video_gve",
}
"""The module of each name, imported when the name is first used: torch and transformers take seconds."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
