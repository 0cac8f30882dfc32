"""Files and folders to vectors: what is found, what is embedded, what is skipped and why.

Shapes: n files, D width.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gve.eval.console import passed_over, printable
from gve.eval.embed_store import (
    FileEmbeddings,
    ShardJob,
    file_stamp,
    load_embeddings,
    save_embeddings,
    save_shard,
    write_atomic,
)
from gve.eval.encoders import Encoder
from gve.eval.inputs import encoder_input, file_row
from gve.eval.models import skips_broken_inputs
from gve.eval.video_retrieval.ranking import as_array
from gve.hub_datasets.walking import walk_files
from gve.media_gve import media_kind, shown, suffix_kind

__all__ = [
    "FileEmbeddings",
    "embed_files",
    "embed_shard",
    "find_files",
    "load_embeddings",
    "model_fingerprint",
    "save_embeddings",
    "weights_fingerprint",
    "write_atomic",
]

logger = logging.getLogger(__name__)

NOT_FINITE = "the encoder returned nan or infinity"


def find_files(arguments: Iterable[str | Path]) -> tuple[list[Path], dict[str, int]]:
    """Expand folders, at any depth and in sorted order; hidden files and folders are left out.

    Linked folders are followed, each once. A file of an unknown suffix is opened and judged by its content.

    Args:
        arguments: Files, taken as they are, and folders, searched for videos and images.

    Returns:
        The files, each once, and how many other files the folders held by suffix.

    Raises:
        ValueError: When an argument does not exist, or there is no video and no image in any.
    """
    roots = dict.fromkeys(map(Path, arguments))
    for root in roots:
        if not os.path.exists(root):  # noqa: PTH110 - a Path raises for names that are too long
            raise ValueError(
                f"FILES: {shown(str(root))} does not exist; files and folders are accepted; check the path"
            )
    found: dict[Path, None] = {}
    others: dict[str, int] = {}
    for path in walk_files(roots):
        if path in roots or suffix_kind(path) or media_kind(path):
            found[path] = None
        else:
            suffix = path.suffix.lower()
            others[suffix] = others.get(suffix, 0) + 1
    if not found:
        raise ValueError(
            f"found no video or image in {shown(', '.join(map(str, roots)))}, by content or by suffix; "
            f"{passed_over(others)} and hidden ones; give files, or a folder that holds some"
        )
    return list(found), others


def embed_files(
    encoder: Encoder,
    paths: Sequence[Path],
    *,
    known: Mapping[str, tuple[str, np.ndarray]] | None = None,
    batch_size: int = 16,
    progress: bool = True,
    statistics: Any = None,
) -> FileEmbeddings:
    """Embed videos and images as corpus rows; a file that fails is named, and costs only itself.

    Args:
        encoder: Turns inputs into vectors.
        paths: The files.
        known: Stamp and vector by path; files whose stamp has not changed are not read again.
        batch_size: Files in one forward pass.
        progress: Whether to show a bar once the work takes more than two seconds.
        statistics: Receives where one of our models spent its time; see `set_up_encoder`.

    Returns:
        The vectors in the order of `paths`, with the files left out and why; without any, `vectors` is (0, 0).
    """
    done: dict[Path, tuple[str, np.ndarray]] = {}
    skipped: dict[str, str] = {}
    stamps: dict[Path, str] = {}
    for path in paths:
        try:
            stamps[path] = file_stamp(path)
        except OSError as error:
            skipped[str(path)] = _reason(error, path)
            continue
        if known and str(path) in known and known[str(path)][0] == stamps[path]:
            done[path] = known[str(path)]
    pending = [path for path in stamps if path not in done]
    if skips_broken_inputs(encoder):
        options = {"batch_size": batch_size, "show_progress_bar": progress, "statistics": statistics}
        found = _embed_and_skip(encoder, pending, skipped, options)
    else:
        found = _embed_in_blocks(encoder, pending, skipped, batch_size=batch_size, progress=progress)
    done |= {path: (stamps[path], vector) for path, vector in found.items()}
    skipped = {str(path): skipped[str(path)] for path in paths if str(path) in skipped}
    for path, reason in skipped.items():
        logger.warning("skipped %s: %s", printable(path), printable(reason))
    order = [path for path in paths if path in done]
    vectors = np.stack([done[path][1] for path in order]) if order else np.zeros((0, 0), dtype=np.float32)
    return FileEmbeddings([str(path) for path in order], vectors, [done[path][0] for path in order], skipped)


def model_fingerprint(model: str) -> str:
    """Tell two models apart by their files: contents of the JSON files, size and samples of the weights.

    Args:
        model: A local folder; for anything else the name stands for itself.

    Returns:
        A hexadecimal digest.
    """
    folder = Path(model)
    if not folder.is_dir():
        return hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return _digest(folder, [*folder.rglob("*.json"), *folder.rglob("*.safetensors")])


def weights_fingerprint(model: str | Path) -> str | None:
    """Tell two models apart by size and samples of the weights alone, whatever else is put into their folders.

    Args:
        model: A local folder, or the name of a Hub repository.

    Returns:
        A hexadecimal digest; None for what is no folder with weights.
    """
    found = [path for path in Path(model).glob("*.safetensors") if path.is_file()]
    return _digest(Path(model), found) if found else None


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    """Of names, sizes and up to 65 pieces of 64 KiB of each file."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}|{size}|".encode("utf-8", "surrogatepass"))
        with path.open("rb") as file:
            for place in range(0, size, max(size // 64, 1 << 16)):
                file.seek(place)
                digest.update(file.read(1 << 16))
    return digest.hexdigest()


def embed_shard(encoder: Encoder, job: ShardJob, *, progress: bool = True, statistics: Any = None) -> FileEmbeddings:
    """Embed the files of one shard and write it: all that an engine does, wherever it runs.

    Args:
        encoder: Turns inputs into vectors.
        job: The files and where to.
        progress: As for `embed_files`.
        statistics: As for `embed_files`.

    Returns:
        What came of them.
    """
    batch_size = job.settings["batch_size"]
    paths = [Path(name) for name in job.files]
    result = embed_files(encoder, paths, batch_size=batch_size, progress=progress, statistics=statistics)
    save_shard(job, result)
    return result


def _embed_and_skip(
    encoder: Encoder,
    paths: Sequence[Path],
    skipped: dict[str, str],
    options: dict[str, Any],
) -> dict[Path, np.ndarray]:
    """Vectors by an encoder that opens the files itself and names those that it cannot read."""
    failures: list[Any] = []
    options = {**options, "convert_to_numpy": True, "on_error": "skip", "skipped": failures}
    vectors = as_array(encoder.encode_document(list(paths), **options)).astype(np.float32, copy=False)
    skipped |= {str(paths[failure.index]): _reason(failure.error, paths[failure.index]) for failure in failures}
    found = dict(zip([path for path in paths if str(path) not in skipped], vectors, strict=True))
    bad = [path for path, vector in found.items() if not np.isfinite(vector).all()]
    skipped |= dict.fromkeys(map(str, bad), NOT_FINITE)
    return {path: vector for path, vector in found.items() if path not in bad}


def _embed_in_blocks(
    encoder: Encoder,
    paths: Sequence[Path],
    skipped: dict[str, str],
    *,
    batch_size: int,
    progress: bool,
) -> dict[Path, np.ndarray]:
    """Vectors by an encoder that fails for a whole block at a time."""
    vectors: dict[Path, np.ndarray] = {}
    with tqdm(total=len(paths), desc="embed files", unit="file", disable=not progress, delay=2) as bar:
        for start in range(0, len(paths), batch_size):
            block = paths[start : start + batch_size]
            vectors |= _embed_block(encoder, block, skipped)
            bar.update(len(block))
    return vectors


def _embed_block(encoder: Encoder, paths: Sequence[Path], skipped: dict[str, str]) -> dict[Path, np.ndarray]:
    """Vectors of a block; when the block fails, of each file by itself."""
    inputs: dict[Path, Any] = {}
    for path in paths:
        try:
            inputs[path] = encoder_input(file_row(path))
        except (OSError, ValueError) as error:
            skipped[str(path)] = _reason(error, path)
    if not inputs:
        return {}
    try:
        return dict(zip(inputs, _encode(encoder, list(inputs.values())), strict=True))
    except Exception as error:
        if len(inputs) == 1:
            (path,) = inputs
            skipped[str(path)] = _reason(error, path)
            return {}
    vectors: dict[Path, np.ndarray] = {}
    for path in inputs:
        vectors |= _embed_block(encoder, [path], skipped)
    return vectors


def _encode(encoder: Encoder, inputs: list[Any]) -> np.ndarray:
    """Vectors of files, which are always corpus rows."""
    vectors = encoder.encode_document(inputs, batch_size=len(inputs), show_progress_bar=False, convert_to_numpy=True)
    vectors = as_array(vectors).astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise ValueError(NOT_FINITE)
    return vectors


def _reason(error: Exception, path: Path) -> str:
    """The first line of an error, without the place in a batch and the path in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^(inputs\[\d+\](\['\w+'\])?: )?((video|image): )?", "", lines[0])
    for name in (repr(str(path)), str(path)):
        line = line.removeprefix(f"{name}: ").removeprefix(f"{name} ")
    return line
