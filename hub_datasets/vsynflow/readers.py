"""Readers of raw corpora: a folder, a table, WebDataset archives, a data set; each yields its videos in a fixed order.

Nothing is decoded, and no video is copied unless a table or data set holds its bytes.
"""

import codecs
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gve.hub_datasets.vsynflow.records import Record, Refused, digest, keep_media, make_record, utf8
from gve.hub_datasets.vsynflow.settings import READERS
from gve.hub_datasets.vsynflow.tables import Cells, RowError, marked_encoding, table_kind, table_rows, undecoded
from gve.hub_datasets.walking import walk_files
from gve.media_gve import QUOTED, media_kind, shown, suffix_kind

logger = logging.getLogger(__name__)

TEXT_SUFFIXES = (".txt", ".json")
LICENCES = ("licence", "license")


@dataclass(frozen=True)
class RawCorpus:
    """A raw corpus, and where its ids, captions and licences stand."""

    kind: str  # one of READERS
    path: str  # a folder, table or tar file, or a data set's name
    name: str  # the source that records name
    licence: str  # of records without their own
    id_column: str | None = None  # None takes the videos' names, or the numbers of rows
    video_column: str = "video"  # holds paths, or the videos themselves
    text_column: str = "text"  # also the key in the JSON beside a video
    split: str = "train"
    media: str | None = None  # folder of a table's paths; None is the table's own
    encoding: str | None = None  # None is UTF-8, or UTF-16 with a mark


class Entry(NamedTuple):
    """A video of a corpus: id, file or archive, weak captions, its own licence, offset and size in an archive."""

    name: str
    path: str
    texts: Sequence[str]
    licence: str | None = None
    place: tuple[int, int] | None = None


def read_corpus(source: RawCorpus, folder: Path) -> Iterator[Record | Refused]:
    """The raw records of a corpus, in a fixed order; videos without a file of their own are written below `folder`.

    Rows that cannot be used are refused one by one: a cell of the wrong type, no video, bytes that are no text.

    Raises:
        ValueError: If the corpus cannot be read, lacks a column, or holds no video.
    """
    entries = _entries(source, folder)
    return (entry if isinstance(entry, Refused) else _record(source, entry) for entry in entries)


