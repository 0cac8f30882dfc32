"""The media of a UVRD, and its parquet files: bytes in the rows, or files beside them.

`datasets` resolves no relative path in parquet, neither in a folder nor on the Hub, so only rows that hold their media
load from anywhere. That stays cheap: within a block of rows parquet stores equal values of a column once, and media
columns are left uncompressed, so that equal bytes of two files are equal on disk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.parquet import write_blocks
from gve.hub_datasets.vsynflow.extension.pairs import PairRow, PairSide
from gve.hub_datasets.vsynflow.records import Record, keep_media, read_place
from gve.media_gve import MP4

SHARD_ROWS, SHARD_BYTES = 1000, 512 << 20
# rows and bytes of media; writer and reader hold a block in memory
BLOCK_ROWS, BLOCK_BYTES = 128, 64 << 20
_DICTIONARY = 2 * BLOCK_BYTES


class MediaStore:
    """Media of records as a UVRD holds them: bytes in the rows, or files of its folder named by their content."""

    def __init__(self, work: Path, folder: Path, *, embed: bool) -> None:
        self.work, self.folder, self.embed = work, folder, embed
        self._videos: dict[str, Path] = {}

    def side(self, record: Record, side: PairSide) -> dict[str, Any]:
        """One side of a pair in the schema's form."""
        shown = None if side.shows is None else self._media(record, side.shows)
        image = shown if side.shows == "frame" else None
        return {"text": side.text, "image": image, "video": None if image else shown}

    def size(self, record: Record, side: PairSide) -> int:
        """Bytes that a side adds to a row."""
        if side.shows is None or not self.embed:
            return 0
        if side.shows != "video":
            return (self.work / record[side.shows]["path"]).stat().st_size
        place = record["video"]
        return Path(place["path"]).stat().st_size if place["offset"] is None else int(place["size"])

    def _media(self, record: Record, shows: str) -> dict[str, Any]:
        if self.embed:
            content = (
                read_place(record["video"]) if shows == "video" else (self.work / record[shows]["path"]).read_bytes()
            )
            return {"bytes": content, "path": None}
        path = self._video(record) if shows == "video" else self._placed(self.work / record[shows]["path"])
        return {"bytes": None, "path": str(path)}

    def _video(self, record: Record) -> Path:
        """A record's video in the folder, copied at its first use."""
        name = repr(sorted(record["video"].items()))
        if name not in self._videos:
            suffix = Path(record["video"]["path"]).suffix if record["video"]["offset"] is None else ""
            self._videos[name] = self.folder / keep_media(self.folder, read_place(record["video"]), suffix or MP4)
        return self._videos[name]

    def _placed(self, source: Path) -> Path:
        path = self.folder / "media" / source.parent.name / source.name
        if not path.is_file():
            write_atomic(path, source.read_bytes())
        return path


def row_bytes(one: PairRow, by_id: Mapping[str, Record], store: MediaStore) -> int:
    """Bytes of a row's media."""
    own = store.size(one.record, one.query) + store.size(one.record, one.target)
    return own + sum(store.size(by_id[name], PairSide(shows="video")) for name in one.negatives if name in by_id)


def cut(
    rows: Sequence[PairRow], size: Callable[[PairRow], int], *, most_rows: int, most_bytes: int
) -> list[list[PairRow]]:
    """Cut rows into parts of at most so many rows and bytes; a larger row makes a part of its own."""
    parts: list[list[PairRow]] = []
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
