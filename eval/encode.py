"""Rows to vectors through any encoder, in bounded memory, each distinct content once.

Shapes: n rows, D width.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from tqdm import tqdm

from gve.eval.inputs import MODALITIES, encoder_input

_BATCHES_HELD = 4  # batches whose media are in memory at once; the encoder may sort within them


class Encoder(Protocol):
    """What evaluation needs of a model; a SentenceTransformer has both methods."""

    def encode_query(self, inputs: list[Any], /, **kwargs: Any) -> Any:
        """Vectors of queries: (n, D); takes prompt, batch_size, show_progress_bar and convert_to_numpy."""

    def encode_document(self, inputs: list[Any], /, **kwargs: Any) -> Any:
        """Vectors of corpus rows: (n, D); takes the same."""


class EmbeddingCache:
    """Vectors by content, role and instruction, so that a corpus shared by several sets is encoded once.

    A cache belongs to one encoder with one set of weights: make a new one when either changes.
    """

    def __init__(self) -> None:
        self._vectors: dict[bytes, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, key: bytes) -> bool:
        return key in self._vectors

    def __getitem__(self, key: bytes) -> np.ndarray:
        return self._vectors[key]

    def __setitem__(self, key: bytes, vector: np.ndarray) -> None:
        self._vectors[key] = vector


def encode_rows(
    encoder: Encoder,
    rows: Sequence[Mapping[str, Any]],
    *,
    role: Literal["query", "document"],
    instruction: str | None = None,
    batch_size: int = 64,
    cache: EmbeddingCache | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Embed rows of text, image and video.

    Args:
        encoder: Turns inputs into vectors.
        rows: A list or a dataset; see `encoder_input` for what a row may hold.
        role: "query" or "document"; chooses the encoder's method.
        instruction: The system message; None leaves the encoder's own for that role, "" asks for none.
        batch_size: Rows in one forward pass.
        cache: Kept between calls with the same encoder.
        progress: Whether to show a bar once the work takes more than two seconds.

    Returns:
        (n, D) float32, in the order of `rows`.

    Raises:
        ValueError: For an unknown role, no rows, a row without content, or an encoder that returns another shape.
    """
    if role not in ("query", "document"):
        raise ValueError(f"role: {role!r}; 'query' or 'document' is accepted; choose one")
    if not len(rows):
        raise ValueError("rows: got none; at least one is needed; check the split or the folder")
    store = EmbeddingCache() if cache is None else cache
    encode = encoder.encode_query if role == "query" else encoder.encode_document
    prompt = {} if instruction is None else {"prompt": instruction}
    salt = repr((role, instruction)).encode()
    vectors: list[np.ndarray] = []
    with tqdm(total=len(rows), desc=f"encode {role}", unit="row", disable=not progress, delay=2) as bar:
        for start in range(0, len(rows), batch_size * _BATCHES_HELD):
            block = [rows[index] for index in range(start, min(start + batch_size * _BATCHES_HELD, len(rows)))]
            keys = [content_key(row, salt) for row in block]
            missing = {key: row for key, row in zip(keys, block, strict=True) if key not in store}
            if missing:
                inputs = [encoder_input(row) for row in missing.values()]
                try:
                    fresh = encode(
                        inputs, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True, **prompt
                    )
                except Exception as error:
                    error.add_note(f"while encoding {role} rows {start} to {start + len(block) - 1}")
                    raise
                _keep(store, list(missing), fresh)
            vectors += [store[key] for key in keys]
            bar.update(len(block))
    return np.stack(vectors)


def content_key(row: Mapping[str, Any], salt: bytes = b"") -> bytes:
    """A digest of what a row holds; a file given by path counts by path, size and time of change.

    Args:
        row: As for `encoder_input`.
        salt: Anything else that the vector depends on.

    Returns:
        20 bytes.
    """
    digest = hashlib.blake2b(salt, digest_size=20)
    for modality in MODALITIES:
        medium = row.get(modality)
        if medium is None:
            continue
        if isinstance(medium, Mapping):
            medium = medium.get("path") if medium.get("bytes") is None else medium["bytes"]
        content = _content(medium, is_text=modality == "text")
        digest.update(f"{modality}:{len(content)}:".encode())
        digest.update(content)
    return digest.digest()


def _content(medium: Any, *, is_text: bool) -> bytes:
    """Bytes that stand for one medium."""
    if isinstance(medium, bytes):
        return medium
    if isinstance(medium, str | Path):
        path = Path(medium)
        if is_text or not path.is_file():
            return str(medium).encode()
        stat = path.stat()
        return f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}".encode()
    if isinstance(medium, io.BytesIO):
        return medium.getvalue()
    array = np.ascontiguousarray(medium)  # an image of PIL, frames, or an array
    if array.dtype.hasobject:
        raise ValueError(
            f"row: got {type(medium).__name__}; bytes, a path, an image or an array are accepted; convert it"
        )
    return f"{array.shape}|{array.dtype.str}|".encode() + array.tobytes()


def _keep(store: EmbeddingCache, keys: list[bytes], fresh: Any) -> None:
    """Check what the encoder returned and store it row by row."""
    vectors = np.asarray(fresh, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(keys):
        raise ValueError(
            f"encoder: returned shape {vectors.shape} for {len(keys)} inputs; ({len(keys)}, D) is accepted; "
            "return one vector an input"
        )
    for key, vector in zip(keys, vectors, strict=True):
        store[key] = vector