def read_items(source: RawCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """The videos of a corpus for `make_fingerprints`, with all captions of each. See `read_corpus`.

    A row that cannot be used is a ValueError: no test video may be left out.
    """
    for entry in _entries(source, folder):
        if isinstance(entry, Refused):
            raise ValueError(entry.message)
        record = _record(source, entry)
        yield {"ids": [record["id"], entry.path], "video": record["video"], "texts": list(map(utf8, entry.texts))}


def typical(texts: Sequence[str]) -> str:
    """Of the first 50 captions, the one that shares most words with the others."""
    if len(texts) < 2:
        return texts[0] if texts else ""
    words = [set(text.lower().split()) for text in texts[:50]]
    shared = [sum(len(some & other) / max(len(some | other), 1) for other in words) for some in words]
    return texts[shared.index(max(shared))]


def _record(source: RawCorpus, entry: Entry) -> Record:
    # A record is a video: one record a caption would decode and pay for the same video many times, only for
    # `duplicates` to drop all but the first; and joined captions are refused as repetitive. The caption that agrees
    # best with the others is the least likely to be somebody's mistake.
    name = entry.name.replace("#", f"~{digest(entry.name)[:8]}~") if "#" in entry.name else entry.name
    text, licence = utf8(typical(entry.texts)), entry.licence or source.licence
    record = make_record(name, entry.path, text, source=source.name, licence=licence)
    if entry.place is None:
        return record
    return {**record, "video": {"path": entry.path, "offset": entry.place[0], "size": entry.place[1]}}


def _entries(source: RawCorpus, folder: Path) -> Iterator[Entry | Refused]:
    for name, value in asdict(source).items():
        if value is not None and utf8(value) != value:
            raise ValueError(f"{name}: got {ascii(value)[:QUOTED]}, which is not UTF-8; plans are, so rename it")
    if source.kind not in READERS:
        raise ValueError(f"kind must be one of {', '.join(READERS)}, got {shown(source.kind)}.")
    if source.kind != "dataset" and not Path(source.path).exists():
        raise ValueError(f"path: {source.path} does not exist. Check the path.")
    if source.kind == "manifest":
        table_kind(Path(source.path))
    try:
        codecs.lookup(source.encoding or "utf-8")
    except LookupError as error:
        raise ValueError(f"encoding must be a name such as cp1252, got {shown(source.encoding)}.") from error
    readers = {"folder": _folder, "manifest": _manifest, "webdataset": _webdataset, "dataset": _dataset}
    return _counted(source, partial(readers[source.kind], source, folder))


def _counted(
    source: RawCorpus, read: Callable[[Counter[str]], Iterator[Entry | Refused]]
) -> Iterator[Entry | Refused]:
    """The entries whose names UTF-8 can hold, as JSON and parquet must; logs what else was found."""
    passed: Counter[str] = Counter()
    found = several = refused = 0
    for entry in read(passed):
        if isinstance(entry, Refused):
            refused += 1
            yield entry
            continue
        if utf8(entry.name + entry.path) != entry.name + entry.path:
            logger.warning("passed over %s: its name is not UTF-8; rename it", ascii(entry.name)[:QUOTED])
            passed["no UTF-8"] += 1
            continue
        found, several = found + 1, several + (len(entry.texts) > 1)
        yield entry
    others = ", ".join(f"{utf8(name)} ({count})" for name, count in passed.most_common())[:QUOTED]
    if not found and not refused:
        raise ValueError(
            f"path: {source.path} gives no video to read as a {source.kind} (passed over: {others or 'nothing'}). Check "
            "path and kind."
        )
    if others:
        logger.warning("%s: passed over what is no video: %s", source.path, others)
    if several:
        logger.warning(
            "%s: %d of %d videos have several captions; each is planned with one", source.path, several, found
        )


def _folder(source: RawCorpus, folder: Path, passed: Counter[str]) -> Iterator[Entry | Refused]:
    """Videos at any depth, each with the text of the .txt or .json file of the same name."""
    root = Path(source.path).resolve()
    for path in walk_files([root]):
        if path.suffix.lower() in TEXT_SUFFIXES:
            continue
        if media_kind(path) != "video":
            passed[path.suffix.lower() or "no suffix"] += 1
            continue
        beside = (path.with_suffix(case) for suffix in TEXT_SUFFIXES for case in (suffix, suffix.upper()))
        texts = (_sidecar(file.suffix.lower(), file.read_bytes(), source) for file in beside if file.is_file())
        name = path.name if path == root else path.relative_to(root).as_posix()
        yield Entry(name, str(path), next(texts, ()))


def _manifest(source: RawCorpus, folder: Path, passed: Counter[str]) -> Iterator[Entry | Refused]:
    path = Path(source.path).resolve()
    rows = table_rows(path, _columns(source), source.encoding)
    return _rows(source, folder, rows, path.parent if source.media is None else Path(source.media).resolve())


def _dataset(source: RawCorpus, folder: Path, passed: Counter[str]) -> Iterator[Entry | Refused]:
    from datasets import load_dataset

    rows = load_dataset(source.path, split=source.split).to_iterable_dataset()
    media = None if source.media is None else Path(source.media).resolve()
    return _rows(source, folder, undecoded(rows, _columns(source)), media)


def _columns(source: RawCorpus) -> list[str]:
    named = (source.id_column, source.video_column, source.text_column, *LICENCES)
    return [name for name in named if name is not None]


def _rows(
    source: RawCorpus, folder: Path, rows: Iterable[Mapping[str, Any] | Refused], root: Path | None
) -> Iterator[Entry | Refused]:
    """Entries of the rows of a table or data set; videos in them are written out once, named by their content."""
    for number, row in enumerate(rows):
        try:
            yield row if isinstance(row, Refused) else _entry(source, folder, row, number, root)
        except RowError as error:
            yield Refused(error.reason, str(error))


def _entry(source: RawCorpus, folder: Path, row: Mapping[str, Any], number: int, root: Path | None) -> Entry:
    cells = Cells(row, f"row {number} of {source.path}")
    video, texts = cells.video(source.video_column), cells.texts(source.text_column)
    name = f"{number:08d}" if source.id_column is None else cells.name(source.id_column)
    if isinstance(video, bytes):
        video = str((folder / keep_media(folder, video, ".video")).resolve())
    else:
        name = video if source.id_column is None and source.kind == "manifest" else name
        video = str(root / video) if root is not None and "://" not in video else video
    licences = (cells.name(column) for column in LICENCES if row.get(column))
    return Entry(name, video, texts, next(licences, None))


def _webdataset(source: RawCorpus, folder: Path, passed: Counter[str]) -> Iterator[Entry | Refused]:
    """Members of tar files that share a name up to the first dot: a video and a .txt or .json; read by offset."""
    root = Path(source.path).resolve()
    tars = [root] if root.is_file() else (path for path in walk_files([root]) if path.suffix.lower() == ".tar")
    for path in tars:
        try:
            videos, texts = _members(source, path, passed)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(
                f"path: {path} cannot be read as a plain tar file ({str(error)[:QUOTED]}). Unpack or repair it."
            ) from error
        stem = path.name if root.is_file() else path.relative_to(root).as_posix()
        for key, place in videos.items():
            yield Entry(f"{stem}/{key}", str(path), texts.get(key, ()), None, place)


def _members(
    source: RawCorpus, path: Path, passed: Counter[str]
) -> tuple[dict[str, tuple[int, int]], dict[str, Sequence[str]]]:
    videos: dict[str, tuple[int, int]] = {}
    texts: dict[str, Sequence[str]] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            name = PurePosixPath(member.name)
            head, _, _ = name.name.partition(".")
            key, suffix = member.name[: len(member.name) - len(name.name)] + head, name.suffix.lower()
            file = archive.extractfile(member)
            assert file is not None
            if suffix in TEXT_SUFFIXES:
                texts[key] = _sidecar(suffix, file.read(), source)
            elif _member_kind(member.name, file) == "video":
                videos[key] = (member.offset_data, member.size)
            else:
                passed[suffix or "no suffix"] += 1
    return videos, texts


def _member_kind(name: str, file: Any) -> str | None:
    """By the name alone, except for images, which may be animated: archives hold much that is neither."""
    kind = suffix_kind(name)
    return (media_kind(file) or kind) if kind == "image" else kind


def _sidecar(suffix: str, content: bytes, source: RawCorpus) -> Sequence[str]:
    """The weak captions beside a video; a broken file has none, which quality control then reports."""
    if suffix == ".txt":
        encoding = source.encoding or marked_encoding(content) or "utf-8"
        text = content.decode(encoding, errors="replace").strip()
        return [text] if text else []
    try:
        value = json.loads(content.decode(source.encoding) if source.encoding else content)
    except (ValueError, RecursionError):
        return []
    found = value.get(source.text_column) if isinstance(value, dict) else None
    found = found if isinstance(found, list) else [found]
    return [text for text in found if isinstance(text, str) and text]
