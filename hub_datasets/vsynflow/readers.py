"""Readers of raw corpora: a folder, a table, WebDataset archives, a dataset; each yields raw records in a fixed order.

Nothing is decoded and no video is copied, but for those that a dataset holds inside its tables.
"""

import csv
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gve.hub_datasets.vsynflow.files import commit_bytes
from gve.hub_datasets.vsynflow.records import Record, digest, make_record

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".flv",
        ".mpg",
        ".mpeg",
        ".ts",
        ".wmv",
        ".asf",
        ".3gp",
        ".3g2",
        ".ogv",
        ".gif",
        ".vob",
        ".f4v",
        ".swf",
        ".rm",
        ".m1v",
        ".mxf",
    ]
)
TEXT_SUFFIXES = (".txt", ".json")
READERS = ("folder", "manifest", "webdataset", "dataset")


@dataclass(frozen=True)
class Source:
    """Where a raw corpus lies.

    Attributes:
        kind: One of READERS.
        path: A folder of videos; a csv or parquet table; a tar file or a folder of them; a dataset's name or folder.
        name: What the records give as their source.
        licence: What they give as their licence, where they have no column of that name.
        id_column: Column of ids; None makes ids of the videos' names.
        video_column: Column of paths, which may be relative to the table's folder, or of a dataset's videos.
        text_column: Column of weak captions, or the key in the JSON beside a video.
        split: Split of a dataset.
        media: Folder that a table's paths are relative to; None is the table's own.
    """

    kind: str
    path: str
    name: str
    licence: str
    id_column: str | None = None
    video_column: str = "video"
    text_column: str = "text"
    split: str = "train"
    media: str | None = None

    def describe(self) -> dict[str, Any]:
        """The source as JSON, for the plan."""
        return asdict(self)


def read_source(source: Source, folder: Path) -> Iterator[Record]:
    """The raw records of a corpus.

    Args:
        source: The corpus.
        folder: The run's folder; videos without a file of their own are written beneath it.

    Returns:
        Records, in an order that depends on the corpus alone.

    Raises:
        ValueError: For an unknown kind, a path that is not there, or a missing column.
    """
    readers: dict[str, Callable[[], Iterator[Record]]] = {
        "folder": partial(_folder, source),
        "manifest": partial(_manifest, source),
        "webdataset": partial(_webdataset, source),
        "dataset": partial(_dataset, source, folder),
    }
    if source.kind not in readers:
        raise ValueError(f"kind: got {source.kind!r}; {', '.join(READERS)} are accepted")
    if source.kind != "dataset" and not Path(source.path).exists():
        raise ValueError(f"path: {source.path} is not there; an existing {source.kind} is accepted; check the path")
    return readers[source.kind]()


def _folder(source: Source) -> Iterator[Record]:
    """Videos at any depth, each with the text of the .txt or .json file of the same name, or none."""
    root = Path(source.path).resolve()
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES):
        name = path.relative_to(root).as_posix()
        beside = [path.with_suffix(suffix) for suffix in TEXT_SUFFIXES]
        texts = (_sidecar(file.suffix, file.read_bytes(), source) for file in beside if file.is_file())
        yield _record(source, name, str(path), next(texts, ""), {})


def _manifest(source: Source) -> Iterator[Record]:
    """Rows of a csv or parquet table."""
    path = Path(source.path).resolve()
    root = path.parent if source.media is None else Path(source.media).resolve()
    rows = _csv_rows(path) if path.suffix == ".csv" else _parquet_rows(path)
    for number, row in enumerate(rows):
        named = _cell(row, source.video_column, path, number)
        video = root / named if "://" not in named else named
        name = named if source.id_column is None else _cell(row, source.id_column, path, number)
        yield _record(source, name, str(video), _cell(row, source.text_column, path, number), row)


def _webdataset(source: Source) -> Iterator[Record]:
    """Members of tar files that share a name up to the first dot: a video and a .txt or .json; read by offset."""
    root = Path(source.path).resolve()
    tars = [root] if root.is_file() else sorted(root.rglob("*.tar"))
    for path in tars:
        videos: dict[str, tuple[int, int]] = {}
        texts: dict[str, str] = {}
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                head, dot, tail = member.name.rpartition("/")[2].partition(".")
                key, suffix = f"{member.name[: -len(head + dot + tail)]}{head}", f".{tail.rpartition('.')[2].lower()}"
                if member.isfile() and suffix in VIDEO_SUFFIXES:
                    videos[key] = (member.offset_data, member.size)
                elif member.isfile() and suffix in TEXT_SUFFIXES:
                    file = archive.extractfile(member)
                    assert file is not None
                    texts[key] = _sidecar(suffix, file.read(), source)
        stem = path.name if root.is_file() else path.relative_to(root).as_posix()
        for key, (offset, size) in videos.items():
            record = _record(source, f"{stem}/{key}", str(path), texts.get(key, ""), {})
            yield {**record, "video": {"path": str(path), "offset": offset, "size": size}}


def _dataset(source: Source, folder: Path) -> Iterator[Record]:
    """Rows of a `datasets` dataset; videos inside its tables are written out once, named by their content."""
    from datasets import Video, load_dataset

    data = load_dataset(source.path, split=source.split)
    for needed in (source.video_column, source.text_column):
        if needed not in data.column_names:
            raise ValueError(f"column: {source.path} has no {needed!r}; {', '.join(data.column_names)} are accepted")
    if isinstance(data.features[source.video_column], Video):
        data = data.cast_column(source.video_column, Video(decode=False))
    for number, row in enumerate(data):
        place = _video_file(row[source.video_column], folder)
        name = f"{number:08d}" if source.id_column is None else _cell(row, source.id_column, source.path, number)
        yield _record(source, name, place, _cell(row, source.text_column, source.path, number), row)


def _video_file(video: Any, folder: Path) -> str:
    if isinstance(video, str):
        return video
    if video["bytes"] is None:
        return video["path"]
    name = hashlib.blake2b(video["bytes"], digest_size=16).hexdigest()
    path = (folder / "media" / name[:2] / f"{name}.video").resolve()
    if not path.exists():
        commit_bytes(path, video["bytes"])
    return str(path)


def _record(source: Source, name: str, path: str, text: str, row: Mapping[str, Any]) -> Record:
    licence = row.get("licence") or row.get("license") or source.licence
    safe = name.replace("#", f"~{digest(name)[:8]}~") if "#" in name else name
    return make_record(safe, path, text, source=source.name, licence=str(licence))


def _sidecar(suffix: str, content: bytes, source: Source) -> str:
    """The weak caption beside a video; a broken one is none, which quality control then says."""
    text = content.decode("utf-8", errors="replace")
    if suffix == ".txt":
        return text.strip()
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    found = value.get(source.text_column, "") if isinstance(value, dict) else ""
    return found if isinstance(found, str) else ""


def _cell(row: Mapping[str, Any], column: str, path: Any, number: int) -> str:
    if column not in row:
        raise ValueError(f"column: {path} has no {column!r} in row {number}; {', '.join(row)} are accepted")
    return "" if row[column] is None else str(row[column])


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096):
            yield from batch.to_pylist()
