"""GVE: one embedder for text, images, videos and their combinations, on the Qwen2.5-VL architecture."""

from importlib.util import find_spec


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

from .configuration_gve import GVEConfig  # noqa: E402
from .modeling_gve import GVEModel, GVEModelOutput  # noqa: E402
from .processing_gve import GVEProcessor  # noqa: E402
from .sentence_gve import save_embedder  # noqa: E402
from .tiny import build_tiny  # noqa: E402
from .video_gve import Frames, read_video  # noqa: E402
from .video_processing_gve import GVEVideoProcessor  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "Frames",
    "GVEConfig",
    "GVEModel",
    "GVEModelOutput",
    "GVEProcessor",
    "GVEVideoProcessor",
    "build_tiny",
    "read_video",
    "save_embedder",
]

AutoConfig.register("gve", GVEConfig, exist_ok=True)
AutoModel.register(GVEConfig, GVEModel, exist_ok=True)
AutoProcessor.register(GVEConfig, GVEProcessor, exist_ok=True)
AutoVideoProcessor.register(GVEConfig, GVEVideoProcessor, exist_ok=True)
