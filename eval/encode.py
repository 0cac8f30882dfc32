"""Turns rows and files into vectors with any encoder, in bounded memory, each distinct content once.

Shapes: n rows, D width.
"""

import hashlib
import io
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from gve.eval.console import printable
from gve.eval.encoders import Encoder, FunctionEncoder
from gve.eval.inputs import MODALITIES, encoder_input, file_row
from gve.eval.models import skips_broken_inputs
from gve.eval.store import (
    EmbeddingCache,
    EmbeddingStore,
    FileEmbeddings,
    ShardJob,
    Store,
    file_stamp,
    save_embeddings,
)
from gve.eval.video_retrieval.ranking import as_array
from gve.media_gve import local_source

__all__ = ["EmbeddingCache", "EmbeddingStore", "Encoder", "FunctionEncoder", "content_key", "encode_rows"]

logger = logging.getLogger(__name__)

_BATCHES_HELD = 4  # batches whose media are in memory at once; the encoder may sort within them
_BATCHES_AHEAD, _BYTES_AHEAD = 32, 1 << 30  # the same for our models on a device, which would idle between blocks
_UNREADABLE = (OSError, ValueError, SyntaxError)  # SyntaxError: what PIL raises for some broken PNGs


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
        rows: A list or a dataset; see `encoder_input` for what a row may hold.
        instruction: The system message; None leaves the encoder's own for the role, "" sends none.
        cache: Kept between calls with the same encoder; gains vectors block by block.
        video_options: Keyword arguments of the encoder for videos, such as num_frames.
        label: Name of the rows in messages, such as their set.

    Returns:
        (n, D) float32, in the order of `rows`.

    Raises:
        ValueError: For an unknown role, no rows, an empty or unreadable row, or an encoder that returns another shape,
            nan, infinity or zeros. Everything computed until then is in the cache.
    """
    if role not in ("query", "document"):
        raise ValueError(f"role: {role!r}; must be 'query' or 'document'")
    if not len(rows):
        raise ValueError("rows: got none. Check the split or the folder.")
    call = _EncodeCall(encoder, role, instruction, batch_size, dict(video_options or {}), f"{label} {role}".strip())
    store = EmbeddingCache() if cache is None else cache
    vectors: np.ndarray | None = None
    start, size = 0, batch_size * (_BATCHES_AHEAD if call.runs_apart else _BATCHES_HELD)
    with tqdm(total=len(rows), desc=f"encode {call.label}", unit="row", disable=not progress, delay=2) as bar:
        for block in _blocks(rows, size, _BYTES_AHEAD if call.runs_apart else math.inf):
            keys = [content_key(row, call.salt(row)) for row in block]
            makers = [partial(encoder_input, row, open_images=not call.skips) for row in block]
            problems = call.fill(store, keys, makers, start)
            if problems:
                ids = {place: f" (id {block[place]['id']!r})" if "id" in block[place] else "" for place in problems}
                listed = [f"{call.label} row {start + at}{ids[at]}: {problems[at]}" for at in problems]
                more = f", and {len(listed) - 1} more" if len(listed) > 1 else ""
                raise ValueError(
                    f"{listed[0]}{more}; what could be encoded is in the cache. Repair them and run again."
                )
            found = store.take(keys)
            vectors = np.empty((len(rows), found.shape[1]), dtype=np.float32) if vectors is None else vectors
            vectors[start : start + len(block)] = found
            start += len(block)
            bar.update(len(block))
    assert vectors is not None
    return vectors


def embed_files(
    encoder: Encoder,
    paths: Sequence[Path],
    *,
    known: Mapping[str, tuple[str, np.ndarray]] | None = None,
    batch_size: int = 16,
    progress: bool = True,
    statistics: Any = None,
    video_options: Mapping[str, Any] | None = None,
) -> FileEmbeddings:
    """Embed videos and images as corpus rows; a file that fails is named, and costs only itself.

    Args:
        known: Stamp and vector by path; files with the same stamp are not read again.
        statistics: Records where one of our models spent its time; see `set_up_encoder`.
        video_options: Keyword arguments of the encoder for videos, such as num_frames.

    Returns:
        Vectors in the order of `paths`, and the files left out with reasons; (0, 0) without any vector.
    """
    done: dict[Path, tuple[str, np.ndarray]] = {}
    skipped: dict[Path, str] = {}
    stamps: dict[Path, str] = {}
    for path in paths:
        try:
            stamps[path] = file_stamp(path)
        except OSError as error:
            skipped[path] = failure_reason(error, path)
            continue
        if known and str(path) in known and known[str(path)][0] == stamps[path]:
            done[path] = known[str(path)]
    pending = [path for path in stamps if path not in done]
    ours = skips_broken_inputs(encoder)
    options = {"statistics": statistics, "show_progress_bar": progress} if ours else {}
    call = _EncodeCall(
        encoder, "document", None, batch_size, dict(video_options or {}), "files", options, one_by_one=True
    )
    # our models read paths ahead of the forward pass, and blocks would stop them; others get opened images
    size = max(len(pending), 1) if ours else batch_size * _BATCHES_HELD
    with tqdm(total=len(pending), desc="encode files", unit="file", disable=not progress or ours, delay=2) as bar:
        for start in range(0, len(pending), size):
            block, store = pending[start : start + size], EmbeddingCache()
            keys = [os.fsencode(path) for path in block]
            problems = call.fill(store, keys, [partial(_file_input, path, opened=not ours) for path in block], start)
            skipped |= {block[place]: failure_reason(problem, block[place]) for place, problem in problems.items()}
            kept = [place for place in range(len(block)) if place not in problems]
            vectors = store.take([keys[place] for place in kept]) if kept else ()
            done |= {block[place]: (stamps[block[place]], vector) for place, vector in zip(kept, vectors, strict=True)}
            bar.update(len(block))
    return _result(paths, done, skipped)


def embed_shard(encoder: Encoder, job: ShardJob, *, progress: bool = True, statistics: Any = None) -> FileEmbeddings:
    """Embed the files of one shard and write it."""
    paths = [Path(name) for name in job.files]
    result = embed_files(
        encoder, paths, batch_size=job.settings["batch_size"], progress=progress, statistics=statistics
    )
    result.model, result.fingerprint = job.model, job.fingerprint
    save_embeddings(result, job.target, job.identity)
    return result


def content_key(row: Mapping[str, Any], salt: bytes = b"") -> bytes:
    """A 20-byte digest of a row's content and of `salt`; a path counts by path, size and time of change."""
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


