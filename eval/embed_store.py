"""Vectors of files on disk: one safetensors file, or a folder of shards that a killed job goes on with.

Shapes: n files, D width.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gve.eval.console import printable
from gve.media_gve import shown

logger = logging.getLogger(__name__)

SCHEMA = "gve-embeddings/1"
SHARDS_SCHEMA = "gve-embeddings-shards/1"
INDEX = "index.json"


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


def save_embeddings(result: FileEmbeddings, target: Path) -> None:
    """Write a safetensors file at once: tensor `embeddings`, the rest as JSON in the metadata.

    Args:
        result: What to keep.
        target: The file; replaced only when the new one is complete.
    """
    _save(result, target, {})


def _save(result: FileEmbeddings, target: Path, more: Mapping[str, str]) -> None:
    metadata = {
        "schema": SCHEMA,
        "paths": json.dumps(result.paths),
        "stamps": json.dumps(result.stamps),
        "skipped": json.dumps(result.skipped),
        "model": printable(result.model),  # a header is UTF-8; JSON escapes what a path may hold besides
        "fingerprint": result.fingerprint,
        **more,
    }
    write_atomic(target, _canonical(save({"embeddings": np.ascontiguousarray(result.vectors)}, metadata)))


def _canonical(content: bytes) -> bytes:
    """The same file with its header's names in order: safetensors writes them in one that changes from run to run."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the vectors start at a multiple of eight
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_embeddings(source: Path) -> FileEmbeddings:
    """Read what `gve encode` wrote.

    Args:
        source: The file, or the folder of shards.

    Returns:
        The vectors and what is known of them.

    Raises:
        ValueError: When it is not there, was not written by `gve encode`, or is not complete.
    """
    if source.is_dir():
        return _load_shards(source)
    metadata, vectors = _read(source)
    return FileEmbeddings(
        json.loads(metadata["paths"]),
        vectors,
        json.loads(metadata["stamps"]),
        json.loads(metadata["skipped"]),
        metadata["model"],
        metadata["fingerprint"],
    )


