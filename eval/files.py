"""Files and folders to vectors: what is found, what is skipped and why, and the file that keeps the result.

Shapes: n files, D width.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from gve.eval.encode import Encoder
from gve.eval.inputs import IMAGE_SUFFIXES, VIDEO_SUFFIXES, encoder_input, file_row

logger = logging.getLogger(__name__)

SCHEMA = "gve-embeddings/1"


@dataclass
class FileEmbeddings:
    """Vectors of files.

    Attributes:
        paths: The n embedded files.
        vectors: (n, D) float32.
        stamps: Size and time of change of each file when it was embedded.
        skipped: Reason by path, for files that could not be embedded.
        model: The model's folder or Hub name.
        fingerprint: A digest of the model's files; see `model_fingerprint`.
    """

    paths: list[str]
    vectors: np.ndarray
    stamps: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    model: str = ""
    fingerprint: str = ""


def find_files(arguments: Iterable[str | Path]) -> tuple[list[Path], dict[str, int]]:
    """Expand folders, at any depth and in sorted order; hidden files and folders are left out.

    Args:
        arguments: Files, taken as they are, and folders, searched for videos and images.

    Returns:
        The files, each once, and how many other files the folders held by suffix.

    Raises:
        ValueError: When an argument does not exist.
    """
    found: dict[Path, None] = {}
    others: dict[str, int] = {}
    for argument in map(Path, arguments):
        if not argument.exists():
            raise ValueError(
                f"FILES: {str(argument)!r} does not exist; files and folders are accepted; check the path"
            )
        if not argument.is_dir():
            found[argument] = None
            continue
        for folder, folders, names in os.walk(argument):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                path = Path(folder, name)
                suffix = path.suffix.lower()
                if suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                    found[path] = None
                else:
                    others[suffix] = others.get(suffix, 0) + 1
    return list(found), others


def embed_files(
    encoder: Encoder,
    paths: Sequence[Path],
    *,
    known: Mapping[str, tuple[str, np.ndarray]] | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> FileEmbeddings:
    """Embed videos and images as corpus rows; a file that fails is named, and costs only itself.

    Args:
        encoder: Turns inputs into vectors.
        paths: The files.
        known: Stamp and vector by path; files whose stamp has not changed are not read again.
        batch_size: Files in one forward pass.
        progress: Whether to show a bar once the work takes more than two seconds.

    Returns:
        The vectors in the order of `paths`, with the files left out and why; without any, `vectors` is (0, 0).
    """
    done: dict[Path, tuple[str, np.ndarray]] = {}
    skipped: dict[str, str] = {}
    with tqdm(total=len(paths), desc="embed files", unit="file", disable=not progress, delay=2) as bar:
        for start in range(0, len(paths), batch_size):
            block = paths[start : start + batch_size]
            pending: dict[Path, tuple[str, dict[str, str]]] = {}
            for path in block:
                try:
                    row, stamp = file_row(path), _stamp(path)
                except (OSError, ValueError) as error:
                    skipped[str(path)] = _reason(error, path)
                    continue
                if known and str(path) in known and known[str(path)][0] == stamp:
                    done[path] = known[str(path)]
                else:
                    pending[path] = (stamp, row)
            for path, vector in _embed_block(encoder, pending, skipped).items():
                done[path] = (pending[path][0], vector)
            bar.update(len(block))
    skipped = {str(path): skipped[str(path)] for path in paths if str(path) in skipped}
    for path, reason in skipped.items():
        logger.warning("skipped %s: %s", path, reason)
    order = [path for path in paths if path in done]
    vectors = np.stack([done[path][1] for path in order]) if order else np.zeros((0, 0), dtype=np.float32)
    return FileEmbeddings([str(path) for path in order], vectors, [done[path][0] for path in order], skipped)


def save_embeddings(result: FileEmbeddings, target: Path) -> None:
    """Write a safetensors file at once: tensor `embeddings`, the rest as JSON in the metadata.

    Args:
        result: What to keep.
        target: The file; replaced only when the new one is complete.
    """
    metadata = {
        "schema": SCHEMA,
        "paths": json.dumps(result.paths),
        "stamps": json.dumps(result.stamps),
        "skipped": json.dumps(result.skipped),
        "model": result.model,
        "fingerprint": result.fingerprint,
    }
    write_atomic(target, save({"embeddings": np.ascontiguousarray(result.vectors)}, metadata))


def load_embeddings(source: Path) -> FileEmbeddings:
    """Read what `save_embeddings` wrote.

    Args:
        source: The file.

    Returns:
        The vectors and what is known of them.

    Raises:
        ValueError: When the file is not there or was not written by `gve encode`.
    """
    try:
        with safe_open(source, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise ValueError(
                    f"{source}: schema {metadata.get('schema')!r}; {SCHEMA!r} is accepted; write it with `gve encode`"
                )
            vectors = stored.get_tensor("embeddings")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{source}: not a readable safetensors file ({error}); write it with `gve encode`") from error
    return FileEmbeddings(
        json.loads(metadata["paths"]),
        vectors,
        json.loads(metadata["stamps"]),
        json.loads(metadata["skipped"]),
        metadata["model"],
        metadata["fingerprint"],
    )


def model_fingerprint(model: str) -> str:
    """Tell two models apart by their files: contents of the JSON files, size and samples of the weights.

    Args:
        model: A local folder; for anything else the name stands for itself.

    Returns:
        A hexadecimal digest.
    """
    digest = hashlib.blake2b(digest_size=16)
    folder = Path(model)
    if not folder.is_dir():
        digest.update(model.encode())
        return digest.hexdigest()
    for path in sorted([*folder.rglob("*.json"), *folder.rglob("*.safetensors")]):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}|{size}|".encode())
        with path.open("rb") as file:
            for place in range(0, size, max(size // 64, 1 << 16)):
                file.seek(place)
                digest.update(file.read(1 << 16))
    return digest.hexdigest()


def write_atomic(target: Path, content: bytes) -> None:
    """Replace a file in one step; interrupted at any point, the old one or none is there.

    Args:
        target: The file; its folder must exist.
        content: All of it.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _embed_block(
    encoder: Encoder, pending: Mapping[Path, tuple[str, dict[str, str]]], skipped: dict[str, str]
) -> dict[Path, np.ndarray]:
    """Vectors of a block; when the block fails, of each file by itself."""
    inputs: dict[Path, Any] = {}
    for path, (_, row) in pending.items():
        try:
            inputs[path] = encoder_input(row)
        except (OSError, ValueError, SyntaxError) as error:  # what PIL raises on broken files
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
        vectors |= _embed_block(encoder, {path: pending[path]}, skipped)
    return vectors


def _encode(encoder: Encoder, inputs: list[Any]) -> np.ndarray:
    """Vectors of files, which are always corpus rows."""
    vectors = encoder.encode_document(inputs, batch_size=len(inputs), show_progress_bar=False, convert_to_numpy=True)
    vectors = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("the encoder returned nan or infinity")
    return vectors


def _stamp(path: Path) -> str:
    """Size and time of change."""
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _reason(error: Exception, path: Path) -> str:
    """The first line of an error, without the path in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("video: ").removeprefix(f"{str(path)!r}: ").removeprefix(f"{path}: ")
