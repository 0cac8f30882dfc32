"""The media of a UVRD, and its parquet files: each medium once beside the rows, or bytes in the rows that show it.

Media columns are left uncompressed, and within a block of rows parquet stores equal values of a column once. Rows that
name their media share it across columns, blocks and tasks too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from gve.hub_datasets.pair_media import media_name, stored_features
from gve.hub_datasets.parquet import write_blocks
from gve.hub_datasets.vsynflow.extension.pairs import PairRow, PairSide
from gve.hub_datasets.vsynflow.records import Record, read_place
from gve.media_gve import MP4

SHARD_ROWS, SHARD_BYTES = 100_000, 512 << 20
# rows and bytes of media; writer and reader hold a block in memory
BLOCK_ROWS, BLOCK_BYTES = 1000, 64 << 20
_DICTIONARY = 2 * BLOCK_BYTES

_Row = TypeVar("_Row")
Place = Mapping[str, Any]
"""Where a file lies, as a record's `video` says."""


class MediaStore:
    """Media of records as a UVRD holds them: named by the rows and stored once, or embedded in the rows."""

    def __init__(self, work: Path, *, embed: bool) -> None:
        self.work, self.embed = work, embed
        self._names: dict[tuple[str, int | None], str] = {}  # by path and offset
        self._sources: dict[str, tuple[str, Place]] = {}  # by name: image or video, and where it is

    def side(self, record: Record, side: PairSide) -> dict[str, Any]:
        """One side of a pair in the schema's form."""
        shown = None if side.shows is None else self._media(record, side.shows)
        image = shown if side.shows == "frame" else None
        return {"text": side.text, "image": image, "video": None if image else shown}

    def size(self, record: Record, side: PairSide) -> int:
        """Bytes that a side adds to a row."""
        return 0 if side.shows is None or not self.embed else _size(self._place(record, side.shows))

    def write(self, folder: Path) -> tuple[int, int]:
        """Write what the rows named so far, in the order of the names; returns files and their bytes."""
        sizes = {name: _size(place) for name, (_, place) in sorted(self._sources.items())}
        shards = cut(list(sizes), sizes.__getitem__, most_rows=SHARD_ROWS, most_bytes=SHARD_BYTES)
        for number, shard in enumerate(shards):
            blocks = cut(shard, sizes.__getitem__, most_rows=BLOCK_ROWS, most_bytes=BLOCK_BYTES)
            rows = ([self._stored(name) for name in block] for block in blocks)
            write_shard(folder / f"train-{number:05d}-of-{len(shards):05d}.parquet", rows, stored_features())
        return len(sizes), sum(sizes.values())

    def _stored(self, name: str) -> dict[str, Any]:
        kind, place = self._sources[name]
        return {"name": name, "image": None, "video": None, kind: {"bytes": read_place(place), "path": None}}

    def _place(self, record: Record, shows: str) -> Place:
        if shows == "video":
            return record["video"]
        return {"path": str(self.work / record[shows]["path"]), "offset": None, "size": None}

    def _media(self, record: Record, shows: str) -> dict[str, Any]:
        place = self._place(record, shows)
        if self.embed:
            return {"bytes": read_place(place), "path": None}
        key = (place["path"], place["offset"])
        if key not in self._names:
            suffix = Path(place["path"]).suffix if place["offset"] is None else MP4
            name = self._names[key] = media_name(read_place(place), suffix)
            self._sources[name] = ("image" if shows == "frame" else "video", place)
        return {"bytes": None, "path": self._names[key]}


def _size(place: Place) -> int:
    return Path(place["path"]).stat().st_size if place["offset"] is None else int(place["size"])


def row_bytes(one: PairRow, by_id: Mapping[str, Record], store: MediaStore) -> int:
    """Bytes of a row's media."""
    own = store.size(one.record, one.query) + store.size(one.record, one.target)
    own += sum(store.size(one.record, side) for side in one.wrong)
    return own + sum(store.size(by_id[name], PairSide(shows="video")) for name in one.negatives if name in by_id)


def cut(rows: Sequence[_Row], size: Callable[[_Row], int], *, most_rows: int, most_bytes: int) -> list[list[_Row]]:
    """Cut rows into parts of at most so many rows and bytes; a larger row makes a part of its own."""
    parts: list[list[_Row]] = []
    held = 0
    for row in rows:
        bytes_ = size(row)
        if not parts or len(parts[-1]) == most_rows or held + bytes_ > most_bytes:
            parts.append([])
            held = 0
        parts[-1].append(row)
        held += bytes_
    return parts


def write_shard(path: Path, blocks: Iterator[list[dict[str, Any]]], features: Features) -> None:
    """Write a parquet file block by block; the same rows give the same bytes."""
    columns = _leaves(features.arrow_schema)
    options = {
        "dictionary_pagesize_limit": _DICTIONARY,
        "compression": {name: "none" if name.endswith(".bytes") else "snappy" for name in columns},
        # the smallest and largest value of a column of files would be two more files
        "write_statistics": [name for name in columns if not name.endswith(".bytes")],
    }
    write_blocks(path, blocks, features.arrow_schema, **options)


def _leaves(schema: pa.Schema) -> list[str]:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    found = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [found.column(number).path for number in range(len(found))]
