"""Loads a saved embedder for the commands."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gve.eval.encoders import Encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class VideoSetting:
    """How much an encoder sees of a video.

    Attributes:
        num_frames: Frames taken from each; None for the encoder's own.
        frame_tokens: Visual tokens a frame at most; None for the encoder's own.
    """

    num_frames: int | None = None
    frame_tokens: int | None = None

    def options(self, encoder: Encoder) -> dict[str, Any]:
        """Keyword arguments of the encoder.

        Args:
            encoder: Any; one that is not ours takes its own setting only.

        Returns:
            Of num_frames and video_size those that are set.

        Raises:
            ValueError: For numbers below 1, or an encoder that has no such setting.
        """
        given = {"frames": self.num_frames, "tokens": self.frame_tokens}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ValueError(f"--{name}: {value}; 1 or more is accepted; raise it")
        if self.num_frames is None and self.frame_tokens is None:
            return {}
        if not skips_broken_inputs(encoder):
            raise ValueError(
                f"--frames, --tokens: {type(encoder).__name__} has no such settings; models of ours have; leave them out"
            )
        options: dict[str, Any] = {} if self.num_frames is None else {"num_frames": self.num_frames}
        if self.frame_tokens is not None:
            size, token = _video_size(encoder)
            most = self.frame_tokens * token
            options["video_size"] = {"shortest_edge": min(size["shortest_edge"], most), "longest_edge": most}
        return options

    def described(self, encoder: Encoder) -> dict[str, int | None]:
        """The setting with the encoder's own numbers where none are set.

        Args:
            encoder: Any.

        Returns:
            num_frames and frame_tokens; None where an encoder that is not ours does not tell.
        """
        frames, tokens = self.num_frames, self.frame_tokens
        if skips_broken_inputs(encoder):
            size, token = _video_size(encoder)
            frames = frames or encoder.processor.video_processor.num_frames  # type: ignore[attr-defined]
            tokens = tokens or size["longest_edge"] // token
        return {"num_frames": frames, "frame_tokens": tokens}


def model_prompts(encoder: Encoder) -> dict[str, str]:
    """The instructions that a model was saved with.

    Args:
        encoder: A SentenceTransformer.

    Returns:
        Text by name.

    Raises:
        ValueError: For anything else.
    """
    loaded = sys.modules.get("sentence_transformers")
    if loaded is None or not isinstance(encoder, loaded.SentenceTransformer):
        raise ValueError(
            f"--instructions: {type(encoder).__name__} keeps no prompts; SentenceTransformers do; take the table's"
        )
    return dict(encoder.prompts)


def load_encoder(model: str) -> Encoder:
    """Open a model: one of ours by GVESentenceTransformer, any other by SentenceTransformer.

    Args:
        model: A folder written by training or export, or the name of a Hub repository.

    Returns:
        The encoder.

    Raises:
        ValueError: When there is no such model, or the folder would be read as something else.
    """
    folder = Path(model)
    if folder.is_dir() and not (folder / "modules.json").is_file():
        raise ValueError(
            f"--model: {model!r} has no modules.json; without it the pooling would be guessed; "
            "give a folder written by `gve train` or save_embedder"
        )
    try:
        return _encoder_class(model)(model)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"--model: cannot load {model!r} ({reason}); a model folder or Hub name is accepted; check it"
        ) from error


def skips_broken_inputs(encoder: Encoder) -> bool:
    """Whether an encoder can leave out inputs that cannot be read.

    Args:
        encoder: Any.

    Returns:
        True for our own models.
    """
    loaded = sys.modules.get("gve.sentence_transformer")  # importing it takes seconds, and without it there is none
    return loaded is not None and isinstance(encoder, loaded.GVESentenceTransformer)


def _video_size(encoder: Any) -> tuple[dict[str, int], int]:
    """Least and most pixels a frame of an encoder of ours, and pixels a token."""
    video = encoder.processor.video_processor
    return video.size, (video.patch_size * video.merge_size) ** 2


def set_up_encoder(encoder: Encoder, *, workers: int | None = None, frame_cache: Path | None = None) -> Any:
    """Say how one of our models prepares what it embeds.

    Args:
        encoder: Any; another model has nothing to set.
        workers: Threads that decode; None chooses by the machine.
        frame_cache: Folder that keeps decoded frames; None keeps none.

    Returns:
        Statistics to pass to `embed_files`, or None for another model.

    Raises:
        ValueError: When something is asked of another model.
    """
    if not skips_broken_inputs(encoder):
        if workers is not None or frame_cache is not None:
            raise ValueError(
                f"--workers, --frame-cache: got one for a {type(encoder).__name__}; a model of ours is accepted; leave it "
                "out"
            )
        return None
    from gve.frame_cache import FrameCache
    from gve.pipeline import EncodeStatistics, PipelineOptions

    encoder.pipeline = PipelineOptions(workers=workers)
    encoder.frame_cache = None if frame_cache is None else FrameCache(frame_cache)
    return EncodeStatistics()


def _encoder_class(model: str) -> "type[SentenceTransformer]":
    from sentence_transformers import SentenceTransformer  # takes seconds to import

    from gve.sentence_transformer import GVESentenceTransformer

    return GVESentenceTransformer if _model_type(model).startswith("gve") else SentenceTransformer


def _model_type(model: str) -> str:
    """What its configuration says, or that of an adapter's base model; nothing for a model without one."""
    from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

    if config := _read(model, CONFIG_NAME):
        return config.get("model_type", "")
    base = _read(model, ADAPTER_CONFIG_NAME).get("base_model_name_or_path")
    return _model_type(base) if base else ""


def _read(model: str, name: str) -> dict[str, Any]:
    """A JSON file of a folder or Hub repository; empty where there is none."""
    from transformers.utils import cached_file

    try:
        path = cached_file(model, name)  # None or an error, by what is missing
    except OSError:
        return {}
    return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
