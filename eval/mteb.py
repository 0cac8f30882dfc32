"""MTEB: our models as its encoders, and the sixteen UVRB sets as its retrieval tasks.

Importing this module needs nothing; calling its functions needs the extra `mteb` (`pip install "gve[mteb]"`).
"""

from collections.abc import Iterable
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gve.eval.encode import Encoder
from gve.eval.models import load_encoder, model_fingerprint
from gve.hub_datasets.uvrb import load_set, resolve
from gve.media_gve import shown

if TYPE_CHECKING:
    from gve.eval.mteb_encoder import MTEBEncoder
    from gve.eval.mteb_sets import UVRBTask


def mteb_model(model: str | PathLike[str] | Encoder, *, name: str | None = None, num_frames: int = 8) -> "MTEBEncoder":
    """An embedder as `mteb.evaluate` takes it, for text, image, video and their combinations.

    Args:
        model: A model folder, a Hub repository, or any encoder with encode_query and encode_document.
        name: "organization/model" in MTEB's results; by default the Hub name, or "local/" and the folder's name.
        num_frames: Frames taken from torchcodec decoders; our models read files themselves.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames: must be at least 1, got {num_frames}.")
    encoder_class = _load("mteb_encoder").MTEBEncoder
    revision = None
    if isinstance(model, str | PathLike):
        source = str(model)
        if Path(source).is_dir():
            name = name or f"local/{Path(source).resolve().name}"
            revision = model_fingerprint(source)
        name = name or source
        model = load_encoder(source)
    name = name or f"local/{type(model).__name__}"
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"name: must be 'organization/model', got {shown(name)}.")
    return encoder_class(model, name=name, revision=revision, num_frames=num_frames)


def uvrb_tasks(
    source: str | PathLike[str],
    *,
    sets: Iterable[str] | None = None,
    split: str = "unseen",
    decode_videos: bool = False,
) -> list["UVRBTask"]:
    """UVRB's sets as MTEB retrieval tasks; the main score is each set's own.

    Args:
        source: A folder or Hub repository in the UVRB layout.
        sets: Names or slugs; None for all sixteen.
        decode_videos: Pass torchcodec decoders, which MTEB's other models need.

    Raises:
        ValueError: For an unknown set, or missing or broken data, which MTEB itself would not notice.
    """
    make_task = _load("mteb_sets").make_task
    loaded = [load_set(source, task.name, split) for task in resolve(sets)]
    return [make_task(data, str(source), split, decode_videos=decode_videos) for data in loaded]


def _load(module: str) -> ModuleType:
    """Import a module that needs MTEB."""
    try:
        return import_module(f"gve.eval.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "mteb":
            raise
        raise ImportError("mteb: not installed. Run pip install 'gve[mteb]'.") from error