class _EncodeCall:
    """How rows reach the encoder in one call, and its vectors the store."""

    def __init__(
        self,
        encoder: Encoder,
        role: str,
        instruction: str | None,
        batch_size: int,
        video_options: dict[str, Any],
        label: str,
        options: Mapping[str, Any] | None = None,
        *,
        one_by_one: bool = False,
    ) -> None:
        self.role, self.instruction, self.label = role, instruction, label
        self.video_options, self.one_by_one = video_options, one_by_one
        self.encode = encoder.encode_query if role == "query" else encoder.encode_document
        self.options = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        self.options |= video_options | dict(options or {})
        self.options |= {} if instruction is None else {"prompt": instruction}
        self.skips = skips_broken_inputs(encoder)
        self.runs_apart = self.skips and encoder.device.type != "cpu"

    def fill(
        self, store: Store, keys: Sequence[bytes], makers: Sequence[Callable[[], Any]], start: int
    ) -> dict[int, Exception]:
        """Encode what the store lacks; `makers` make inputs on demand, and errors come back by place in the block."""
        missing: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in store:
                missing.setdefault(key, place)
        problems: dict[int, Exception] = {}
        inputs: dict[int, Any] = {}
        for place in missing.values():
            try:
                inputs[place] = makers[place]()
            except _UNREADABLE as error:
                problems[place] = error
        if inputs:
            try:
                vectors = self._vectors(inputs, problems)
            except Exception as error:
                error.add_note(f"while encoding {self.label} rows {start} to {start + len(keys) - 1}")
                raise
            self._keep(store, keys, vectors, problems)
        return {place: problems[missing[key]] for place, key in enumerate(keys) if missing.get(key) in problems}

    def salt(self, row: Mapping[str, Any]) -> bytes:
        """What a vector depends on besides its row; video options leave texts and images alone."""
        seen = self.video_options if row.get("video") is not None else {}
        return repr((self.role, self.instruction, *sorted(seen.items()))).encode()

    def _vectors(self, inputs: dict[int, Any], problems: dict[int, Exception]) -> dict[int, np.ndarray]:
        """Vectors by place; if the whole batch fails, inputs may be tried one by one."""
        failures: list[Any] = []
        skip = {"on_error": "skip", "skipped": failures} if self.skips else {}
        places = list(inputs)
        try:
            fresh = as_array(self.encode(list(inputs.values()), **self.options, **skip))
        except Exception as error:
            if not self.one_by_one or self.skips:
                raise
            if len(inputs) == 1:
                problems[places[0]] = error
                return {}
            vectors: dict[int, np.ndarray] = {}
            for place in places:
                vectors |= self._vectors({place: inputs[place]}, problems)
            return vectors
        problems |= {places[failure.index]: failure.error for failure in failures}
        kept = [place for place in places if place not in problems]
        if fresh.ndim != 2 or len(fresh) != len(kept):
            raise ValueError(
                f"encoder: must return ({len(kept)}, D) for {len(kept)} inputs; returned shape {fresh.shape}"
            )
        return dict(zip(kept, fresh.astype(np.float32, copy=False), strict=True))

    def _keep(
        self, store: Store, keys: Sequence[bytes], vectors: Mapping[int, np.ndarray], problems: dict[int, Exception]
    ) -> None:
        """Store the usable vectors and note a problem for the others."""
        usable: dict[bytes, np.ndarray] = {}
        for place, vector in vectors.items():
            if store.width not in (None, len(vector)):
                problems[place] = ValueError(
                    f"the encoder returned width {len(vector)}, and {store.width} for the rows before (use one model, or "
                    "another cache)"
                )
            elif not np.isfinite(vector).all():
                problems[place] = ValueError("the encoder returned nan or infinity")
            elif not vector.any():
                problems[place] = ValueError("the encoder returned zeros")
            else:
                usable[keys[place]] = vector
        if usable:
            store.add(list(usable), np.stack(list(usable.values())))


