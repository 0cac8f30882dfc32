"""Opens saved embedders for the commands, and tells them apart."""

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gve.convert_gve import SizeRule
from gve.eval.encoders import Encoder
from gve.eval.media_encoder import NUM_FRAMES, MediaEncoder
from gve.hub_datasets.files import samples_of
from gve.image_gve import check_aspect, smart_resize
from gve.video_gve import Frames

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

KEY_VARIABLE = "GVE_API_KEY"
"""Environment variable that holds the bearer token, so that it enters no command line and no report."""


@dataclass(frozen=True)
class VideoSetting:
    """How much an encoder sees of a video; None leaves the encoder's own number."""

    num_frames: int | None = None
    frame_tokens: int | None = None  # most visual tokens a frame

    def options(self, encoder: Encoder) -> dict[str, Any]:
        """The encoder's num_frames and video_size, where set; ValueError for numbers below 1 or no such settings."""
        given = {"frames": self.num_frames, "tokens": self.frame_tokens}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ValueError(f"--{name}: must be at least 1, got {value}.")
        if self.num_frames is None and self.frame_tokens is None:
            return {}
        if not skips_broken_inputs(encoder) and (self.frame_tokens or not isinstance(encoder, MediaEncoder)):
            raise ValueError(
                f"--frames, --tokens: {type(encoder).__name__} has no such settings; --tokens needs a model of ours. Leave "
                "them out."
            )
        options: dict[str, Any] = {} if self.num_frames is None else {"num_frames": self.num_frames}
        if self.frame_tokens is not None:
            size, token = _video_size(encoder)
            most = self.frame_tokens * token
            options["video_size"] = {"shortest_edge": min(size["shortest_edge"], most), "longest_edge": most}
        return options

    def described(self, encoder: Encoder) -> dict[str, int | None]:
        """The setting, with our encoder's own numbers where none are set."""
        frames, tokens = self.num_frames, self.frame_tokens
        if skips_broken_inputs(encoder):
            size, token = _video_size(encoder)
            frames = frames or encoder.processor.video_processor.num_frames  # type: ignore[attr-defined]
            tokens = tokens or size["longest_edge"] // token
        elif isinstance(encoder, MediaEncoder):
            frames = frames or NUM_FRAMES
        return {"num_frames": frames, "frame_tokens": tokens}


def model_prompts(encoder: Encoder) -> dict[str, str]:
    """Instructions by name that a SentenceTransformer was saved with; ValueError for other encoders."""
    model = encoder.model if isinstance(encoder, MediaEncoder) else encoder
    loaded = sys.modules.get("sentence_transformers")
    if loaded is None or not isinstance(model, loaded.SentenceTransformer):
        raise ValueError(
            f"--instructions: {type(model).__name__} keeps no prompts; only SentenceTransformers do. Use uvrb or none."
        )
    return dict(model.prompts)


def is_address(model: str) -> bool:
    """Whether --model names a server."""
    return model.startswith(("http://", "https://"))


def load_encoder(model: str) -> Encoder:
    """Open a folder or Hub repository by the class that fits.

    GVESentenceTransformer opens our models and published ones of their families; SentenceTransformer opens any other.

    Raises:
        ValueError: If there is no such model, or the folder would be read as something else.
    """
    try:
        return _encoder_class(model)(model)
    except (OSError, ValueError, ImportError) as error:  # ImportError: torchvision for some families' videos
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].removeprefix("model: ")
        raise ValueError(f"--model: cannot load {model!r} ({reason}). Give a model folder or a Hub name.") from error


def benchmark_encoder(encoder: Encoder) -> Encoder:
    """The encoder, with videos decoded for it if it is a SentenceTransformer of another family."""
    loaded = sys.modules.get("sentence_transformers")
    foreign = loaded is not None and isinstance(encoder, loaded.SentenceTransformer)
    return MediaEncoder(encoder) if foreign and not skips_broken_inputs(encoder) else encoder  # type: ignore[arg-type]


