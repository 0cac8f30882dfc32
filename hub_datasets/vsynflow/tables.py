"""Rows of a table that lists videos, by the readers of `datasets`, and what its cells may hold."""

import bz2
import codecs
import glob
import gzip
import io
import json
import lzma
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gve.hub_datasets.vsynflow.records import Refused, utf8
from gve.media_gve import QUOTED, local_source, located, shown

# suffix: the reader of `datasets`
KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
SEPARATORS = (",", ";", "|")  # spreadsheets write ; where numbers have a decimal comma
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
BATCH_ROWS = 64  # rows of parquet that are held at a time, since each may hold a video
LINES = (".jsonl", ".ndjson")
MARK = "\ufdd0"  # no character; stands where a byte is no text of the encoding
MOST_NAME = 4096  # letters of an id or a path
BROKEN = (ValueError, OSError, EOFError, lzma.LZMAError)  # what the readers raise on broken files

codecs.register_error("mark", lambda error: (MARK, error.end))  # type: ignore[attr-defined]


class RowError(ValueError):
    """A row cannot be used, for a short reason; the others can."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def table_kind(path: Path) -> str:
    """The reader of a table, by its suffix in any case; compressed tables have a second suffix."""
    kind = KINDS.get(_suffix(path))
    if kind is None or not path.is_file():
        raise ValueError(
            f"path must be a table ({', '.join(KINDS)}, perhaps with {', '.join(OPENERS)} added), got {shown(str(path))}. "
            "Convert it, or pass another kind of corpus."
        )
    return kind


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() in OPENERS else path.name).suffix.lower()


def marked_encoding(head: bytes) -> str | None:
    """The encoding named by the first bytes of a text, if any."""
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), None)


def table_rows(path: Path, columns: Iterable[str], encoding: str | None = None) -> Iterator[dict[str, Any] | Refused]:
    """The rows of a table as stored: media are not decoded, a cell of a csv file is a string.

    Bytes that are no text become MARK in csv files; lines of JSON with such bytes, or of no JSON, are refused one by one.

    Args:
        encoding: None takes UTF-8, or UTF-16 with a mark. Nothing is guessed, since a wrong guess would
            silently change the captions.

    Raises:
        ValueError: If the table is of an unknown kind, cannot be read, or is not text of that encoding.
    """
    kind = table_kind(path)
    try:
        with _opened(path) as file:
            encoding = encoding or marked_encoding(file.read(4)) or "utf-8"
        yield from _read(path, kind, set(columns), encoding)
    except UnicodeError as error:
        raise ValueError(
            f"path: {path} is not {encoding} text. Name its encoding, such as --encoding cp1252."
        ) from error
    except BROKEN as error:
        words = utf8(" ".join(str(error).split()))[:QUOTED]
        raise ValueError(f"path: {path} cannot be read as {kind} ({words}). Repair it or write it anew.") from error


def _read(path: Path, kind: str, columns: set[str], encoding: str) -> Iterator[dict[str, Any] | Refused]:
    if _suffix(path) in LINES:
        yield from _lines(path, encoding)
        return
    from datasets import load_dataset  # a folder of videos needs none of it

    options: dict[str, Any] = {}
    if kind == "csv":
        options = _csv_options(path, encoding)
    elif kind == "json":
        options = {"encoding": encoding}
    elif kind == "parquet":
        options = {"batch_size": BATCH_ROWS}
    # what is passed is a pattern of names
    data = load_dataset(kind, data_files=glob.escape(str(path)), split="train", streaming=True, **options)
    yield from undecoded(data, columns)


def undecoded(data: Any, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of an iterable data set, of these columns, with media as {"bytes", "path"}."""
    if data.features is None:  # a JSON array, which holds no media
        return iter(data)
    return iter(data.decode(False).select_columns([name for name in data.features if name in set(columns)]))