def _read(source: Path, *, vectors: bool = True) -> tuple[dict[str, str], np.ndarray]:
    """Metadata and vectors of a file; without them, (0, 0)."""
    try:
        with safe_open(source, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise ValueError(
                    f"{source}: schema {shown(metadata.get('schema'))}; {SCHEMA!r} is accepted; write it with `gve encode`"
                )
            return metadata, stored.get_tensor("embeddings") if vectors else np.zeros((0, 0), np.float32)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{source}: not a readable safetensors file ({error}); write it with `gve encode`") from error


def is_sharded(folder: Path) -> bool:
    """Whether a folder holds vectors in shards.

    Args:
        folder: Any path.

    Returns:
        True for the folder of a complete job.
    """
    return (folder / INDEX).is_file() and (folder / shard_name(0)).is_file()


def _load_shards(folder: Path) -> FileEmbeddings:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{folder}: no {INDEX}; a folder that `gve encode` has finished is accepted; run the same command again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{folder / INDEX}: no JSON ({error}); delete it and run `gve encode` again") from error
    if index.get("schema") != SHARDS_SCHEMA:
        raise ValueError(
            f"{folder / INDEX}: schema {shown(index.get('schema'))}; {SHARDS_SCHEMA!r} is accepted; write it with `gve encode`"
        )
    out = FileEmbeddings([], np.zeros((index["embedded"], index["width"]), np.float32))
    out.model, out.fingerprint = index["model"], index["fingerprint"]
    for entry in index["shards"]:
        shard = load_embeddings(folder / entry["file"])
        if shard.fingerprint != out.fingerprint or len(shard.paths) != entry["embedded"]:
            raise ValueError(f"{folder / entry['file']}: not the shard of the index; run `gve encode` again")
        if shard.paths:
            out.vectors[len(out.paths) : len(out.paths) + len(shard.paths)] = shard.vectors
        out.paths += shard.paths
        out.stamps += shard.stamps
        out.skipped |= shard.skipped
    return out


class ShardJob(NamedTuple):
    """One shard to make: all that a worker must know.

    Attributes:
        target: The file to write.
        files: The files to embed, in order.
        model: The model's folder or Hub name.
        fingerprint: A digest of the model's files.
        settings: What the vectors depend on beside.
    """

    target: Path
    files: list[str]
    model: str
    fingerprint: str
    settings: dict[str, Any]


def shard_name(number: int) -> str:
    """The file name of a shard.

    Args:
        number: From 0 on.

    Returns:
        A name.
    """
    return f"shard-{number:05d}.safetensors"


def save_shard(job: ShardJob, result: FileEmbeddings) -> None:
    """Write a shard, whole or not at all.

    Args:
        job: What was to be made.
        result: What came of it.
    """
    result.model, result.fingerprint = job.model, job.fingerprint
    _save(result, job.target, _identity(job))


def _identity(job: ShardJob) -> dict[str, str]:
    """What tells that a shard on disk is the one wanted."""
    names = hashlib.blake2b(json.dumps(job.files).encode(), digest_size=16).hexdigest()
    return {"files": names, "settings": json.dumps(job.settings, sort_keys=True)}


class ShardedStore:
    """A folder of shards; which file goes into which follows from the sorted list of files alone.

    Each shard is written at once, so a job killed at any instant has some whole shards, and the same job started again
    makes the others: the bytes are those of a job that was never killed.

    Args:
        folder: Where to; made if missing.
        paths: The files, in any order.
        model: The model's folder or Hub name.
        fingerprint: A digest of the model's files.
        settings: What the vectors depend on beside, such as the rows of a batch.
        shard_size: Files of a shard.

    Raises:
        ValueError: When the folder holds something else, or shards of another job.
    """

    def __init__(
        self,
        folder: Path,
        paths: Iterable[Path],
        *,
        model: str,
        fingerprint: str,
        settings: Mapping[str, Any],
        shard_size: int,
    ) -> None:
        if shard_size < 1:
            raise ValueError(f"shard_size: got {shard_size}; 1 or more is accepted; raise it")
        self.folder, self.shard_size = folder, shard_size
        self.paths = sorted({str(path) for path in paths})
        self.model, self.fingerprint, self.settings = model, fingerprint, {**settings, "shard_size": shard_size}
        folder.mkdir(exist_ok=True)
        for left in folder.glob(".*.partial"):
            left.unlink()
        known = {INDEX, *(shard_name(number) for number in range(len(self)))}
        if others := sorted(path.name for path in folder.iterdir() if path.name not in known):
            raise ValueError(
                f"{folder}: is a folder that holds {shown(others[0])}, which is none of this job's {len(self)} shards; a new, "
                "empty or begun folder is accepted; choose another"
            )

    def __len__(self) -> int:
        return -(-len(self.paths) // self.shard_size)

    def job(self, number: int) -> ShardJob:
        """What a shard is made of.

        Args:
            number: From 0 on.

        Returns:
            Its job.
        """
        files = self.paths[number * self.shard_size : (number + 1) * self.shard_size]
        return ShardJob(self.folder / shard_name(number), files, self.model, self.fingerprint, self.settings)

    def pending(self) -> list[int]:
        """The shards to make: those that are not there, and those with a file that has changed since.

        Returns:
            Their numbers.

        Raises:
            ValueError: When a shard is there that another model, other files or other settings made.
        """
        out = [number for number in range(len(self)) if not self._is_done(self.job(number))]
        if out:
            (self.folder / INDEX).unlink(missing_ok=True)
        return out

    def _is_done(self, job: ShardJob) -> bool:
        if not job.target.is_file():
            return False
        metadata, _ = _read(job.target, vectors=False)
        if metadata["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"{job.target}: made by {shown(metadata['model'])} with other weights than {shown(self.model)}; the same model is "
                "accepted; choose another folder"
            )
        for name, value in _identity(job).items():
            if metadata.get(name) != value:
                raise ValueError(
                    f"{job.target}: made of other {name} ({shown(metadata.get(name))}, now {shown(value)}); the same command is "
                    "accepted; choose another folder"
                )
        stamps = zip(json.loads(metadata["paths"]), json.loads(metadata["stamps"]), strict=True)
        changed = [path for path, stamp in stamps if not Path(path).is_file() or file_stamp(Path(path)) != stamp]
        if changed:
            logger.info("%s is made again: %s has changed", job.target.name, printable(changed[0]))
        return not changed

    def finish(self) -> dict[str, Any]:
        """Write the index over all shards, which says that the job is complete.

        Returns:
            What it holds.
        """
        shards, skipped, embedded, width = [], {}, 0, 0
        for number in range(len(self)):
            job = self.job(number)
            with safe_open(job.target, framework="numpy") as stored:
                metadata, shape = stored.metadata(), stored.get_slice("embeddings").get_shape()
            shards.append({"file": job.target.name, "files": len(job.files), "embedded": shape[0]})
            skipped |= json.loads(metadata["skipped"])
            embedded, width = embedded + shape[0], max(width, shape[1])
        index = {
            "schema": SHARDS_SCHEMA,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "embedded": embedded,
            "width": width,
            "skipped": skipped,
            "shards": shards,
        }
        write_atomic(self.folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())
        return index


def file_stamp(path: Path) -> str:
    """What changes when a file is written.

    Args:
        path: The file.

    Returns:
        Its size and time of change.
    """
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


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
