"""GVE: one embedder for text, images, videos and their combinations, on the Qwen2.5-VL architecture."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sentence_transformer import GVESentenceTransformer


def _check_torchvision() -> None:
    """Refuse a torchvision that cannot be imported: transformers would fail later, with an error that names a model."""
    if find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        raise ImportError(
            f"torchvision is installed but cannot be imported ({error}); gve does not need it; uninstall it: "
            "pip uninstall torchvision"
        ) from error


_check_torchvision()

from transformers import AutoConfig, AutoModel, AutoProcessor  # noqa: E402
from transformers.models.auto.video_processing_auto import AutoVideoProcessor  # noqa: E402

from .adapters import load_adapter, lora_config  # noqa: E402
from .configuration_gve import GVEConfig  # noqa: E402
from .configuration_qwen3vl_gve import GVEQwen3VLConfig  # noqa: E402
from .embedder_gve import GVEModelOutput  # noqa: E402
from .modeling_gve import GVEModel  # noqa: E402
from .modeling_qwen3vl_gve import GVEQwen3VLModel  # noqa: E402
from .processing_gve import GVEProcessor  # noqa: E402
from .processing_qwen3vl_gve import GVEQwen3VLProcessor  # noqa: E402
from .quantization import quantization_config  # noqa: E402
from .sentence_gve import save_embedder  # noqa: E402
from .tiny import build_tiny  # noqa: E402
from .video_gve import Frames, Limits, VideoInfo, read_video, video_info  # noqa: E402
from .video_processing_gve import GVEVideoProcessor  # noqa: E402

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
    "lora_config",
    "quantization_config",
    "read_video",
    "save_embedder",
    "video_info",
]

AutoConfig.register("gve", GVEConfig, exist_ok=True)
AutoModel.register(GVEConfig, GVEModel, exist_ok=True)
AutoProcessor.register(GVEConfig, GVEProcessor, exist_ok=True)
AutoVideoProcessor.register(GVEConfig, GVEVideoProcessor, exist_ok=True)
AutoConfig.register("gve_qwen3_vl", GVEQwen3VLConfig, exist_ok=True)
AutoModel.register(GVEQwen3VLConfig, GVEQwen3VLModel, exist_ok=True)
AutoProcessor.register(GVEQwen3VLConfig, GVEQwen3VLProcessor, exist_ok=True)
AutoVideoProcessor.register(GVEQwen3VLConfig, GVEVideoProcessor, exist_ok=True)


def __getattr__(name: str) -> Any:
    """Import sentence-transformers, which takes seconds, when its class is first asked for."""
    if name == "GVESentenceTransformer":
        from .sentence_transformer import GVESentenceTransformer

        return GVESentenceTransformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