def _csv_options(path: Path, encoding: str) -> dict[str, Any]:
    """Make `datasets` read every column of a csv file as text, so that "007" and "NA" stay."""
    import pandas as pd
    from datasets import Features, Value

    with _opened(path) as file:
        header = file.readline().decode(encoding, errors="replace")
    usual = "\t" if ".tsv" in (suffix.lower() for suffix in path.suffixes) else ","
    separator = max((usual, *SEPARATORS), key=header.count)
    first = pd.read_csv(
        path, sep=separator, encoding=encoding, encoding_errors="mark", nrows=1, dtype=str, na_filter=False
    )
    if not isinstance(first.index, pd.RangeIndex):  # pandas takes the cells in excess for names of rows
        raise ValueError(
            f"row 0 has more cells than the {len(first.columns)} of the header. Quote cells that hold {separator!r}."
        )
    features = Features({str(name): Value("string") for name in first.columns})
    return {
        "sep": separator,
        "encoding": encoding,
        "encoding_errors": "mark",
        "features": features,
        "na_filter": False,
    }


def _opened(path: Path) -> Any:
    return OPENERS.get(path.suffix.lower(), open)(path, "rb")


def _lines(path: Path, encoding: str) -> Iterator[dict[str, Any] | Refused]:
    """Objects of a file of JSON lines; all have the names that occur in the first thousand."""
    with _opened(path) as file:
        lines = enumerate(io.TextIOWrapper(file, encoding, errors="mark"))
        rows = (_object(line, f"row {number} of {path}") for number, line in lines if line.strip())
        head = list(islice(rows, 1000))
        names = dict.fromkeys(name for row in head if isinstance(row, dict) for name in row)
        for row in chain(head, rows):
            yield {**names, **row} if isinstance(row, dict) else row


def _object(line: str, where: str) -> dict[str, Any] | Refused:
    if MARK in line:
        return Refused("not text", _not_text(where))
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Refused("not JSON", f"{where} cannot be read as json ({str(error)[:80]}). Mend the row.")
    return row if isinstance(row, dict) else Refused("not an object", f"{where} must be a JSON object. Mend the row.")


def _not_text(where: str) -> str:
    return f"{where} is not text of its encoding, UTF-8 unless named. Name it, such as --encoding cp1252."


class Cells:
    """The cells of a row by their use. `where`, such as "row 7 of titles.csv", is for messages."""

    def __init__(self, row: Mapping[str, Any], where: str) -> None:
        self.row, self.where = row, where

    def name(self, column: str) -> str:
        """An id: a text or an integer, which is a float in a column with gaps."""
        value = self._cell(column)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise self._wrong(column, value, "a text or a whole number")
        return self._short(column, str(value))

    def texts(self, column: str) -> list[str]:
        """Captions: one, a list of them, or none."""
        value = self._cell(column)
        if value is None or isinstance(value, str):
            return [value] if value else []
        if not isinstance(value, Sequence) or not all(text is None or isinstance(text, str) for text in value):
            raise self._wrong(column, value, "a text or a list of texts")
        return [text for text in value if text]

    def video(self, column: str) -> str | bytes:
        """A path or address, or the bytes of a video: plain, as {"bytes", "path"} or as a `data:` address."""
        value = self._cell(column)
        try:
            with located(f"{column}: {self.where}"):
                found = local_source(value) if isinstance(value, (str, bytes, dict)) and value else None
        except ValueError as error:
            raise RowError(f"{column}: unreadable", str(error)) from error
        if not isinstance(found, (str, bytes)):
            raise self._wrong(column, value, "a path, the bytes of a video, or {'bytes', 'path'}")
        return found if isinstance(found, bytes) else self._short(column, found)

    def _short(self, column: str, name: str) -> str:
        if len(name) > MOST_NAME:
            raise RowError(
                f"{column}: too long",
                f"{column} must have at most {MOST_NAME} letters, got {len(name)} in {self.where}.",
            )
        if utf8(name) != name:
            raise RowError(f"{column}: not UTF-8", f"{column}: {shown(name)} in {self.where} is not UTF-8. Rename it.")
        return name

    def _cell(self, column: str) -> Any:
        if column not in self.row:
            raise ValueError(
                f"column {column!r} is not in {self.where}, which has {', '.join(self.row)[:QUOTED] or 'none'}."
            )
        value = self.row[column]
        if isinstance(value, str) and MARK in value:
            raise RowError("not text", _not_text(self.where))
        return None if isinstance(value, float) and math.isnan(value) else value

    def _wrong(self, column: str, value: Any, accepted: str) -> RowError:
        got = "nothing" if value is None or value == "" else f"{type(value).__name__} {shown(value, 60)}"
        return RowError(
            f"{column}: {got.partition(' ')[0]}",
            f"{column} must be {accepted}, got {got} in {self.where}. Mend the row.",
        )
