"""Vectors by content: in memory, or on disk, so that a run that was killed goes on where it was.

Shapes: n rows, D width.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gve.eval.files import write_atomic

SCHEMA = "gve-vectors/1"
KEY_BYTES = 20


class EmbeddingCache:
    """Vectors in memory by content, role and instruction, so that a corpus shared by several sets is encoded once.

    A cache belongs to one encoder with one set of weights: make a new one when either changes.
    """

    def __init__(self) -> None:
        self._vectors: dict[bytes, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, key: bytes) -> bool:
        return key in self._vectors

    @property
    def width(self) -> int | None:
        """D of what is kept; None as long as there is nothing."""
        return next((len(vector) for vector in self._vectors.values()), None)

    def add(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep vectors.

        Args:
            keys: n keys of `content_key`.
            vectors: (n, D) float32.
        """
        self._vectors |= zip(keys, vectors, strict=True)

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """Vectors by key.

        Args:
            keys: n keys, all of them kept.

        Returns:
            (n, D) float32.
        """
        return np.stack([self._vectors[key] for key in keys])


class EmbeddingStore:
    """The same on disk: each `add` writes one safetensors file, whole or not at all, and nothing is held but the keys.

    Args:
        folder: Where to; made if missing. Stores of different identities share it.
        identity: What tells apart encoders that would give other vectors, such as the fingerprint of the weights.

    Raises:
        ValueError: When a file of it cannot be read, or two differ in width.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        text = json.dumps({"schema": SCHEMA, **identity}, sort_keys=True)
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
        """Keep vectors, in a file of their own.

        Args:
            keys: n keys of `content_key`.
            vectors: (n, D) float32.

        Raises:
            ValueError: When D is not that of the vectors kept before.
        """
        name = hashlib.blake2b(b"".join(keys), digest_size=12).hexdigest()
        path = self.folder / f"{name}.safetensors"
        packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
        tensors = {"keys": packed, "vectors": np.ascontiguousarray(vectors, dtype=np.float32)}
        write_atomic(path, save(tensors, {"schema": SCHEMA}))
        self._note(list(keys), path, vectors.shape[1])

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """Vectors by key.

        Args:
            keys: n keys, all of them kept.

        Returns:
            (n, D) float32.
        """
        by_path: dict[Path, list[tuple[int, int]]] = {}
        for target, key in enumerate(keys):
            path, row = self._places[key]
            by_path.setdefault(path, []).append((target, row))
        out: np.ndarray | None = None
        for path, pairs in by_path.items():
            with safe_open(path, framework="numpy") as stored:
                vectors = stored.get_tensor("vectors")
            out = np.empty((len(keys), vectors.shape[1]), dtype=np.float32) if out is None else out
            targets, rows = np.array(pairs).T
            out[targets] = vectors[rows]
        return np.empty((0, 0), dtype=np.float32) if out is None else out

    def _note(self, keys: Sequence[bytes], path: Path, width: int) -> None:
        """Remember where vectors are."""
        if self.width not in (None, width):
            raise ValueError(
                f"{path}: vectors of width {width}; the others of its folder have {self.width}; delete {self.folder}"
            )
        self.width = width
        self._places |= {key: (path, row) for row, key in enumerate(keys)}


Store = EmbeddingCache | EmbeddingStore


def _read_keys(path: Path) -> tuple[list[bytes], int]:
    """The keys of a file and the width of its vectors, which stay on disk."""
    try:
        with safe_open(path, framework="numpy") as stored:
            keys = stored.get_tensor("keys")
            rows, width = stored.get_slice("vectors").get_shape()
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); files of this store are accepted; delete it") from error
    if keys.shape != (rows, KEY_BYTES):
        raise ValueError(f"{path}: keys of shape {keys.shape} for {rows} vectors; delete it, it will be made again")
    return [row.tobytes() for row in keys], width
