"""Encoders by name, as a configuration holds them: "module:function" or "module:function:argument".

A name changes with the weights, so scores and fingerprints of different models never meet.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from gve.hub_datasets.files import samples_of
from gve.hub_datasets.vsynflow.stages import Encoder, SetupError
from gve.media_gve import shown

_SUFFIXES = (".json", ".safetensors")


def make_encoder(place: str) -> Encoder:
    """Call the named function, such as gve.eval.models:load_encoder:FOLDER; SetupError if it cannot be imported."""
    function, argument = _parts(place)
    try:
        make = resolve_name(function)
    except (ImportError, AttributeError) as error:
        raise SetupError(f"encoder: {shown(place)} cannot be imported ({type(error).__name__}: {error}).") from error
    return make() if argument is None else make(argument)


def encoder_name(place: str) -> str:
    """Name an encoder by its function, and by the content of a folder if that is its argument."""
    function, argument = _parts(place)
    if argument is None:
        return function
    folder = Path(argument)
    return f"{function}:{folder_digest(folder) if folder.is_dir() else argument}"


def folder_digest(folder: Path) -> str:
    """Name a model folder by its settings and weights: sizes, and samples of the bytes. Its path does not matter."""
    found = blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file()):
        found.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        for piece in samples_of(path):
            found.update(piece)
    return found.hexdigest()


def _parts(place: str) -> tuple[str, str | None]:
    parts = place.split(":", 2)
    if len(parts) < 2 or not all(parts):
        raise SetupError(
            "encoder must be module:function or module:function:argument, such as gve.eval.models:load_encoder:FOLDER; "
            f"got {shown(place)}."
        )
    return ":".join(parts[:2]), parts[2] if len(parts) > 2 else None


def encode_batched(encode: Any, inputs: Iterable[Mapping[str, Any]], *, batch_size: int = 64) -> np.ndarray:
    """Vectors, (N, D) float32; inputs are made a batch at a time, so that memory does not grow with their number."""
    source, parts = iter(inputs), []
    while batch := list(islice(source, batch_size)):
        parts.append(np.asarray(encode(batch), np.float32))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
