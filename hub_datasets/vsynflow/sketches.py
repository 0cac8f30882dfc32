"""What a corpus stage knows of every record: a few bytes each, written a file a shard, read a column at a time.

Shapes: N records of a corpus, n of a shard, V values of a ragged column. Columns are numpy arrays with a first axis of
records. A ragged column has the values of all records in a row, and their numbers under "<name>_sizes".

Counts, ranks and joins of a million rows are sorts of mapped arrays, a second or two; what takes time is the work on each
record, so no query engine is needed for them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gve.hub_datasets.files import write_atomic

IDS = "ids"  # ragged: the letters of every record's id, in UTF-8


class Sketches:
    """The columns of all records, in the corpus's order.

    A column is read when it is asked for, into a file without a name, which is mapped: memory holds what is in use.

    Args:
        parts: The arrays of a column, shard by shard.
        folder: Of the unnamed files; None for the system's own.
    """

    def __init__(self, parts: Callable[[str], Iterable[np.ndarray]], folder: Path | None = None) -> None:
        self._parts, self._folder = parts, folder

    def column(self, name: str) -> np.ndarray:
        """All values of a column, (N, ...) or (V,)."""
        with TemporaryFile(dir=self._folder) as file:
            for part in self._parts(name):
                file.write(np.ascontiguousarray(part).data)
            one = part[:0]
            if not file.tell():
                return one
            file.flush()
            shape = (file.tell() // (one.itemsize * math.prod(one.shape[1:])), *one.shape[1:])
            return np.memmap(file, one.dtype, "r+", shape=shape)

    def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Values, (V,), and where each record's begin, (N + 1,)."""
        return self.column(name), np.concatenate([[0], np.cumsum(self.column(f"{name}_sizes"), dtype=np.int64)])

    @cached_property
    def _ids(self) -> tuple[np.ndarray, np.ndarray]:
        letters, starts = self.ragged(IDS)
        return np.asarray(letters), starts  # a map's own slices take ten times as long

    def ids(self, places: Iterable[int]) -> list[str | None]:
        """The ids of records; None for places below 0."""
        letters, starts = self._ids
        return [
            None if place < 0 else letters[starts[place] : starts[place + 1]].tobytes().decode() for place in places
        ]


def ragged(name: str, values: Sequence[np.ndarray], kind: type) -> dict[str, np.ndarray]:
    """A ragged column of a shard, of one array a record."""
    sizes = np.array([len(one) for one in values], np.int32)
    return {name: np.concatenate([np.empty(0, kind), *values]), f"{name}_sizes": sizes}


def id_columns(ids: Iterable[str]) -> dict[str, np.ndarray]:
    """The columns of ids, which every sketch has."""
    return ragged(IDS, [np.frombuffer(name.encode(), np.uint8) for name in ids], np.uint8)


def write_sketch(path: Path, columns: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    """Write a shard's sketch in one step."""
    write_atomic(path, save(dict(columns), dict(facts)))


def read_facts(path: Path) -> dict[str, str]:
    """The facts of a sketch; none if it is missing or broken."""
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (FileNotFoundError, SafetensorError):
        return {}


def stored(paths: Sequence[Path], folder: Path) -> Sketches:
    """The sketches in some files."""

    def parts(name: str) -> Iterable[np.ndarray]:
        for path in paths:
            with safe_open(path, "np") as file:
                yield file.get_tensor(name)

    return Sketches(parts, folder)


def columns_digest(columns: Mapping[str, np.ndarray]) -> str:
    """Name what a corpus stage sees of a shard, the same on every machine."""
    found = blake2b(digest_size=16)
    for name in sorted(columns):
        found.update(f"{name} {columns[name].shape}\n".encode())
        found.update(np.ascontiguousarray(columns[name]).data)
    return found.hexdigest()


def key_of(text: str) -> int:
    """Name a text by 64 bits; two of 57 million texts share a name with a chance of one in ten thousand."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def keys_of_texts(texts: Iterable[str]) -> np.ndarray:
    """The names of texts, (n,) uint64."""
    return np.array([key_of(text) for text in texts], np.uint64)


class SeenNames:
    """Names that occurred so far, 8 bytes each, to find those that occur twice."""

    def __init__(self) -> None:
        self._sorted, self._recent = np.empty(0, np.uint64), set[int]()

    def add(self, name: str) -> bool:
        """Note a name; whether it is new."""
        key: Any = key_of(name)
        place = int(np.searchsorted(self._sorted, np.uint64(key)))
        if key in self._recent or (place < len(self._sorted) and int(self._sorted[place]) == key):
            return False
        self._recent.add(key)
        if len(self._recent) > 1 << 16:
            self._sorted = np.sort(np.concatenate([self._sorted, np.fromiter(self._recent, np.uint64)]))
            self._recent = set()
        return True