def _blocks(rows: Sequence[Mapping[str, Any]], size: int, most: float) -> Iterator[list[Mapping[str, Any]]]:
    """Cut rows into blocks of `size`, and where they hold files as bytes, of about `most` bytes."""
    block: list[Mapping[str, Any]] = []
    held = 0
    for index in range(len(rows)):
        block.append(rows[index])
        held += sum(map(_bytes_in, block[-1].values()))
        if len(block) == size or held >= most:
            yield block
            block, held = [], 0
    if block:
        yield block


def _bytes_in(medium: Any) -> int:
    """Bytes of a file that a row holds; 0 for a path."""
    content = medium.get("bytes") if isinstance(medium, Mapping) else medium
    return len(content) if isinstance(content, bytes) else 0


def _result(
    paths: Sequence[Path], done: Mapping[Path, tuple[str, np.ndarray]], skipped: Mapping[Path, str]
) -> FileEmbeddings:
    """Vectors in the order of `paths`, and a warning for each file without one."""
    reasons = {str(path): skipped[path] for path in paths if path in skipped}
    for name, reason in reasons.items():
        logger.warning("skipped %s: %s", printable(name), printable(reason))
    order = [path for path in paths if path in done]
    vectors = np.stack([done[path][1] for path in order]) if order else np.zeros((0, 0), dtype=np.float32)
    return FileEmbeddings([str(path) for path in order], vectors, [done[path][0] for path in order], reasons)


def _file_input(path: Path, *, opened: bool) -> Any:
    """A file as encoder input; our models open and identify files themselves, only once."""
    return encoder_input(file_row(path)) if opened else path


def failure_reason(error: Exception, path: Path) -> str:
    """First line of an error, without batch position and path."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^(inputs\[\d+\](\['\w+'\])?: )?((video|image): )?", "", lines[0])
    for name in (repr(str(path)), str(path)):
        line = line.removeprefix(f"{name}: ").removeprefix(f"{name} ")
    return line


def _content(medium: Any, *, is_text: bool) -> bytes:
    if isinstance(medium, bytes):
        return medium
    if isinstance(medium, str | Path):
        path = Path(medium)
        if is_text or not path.is_file():
            return str(medium).encode("utf-8", "surrogatepass")  # the encoder reports half a character
        stat = path.stat()
        return f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}".encode("utf-8", "surrogatepass")
    if isinstance(medium, io.BytesIO):
        return medium.getvalue()
    array = np.ascontiguousarray(medium)  # an image of PIL, frames, or an array
    if array.dtype.hasobject:
        raise ValueError(f"row: got {type(medium).__name__}; must be bytes, a path, an image or an array. Convert it.")
    return f"{array.shape}|{array.dtype.str}|".encode() + array.tobytes()
