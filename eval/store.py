"""Vectors on disk and in memory: by content for `encode_rows`, by file for `gve encode`.

Shapes: n rows or files, D width.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gve.eval.console import printable
from gve.hub_datasets.files import remove_leftovers, write_atomic
from gve.media_gve import shown

logger = logging.getLogger(__name__)

CONTENT_SCHEMA = "gve-vectors/1"
FILES_SCHEMA = "gve-embeddings/1"
SHARDS_SCHEMA = "gve-embeddings-shards/1"
INDEX = "index.json"
KEY_BYTES = 20


class EmbeddingCache(dict[bytes, np.ndarray]):
    """Vectors in memory by content, role and instruction. It does not see weights: use one per encoder."""

    @property
    def width(self) -> int | None:
        """D; None while the cache is empty."""
        return next((len(vector) for vector in self.values()), None)

    def add(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep (n, D) vectors under n keys of `content_key`."""
        self.update(zip(keys, vectors, strict=True))

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """The (n, D) float32 vectors of n known keys."""
        return np.stack([self[key] for key in keys])


class EmbeddingStore:
    """The same on disk: each `add` writes one safetensors file atomically; memory holds only the keys.

    Args:
        folder: Created if missing. Stores with different identities share it.
        identity: Everything besides the rows that changes a vector, such as the fingerprint of the weights.

    Raises:
        ValueError: If a file cannot be read, or two differ in width.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        text = json.dumps({"schema": CONTENT_SCHEMA, **identity}, sort_keys=True)
        self.folder = folder / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "identity.json", (text + "\n").encode())
        self.width: int | None = None
        self._places: dict[bytes, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            keys, width = _read_keys(path)
            self._note(keys, path, width)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def add(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep (n, D) vectors under n keys of `content_key`, in a file of their own."""
        name = hashlib.blake2b(b"".join(keys), digest_size=12).hexdigest()
        path = self.folder / f"{name}.safetensors"
        packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
        tensors = {"keys": packed, "vectors": np.ascontiguousarray(vectors, dtype=np.float32)}
        write_atomic(path, save(tensors, {"schema": CONTENT_SCHEMA}))
        self._note(list(keys), path, vectors.shape[1])

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """The (n, D) float32 vectors of n known keys."""
        by_path: dict[Path, list[tuple[int, int]]] = {}
        for target, key in enumerate(keys):
            path, row = self._places[key]
            by_path.setdefault(path, []).append((target, row))
        out = np.empty((len(keys), self.width or 0 if keys else 0), dtype=np.float32)
        for path, pairs in by_path.items():
            with safe_open(path, framework="numpy") as stored:
                targets, rows = np.array(pairs).T
                out[targets] = stored.get_tensor("vectors")[rows]
        return out

    def _note(self, keys: Sequence[bytes], path: Path, width: int) -> None:
        if self.width not in (None, width):
            raise ValueError(
                f"{path}: vectors of width {width}; the others of its folder have {self.width}; delete {self.folder}"
            )
        self.width = width
        self._places |= {key: (path, row) for row, key in enumerate(keys)}


Store = EmbeddingCache | EmbeddingStore


def _read_keys(path: Path) -> tuple[list[bytes], int]:
    """Keys in a file and the width of its vectors, which stay on disk."""
    try:
        with safe_open(path, framework="numpy") as stored:
            keys = stored.get_tensor("keys")
            rows, width = stored.get_slice("vectors").get_shape()
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read ({error}) as a file of this store; delete it") from error
    if keys.shape != (rows, KEY_BYTES):
        raise ValueError(f"{path}: keys of shape {keys.shape} for {rows} vectors; delete it, it will be made again")
    return [row.tobytes() for row in keys], width


@dataclass
class FileEmbeddings:
    """Vectors of files."""

    paths: list[str]
    vectors: np.ndarray  # (n, D) float32
    stamps: list[str] = field(default_factory=list)  # `file_stamp` when embedded
    skipped: dict[str, str] = field(default_factory=dict)  # reason by path
    model: str = ""  # folder or Hub name
    fingerprint: str = ""  # see `model_fingerprint`