def skips_broken_inputs(encoder: Encoder) -> bool:
    """Whether the encoder is one of our models, which can leave out unreadable inputs."""
    # importing it takes seconds, and an encoder of that class has imported it
    loaded = sys.modules.get("gve.encoding.sentence_transformer")
    return loaded is not None and isinstance(encoder, loaded.GVESentenceTransformer)


def video_size_rule(encoder: Any) -> SizeRule:
    """The size that one of our models gives to a video's frames, as it was saved."""
    reader, stored = encoder.processor.video_processor, encoder[0].processing_kwargs.get("video", {})
    factor, size = reader.patch_size * reader.merge_size, reader.budget(stored.get("size"))

    def rule(height: int, width: int) -> tuple[int, int]:
        check_aspect(height, width, "video")
        return smart_resize(height, width, factor, size["shortest_edge"], size["longest_edge"])

    return rule


def sized_video(encoder: Any, frames: Frames) -> Any:
    """Frames of that size as one of our models takes them; choosing the size anew may give another one."""
    return encoder.processor.video_processor.load(frames, do_sample_frames=False)._replace(sized=True)


def set_up_encoder(encoder: Encoder, *, workers: int | None = None, frame_cache: Path | None = None) -> Any:
    """Choose how one of our models prepares its inputs.

    Args:
        workers: Threads that decode; None lets the machine decide.
        frame_cache: Folder that keeps decoded frames.

    Returns:
        Statistics to pass to `embed_files`; None for other models.

    Raises:
        ValueError: If something is set for another model.
    """
    if not skips_broken_inputs(encoder):
        if workers is not None or frame_cache is not None:
            raise ValueError(
                f"--workers, --frame-cache: got one for a {type(encoder).__name__}; they need a model of ours. Leave them "
                "out."
            )
        return None
    from gve.encoding.frame_cache import FrameCache
    from gve.encoding.prefetching import EncodeStatistics, PipelineOptions

    encoder.pipeline = PipelineOptions(workers=workers)
    encoder.frame_cache = None if frame_cache is None else FrameCache(frame_cache)
    return EncodeStatistics()


def model_fingerprint(model: str) -> str:
    """Hexadecimal digest of a model folder's JSON files and weight samples; any other name stands for itself."""
    folder = Path(model)
    if not folder.is_dir():
        return hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return _digest(folder, [*folder.rglob("*.json"), *folder.rglob("*.safetensors")])


def weights_fingerprint(model: str | Path) -> str | None:
    """Hexadecimal digest of the weights alone; None without local weights."""
    found = [path for path in Path(model).glob("*.safetensors") if path.is_file()]
    return _digest(Path(model), found) if found else None


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    """Digest of the names, sizes and samples of files."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        digest.update(f"{path.relative_to(folder)}|{path.stat().st_size}|".encode("utf-8", "surrogatepass"))
        for piece in samples_of(path):
            digest.update(piece)
    return digest.hexdigest()


def _video_size(encoder: Any) -> tuple[dict[str, int], int]:
    """Least and most pixels a frame, and pixels a token, of one of our encoders."""
    video = encoder.processor.video_processor
    return video.size, (video.patch_size * video.merge_size) ** 2


def _encoder_class(model: str) -> "type[SentenceTransformer]":
    """The class that opens a model; ValueError if none does."""
    from sentence_transformers import SentenceTransformer  # takes seconds to import

    from gve.encoding.sentence_transformer import GVESentenceTransformer
    from gve.encoding.sources import look_at

    folder = Path(model)
    if "/" not in model and not folder.exists():
        return SentenceTransformer  # it puts its own organisation before such a name
    refusal = look_at(model).refusal
    if refusal is not None and folder.is_dir() and not (folder / "modules.json").is_file():
        raise ValueError(f"it has no modules.json, so its pooling would be a guess; {refusal}")
    return GVESentenceTransformer if refusal is None else SentenceTransformer
