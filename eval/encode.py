"""Rows to vectors through any encoder, in bounded memory, each distinct content once.

Shapes: n rows, D width.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from gve.eval.encoders import Encoder, FunctionEncoder
from gve.eval.inputs import MODALITIES, encoder_input
from gve.eval.models import skips_broken_inputs
from gve.eval.store import EmbeddingCache, EmbeddingStore, Store
from gve.eval.video_retrieval.ranking import as_array
from gve.media_gve import local_source

__all__ = ["EmbeddingCache", "EmbeddingStore", "Encoder", "FunctionEncoder", "content_key", "encode_rows"]

_BATCHES_HELD = 4  # batches whose media are in memory at once; the encoder may sort within them


def encode_rows(
    encoder: Encoder,
    rows: Sequence[Mapping[str, Any]],
    *,
    role: Literal["query", "document"],
    instruction: str | None = None,
    batch_size: int = 64,
    cache: Store | None = None,
    progress: bool = True,
    video_options: Mapping[str, Any] | None = None,
    label: str = "",
) -> np.ndarray:
    """Embed rows of text, image and video.

    Args:
        encoder: Turns inputs into vectors.
        rows: A list or a dataset; see `encoder_input` for what a row may hold.
        role: "query" or "document"; chooses the encoder's method.
        instruction: The system message; None leaves the encoder's own for that role, "" asks for none.
        batch_size: Rows in one forward pass.
        cache: Kept between calls with the same encoder; vectors are added to it block by block.
        progress: Whether to show a bar once the work takes more than two seconds.
        video_options: Keyword arguments of the encoder that change what it makes of videos, such as num_frames.
        label: What messages call the rows, such as the name of their set.

    Returns:
        (n, D) float32, in the order of `rows`.

    Raises:
        ValueError: For an unknown role, no rows, a row without content, a row that an encoder of ours cannot read, or
            an encoder that returns another shape, nan, infinity or zero. What was computed until then is in the cache.
    """
    if role not in ("query", "document"):
        raise ValueError(f"role: {role!r}; 'query' or 'document' is accepted; choose one")
    if not len(rows):
        raise ValueError("rows: got none; at least one is needed; check the split or the folder")
    store = EmbeddingCache() if cache is None else cache
    call = _Call(encoder, role, instruction, batch_size, dict(video_options or {}), f"{label} {role}".strip())
    vectors: np.ndarray | None = None
    with tqdm(total=len(rows), desc=f"encode {call.label}", unit="row", disable=not progress, delay=2) as bar:
        for start in range(0, len(rows), batch_size * _BATCHES_HELD):
            block = [rows[index] for index in range(start, min(start + batch_size * _BATCHES_HELD, len(rows)))]
            keys = [content_key(row, call.salt(row)) for row in block]
            missing: dict[bytes, int] = {}
            for place, key in enumerate(keys):
                if key not in store:
                    missing.setdefault(key, place)
            if missing:
                call.fill(store, missing, block, start)
            found = store.take(keys)
            vectors = np.empty((len(rows), found.shape[1]), dtype=np.float32) if vectors is None else vectors
            vectors[start : start + len(block)] = found
            bar.update(len(block))
    assert vectors is not None
    return vectors


class _Call:
    """One call of `encode_rows`: how its rows reach the encoder and its vectors the store."""

    def __init__(
        self,
        encoder: Encoder,
        role: str,
        instruction: str | None,
        batch_size: int,
        video_options: dict[str, Any],
        label: str,
    ) -> None:
        self.role, self.instruction, self.label = role, instruction, label
        self.video_options = video_options
        self.encode = encoder.encode_query if role == "query" else encoder.encode_document
        self.options = {
            "batch_size": batch_size,
            "show_progress_bar": False,
            "convert_to_numpy": True,
            **video_options,
        }
        self.options |= {} if instruction is None else {"prompt": instruction}
        self.skips = skips_broken_inputs(encoder)

    def salt(self, row: Mapping[str, Any]) -> bytes:
        """What a row's vector depends on beside the row; texts and images do not see the options of videos."""
        seen = self.video_options if row.get("video") is not None else {}
        return repr((self.role, self.instruction, *sorted(seen.items()))).encode()

    def fill(self, store: Store, missing: Mapping[bytes, int], block: Sequence[Mapping[str, Any]], start: int) -> None:
        """Encode some rows of a block and keep every vector that can be used, then tell of the others."""
        names = {place: _name_row(block[place], start + place, self.label) for place in missing.values()}
        inputs = []
        for place in missing.values():
            try:
                inputs.append(encoder_input(block[place]))
            except (OSError, ValueError, SyntaxError) as error:  # what PIL raises on broken images
                raise ValueError(f"{names[place]}: {error}") from error
        failures: list[Any] = []
        skip = {"on_error": "skip", "skipped": failures} if self.skips else {}
        try:
            fresh = as_array(self.encode(inputs, **self.options, **skip)).astype(np.float32, copy=False)
        except Exception as error:
            error.add_note(f"while encoding {self.label} rows {start} to {start + len(block) - 1}")
            raise
        failed = {failure.index: failure.error for failure in failures}
        pairs = list(missing.items())
        problems = [f"{names[pairs[index][1]]}: {error}" for index, error in failed.items()]
        kept = [pair for index, pair in enumerate(pairs) if index not in failed]
        if fresh.ndim != 2 or len(fresh) != len(kept):
            raise ValueError(
                f"encoder: returned shape {fresh.shape} for {len(kept)} inputs; ({len(kept)}, D) is accepted; "
                "return one vector an input"
            )
        if kept and store.width not in (None, fresh.shape[1]):
            raise ValueError(
                f"{names[kept[0][1]]}: the encoder returned width {fresh.shape[1]}, and {store.width} for the rows "
                "before; one width is accepted; use one model, or another cache"
            )
        usable = np.isfinite(fresh).all(axis=1) & (fresh != 0).any(axis=1)  # (n,)
        problems += [
            f"{names[place]}: the encoder returned {'zeros' if np.isfinite(vector).all() else 'nan or infinity'}"
            for (_, place), vector, good in zip(kept, fresh, usable, strict=True)
            if not good
        ]
        if usable.any():
            store.add([key for (key, _), good in zip(kept, usable, strict=True) if good], fresh[usable])
        if problems:
            more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise ValueError(f"{problems[0]}{more}; what could be encoded is kept in the cache; mend them, run again")


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
        medium = medium if modality == "text" else local_source(medium)
        content = _content(medium, is_text=modality == "text")
        digest.update(f"{modality}:{len(content)}:".encode())
        digest.update(content)
    return digest.digest()


def _name_row(row: Mapping[str, Any], index: int, label: str) -> str:
    """What messages call a row: its set and role, its place and its id."""
    return f"{label} row {index}" + (f" (id {row['id']!r})" if "id" in row else "")


def _content(medium: Any, *, is_text: bool) -> bytes:
    """Bytes that stand for one medium."""
    if isinstance(medium, bytes):
        return medium
    if isinstance(medium, str | Path):
        path = Path(medium)
        if is_text or not path.is_file():
            return str(medium).encode("utf-8", "surrogatepass")  # the encoder says what is wrong with half a character
        stat = path.stat()
        return f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}".encode("utf-8", "surrogatepass")
    if isinstance(medium, io.BytesIO):
        return medium.getvalue()
    array = np.ascontiguousarray(medium)  # an image of PIL, frames, or an array
    if array.dtype.hasobject:
        raise ValueError(
            f"row: got {type(medium).__name__}; bytes, a path, an image or an array are accepted; convert it"
        )
    return f"{array.shape}|{array.dtype.str}|".encode() + array.tobytes()