def file_stamp(path: Path) -> str:
    """Size and time of change, to detect rewritten files."""
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def save_embeddings(result: FileEmbeddings, target: Path, identity: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically: tensor `embeddings`, the rest as JSON in the metadata.

    Args:
        identity: More metadata, by which a shard is recognised.
    """
    metadata = {
        "schema": FILES_SCHEMA,
        "paths": json.dumps(result.paths),
        "stamps": json.dumps(result.stamps),
        "skipped": json.dumps(result.skipped),
        "model": printable(result.model),  # a header is UTF-8; JSON escapes whatever else a path may hold
        "fingerprint": result.fingerprint,
        **(identity or {}),
    }
    write_atomic(target, _canonical(save({"embeddings": np.ascontiguousarray(result.vectors)}, metadata)))


def _canonical(content: bytes) -> bytes:
    """The file with sorted metadata; safetensors orders names differently in every process."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the vectors start at a multiple of eight
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_embeddings(source: Path) -> FileEmbeddings:
    """Read a file or folder of shards from `gve encode`; ValueError if missing, incomplete or foreign."""
    if source.is_dir():
        return _load_shards(source)
    metadata, vectors = _read(source)
    paths, stamps, skipped = (json.loads(metadata[key]) for key in ("paths", "stamps", "skipped"))
    return FileEmbeddings(paths, vectors, stamps, skipped, metadata["model"], metadata["fingerprint"])


def _read(source: Path, *, vectors: bool = True) -> tuple[dict[str, str], np.ndarray]:
    """Metadata and vectors of a file; (0, 0) if `vectors` is off."""
    try:
        with safe_open(source, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("schema") != FILES_SCHEMA:
                raise ValueError(
                    f"{source}: schema must be {FILES_SCHEMA!r}, got {shown(metadata.get('schema'))}. Write it with "
                    "`gve encode`."
                )
            return metadata, stored.get_tensor("embeddings") if vectors else np.zeros((0, 0), np.float32)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{source}: not a readable safetensors file ({error}). Write it with `gve encode`."
        ) from error


def is_sharded(folder: Path) -> bool:
    """Whether a folder holds the shards of a finished job."""
    return (folder / INDEX).is_file() and (folder / shard_name(0)).is_file()


def _load_shards(folder: Path) -> FileEmbeddings:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{folder}: no {INDEX}: `gve encode` has not finished. Run the same command again."
        ) from error
    except ValueError as error:
        raise ValueError(f"{folder / INDEX}: not JSON ({error}). Delete it and run `gve encode` again.") from error
    if index.get("schema") != SHARDS_SCHEMA:
        raise ValueError(
            f"{folder / INDEX}: schema must be {SHARDS_SCHEMA!r}, got {shown(index.get('schema'))}. Write it with "
            "`gve encode`."
        )
    out = FileEmbeddings([], np.zeros((index["embedded"], index["width"]), np.float32))
    out.model, out.fingerprint = index["model"], index["fingerprint"]
    for entry in index["shards"]:
        shard = load_embeddings(folder / entry["file"])
        if shard.fingerprint != out.fingerprint or len(shard.paths) != entry["embedded"]:
            raise ValueError(f"{folder / entry['file']}: does not match the index. Run `gve encode` again.")
        if shard.paths:
            out.vectors[len(out.paths) : len(out.paths) + len(shard.paths)] = shard.vectors
        out.paths += shard.paths
        out.stamps += shard.stamps
        out.skipped |= shard.skipped
    return out


class ShardJob(NamedTuple):
    """One shard to make, with everything that a worker needs."""

    target: Path
    files: list[str]
    model: str
    fingerprint: str  # see `model_fingerprint`
    settings: dict[str, Any]  # whatever else changes the vectors, such as the batch size

    @property
    def identity(self) -> dict[str, str]:
        """Metadata that identify the wanted shard."""
        names = hashlib.blake2b(json.dumps(self.files).encode(), digest_size=16).hexdigest()
        return {"files": names, "settings": json.dumps(self.settings, sort_keys=True)}


def shard_name(number: int) -> str:
    """File name of a shard, counted from 0."""
    return f"shard-{number:05d}.safetensors"


class ShardFolder:
    """A folder of shards; the sorted list of files alone decides which file goes into which.

    A job killed at any instant leaves whole shards. Run again, it makes the missing ones with the same bytes.

    Args:
        folder: Created if missing.
        settings: Whatever else changes the vectors, such as the batch size.
        shard_size: Files in a shard.

    Raises:
        ValueError: If the folder holds anything else.
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
            raise ValueError(f"shard_size: must be at least 1, got {shard_size}.")
        self.folder, self.shard_size = folder, shard_size
        self.paths = sorted({str(path) for path in paths})
        self.model, self.fingerprint, self.settings = model, fingerprint, {**settings, "shard_size": shard_size}
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder)
        known = {INDEX, *(shard_name(number) for number in range(len(self)))}
        found = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if others := sorted(set(found) - known):
            raise ValueError(
                f"{folder}: is a folder that holds {shown(others[0])}, which is not one of this job's {len(self)} "
                "shards. Choose an empty folder, a new one, or the one this job began."
            )

    def __len__(self) -> int:
        return -(-len(self.paths) // self.shard_size)

    def job(self, number: int) -> ShardJob:
        """The job of a shard, counted from 0."""
        files = self.paths[number * self.shard_size : (number + 1) * self.shard_size]
        return ShardJob(self.folder / shard_name(number), files, self.model, self.fingerprint, self.settings)

    def pending(self) -> list[int]:
        """Shards to make: missing, or with a file changed since; ValueError if another job made a shard."""
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
                f"{job.target}: made by {shown(metadata['model'])} with other weights than {shown(self.model)}. Choose "
                "another folder, or the same model."
            )
        for name, value in job.identity.items():
            if metadata.get(name) != value:
                raise ValueError(
                    f"{job.target}: made of other {name} ({shown(metadata.get(name))}, now {shown(value)}). Run the "
                    "same command, or choose another folder."
                )
        stamps = zip(json.loads(metadata["paths"]), json.loads(metadata["stamps"]), strict=True)
        changed = [path for path, stamp in stamps if not Path(path).is_file() or file_stamp(Path(path)) != stamp]
        if changed:
            logger.info("%s is made again: %s has changed", job.target.name, printable(changed[0]))
        return not changed

    def finish(self) -> dict[str, Any]:
        """Write and return the index over all shards, which marks the job as complete."""
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
