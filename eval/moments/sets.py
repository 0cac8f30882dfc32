"""Data sets of moment retrieval, read from a user's own copy: QVHighlights, MomentSeeker, and the rendered world's.

A folder holds annotations (JSON lines, or a JSON list) and, in `videos` or beside them, the videos.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gve.eval.inputs import MODALITIES, default_instruction
from gve.media_gve import VIDEO_SUFFIXES, shown

_FIELDS = {
    "QVHighlights": ("query", "image", "video", "vid", "relevant_windows"),
    "MomentSeeker": ("qry_text", "qry_img_path", "qry_video_path", "src_video_path", "answering_time_interval"),
}
"""Of each format: text, image and video of a query, the video to search, its true moments. The rendered world writes
QVHighlights' fields, and an image or a video besides."""


@dataclass(frozen=True)
class MomentQuery:
    """A query, the video to search, and the moments that answer it."""

    row: dict[str, str]  # of text, image and video; media are paths
    video: Path
    truth: tuple[tuple[float, float], ...]  # seconds

    @property
    def kind(self) -> tuple[str, ...]:
        """Its modalities, in the order of UVRB's tables."""
        return tuple(name for name in ("text", "image", "video") if name in self.row)


@dataclass(frozen=True)
class MomentSet:
    """Queries of one kind, from one file."""

    name: str
    kind: tuple[str, ...]
    queries: tuple[MomentQuery, ...]

    @property
    def instruction(self) -> str | None:
        """What the queries are given by default."""
        return default_instruction(self.kind) or default_instruction(["text"])


def load_moments(source: Path) -> list[MomentSet]:
    """Read an annotation file, or each one in a folder; a set's name is its file's, without the suffix.

    Raises:
        ValueError: If there is none, a row is broken, or media are missing.
    """
    files = [source] if source.is_file() else sorted({*source.glob("*.jsonl"), *source.glob("*.json")})
    if not files:
        raise ValueError(f"--moments: {shown(str(source))} has no JSON or JSONL file. Name a folder of annotations.")
    sets = []
    for file in files:
        queries = [_query(row, number, file) for number, row in enumerate(_rows(file), 1)]
        kinds = list(dict.fromkeys(query.kind for query in queries))
        for kind in kinds:
            name = file.stem if len(kinds) == 1 else f"{file.stem} {'+'.join(kind)}"
            sets.append(MomentSet(name, kind, tuple(query for query in queries if query.kind == kind)))
    _check_media(sets, source)
    return sets


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a JSON list or of JSON lines."""
    try:
        text = file.read_text(encoding="utf-8")
        whole = text.lstrip().startswith("[")
        rows = json.loads(text) if whole else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"--moments: {shown(str(file))} is neither JSON nor JSON lines ({error}). Repair it."
        ) from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"--moments: {shown(str(file))} must hold objects, at least one. Name the annotations.")
    yield from rows


def _query(row: Mapping[str, Any], number: int, file: Path) -> MomentQuery:
    """One row in either format."""
    place = f"--moments: {shown(str(file))}, row {number}"
    fields = next((names for names in _FIELDS.values() if names[3] in row), None)
    if fields is None:
        known = "; ".join(f"{name}: {', '.join(names)}" for name, names in _FIELDS.items())
        raise ValueError(f"{place}: has the keys {shown(sorted(row))}, of no known format ({known}). Convert it.")
    text, image, video, searched, moments = (row.get(name) for name in fields)
    if moments is None:
        raise ValueError(f"{place}: has no {fields[4]}, as in a test split. Give annotations with the true moments.")
    if not isinstance(moments, list) or not moments or not all(map(_is_moment, moments)):
        raise ValueError(
            f"{place}: {fields[4]} must be [start, end] pairs in seconds, got {shown(moments)}. Repair it."
        )
    media = {"text": text, "image": _path(file, image), "video": _path(file, video)}
    found = {name: str(media[name]) for name in MODALITIES if media[name]}
    if not found or not isinstance(searched, str):
        raise ValueError(f"{place}: needs a query ({', '.join(fields[:3])}) and {fields[3]}. Fill them.")
    return MomentQuery(found, _find_video(file.parent, searched), tuple((start, end) for start, end in moments))


def _is_moment(moment: Any) -> bool:
    numbers = isinstance(moment, list) and len(moment) == 2 and all(type(time) in (int, float) for time in moment)
    return numbers and all(map(math.isfinite, moment)) and 0 <= moment[0] < moment[1]


def _path(file: Path, name: Any) -> Path | None:
    return file.parent / name if isinstance(name, str) and name else None


def _find_video(folder: Path, name: str) -> Path:
    """The file of a name with or without a suffix and folders; the first place looked at if there is none."""
    last = Path(name).name
    stem = Path(last).stem if Path(last).suffix.lower() in VIDEO_SUFFIXES else last  # QVHighlights' names have dots
    names = [last, *(f"{stem}{suffix}" for suffix in sorted(VIDEO_SUFFIXES))]
    places = [folder / below / one for below in ("videos", "") for one in names]
    return next((place for place in places if place.is_file()), places[0])


def _check_media(sets: list[MomentSet], source: Path) -> None:
    """Name what is missing before anything is encoded."""
    wanted = {query.video for one in sets for query in one.queries}
    wanted |= {Path(query.row[name]) for one in sets for query in one.queries for name in query.kind if name != "text"}
    missing = sorted(path for path in wanted if not path.is_file())
    if missing:
        raise ValueError(
            f"--moments: {len(missing)} of {len(wanted)} media files of {shown(str(source))} are missing, such as "
            f"{shown(str(missing[0]))}. Put them there, or leave their rows out."
        )
