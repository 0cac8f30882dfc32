"""Parquet files of stored videos, each named by its inputs, so that an interrupted conversion continues.

A file with unreadable videos has a note beside it, and the next run makes it again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value, Video

from gve.hub_datasets.files import write_text
from gve.hub_datasets.parquet import write_rows
from gve.hub_datasets.uvrb.archive import MEDIA, Archive
from gve.hub_datasets.uvrb.media import FrameSettings, fingerprint, store_video
from gve.image_gve import open_image

ROWS = 64
"""Videos in a file: the most that a killed process loses."""

_TEXT = Value("string")
_STORED = {"video": Video(decode=False), "timestamps": List(Value("float64")), "duration": Value("float64")}
VIDEO_FEATURES = {"id": _TEXT, **_STORED}
QUERY_FEATURES = {
    **dict.fromkeys(("id", "set", "instruction", "text"), _TEXT),
    "image": Image(),
    **_STORED,
    "positives": List(_TEXT),
    "candidates": List(_TEXT),
}


@dataclass(frozen=True)
class ConversionShard:
    """One file of a conversion; `image` and `video` of its rows are paths until it is written."""

    path: Path
    rows: tuple[dict[str, Any], ...]
    settings: FrameSettings
    query: bool

    @property
    def note(self) -> Path:
        """File that names the unreadable rows."""
        return self.path.with_name(self.path.name + ".broken.json")

    @property
    def weight(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def done(self) -> bool:
        """Whether an earlier run wrote it without loss."""
        return self.path.exists() and not self.note.exists()

    def write(self) -> None:
        """Read the media and write the file."""
        broken: dict[str, str] = {}
        rows = [row for row in (self._stored(row, broken) for row in self.rows) if row is not None]
        if broken:
            write_text(self.note, json.dumps(broken, indent=2) + "\n")
        write_rows(self.path, rows, Features(QUERY_FEATURES if self.query else VIDEO_FEATURES))
        if not broken:
            self.note.unlink(missing_ok=True)

    def broken(self) -> dict[str, str]:
        """Reason by id of the unreadable rows."""
        return json.loads(self.note.read_text(encoding="utf-8")) if self.note.exists() else {}

    def _stored(self, row: dict[str, Any], broken: dict[str, str]) -> dict[str, Any] | None:
        """A row with its media's content; None if one is unreadable."""
        out = {"timestamps": None, "duration": None, **row}
        try:
            if (picture := row.get("image")) is not None:
                open_image(picture)  # the file is stored as it is, once it is known to open
                out["image"] = {"bytes": picture.read_bytes(), "path": picture.name}
            if (path := row.get("video")) is not None:
                stored = store_video(path, self.settings)
                out["video"] = {"bytes": stored.content, "path": path.stem + stored.suffix}
                out |= {"timestamps": stored.timestamps, "duration": stored.duration}
        except (OSError, ValueError) as error:
            broken[row["id"]] = (str(error).strip() or type(error).__name__).splitlines()[0]
            return None
        return out


@dataclass
class ConvertedSet:
    """One set: its archive, and the files of its corpus and queries."""

    archive: Archive
    corpus: list[ConversionShard] = field(default_factory=list)
    queries: list[ConversionShard] = field(default_factory=list)
    published: bool = False

    def lost(self) -> set[str]:
        """Corpus ids whose video is missing or unreadable."""
        broken = {identity for shard in self.corpus for identity in shard.broken()}
        return broken | {identity for identity, path in self.archive.corpus.items() if path is None}

    def note_broken(self) -> None:
        """Add unreadable media to the archive's problems."""
        for shard in (*self.corpus, *self.queries):
            for identity, reason in shard.broken().items():
                self.archive.note(MEDIA, f"{'query' if shard.query else 'corpus'} {identity!r}", reason)


def make_shards(
    folder: Path, rows: Sequence[dict[str, Any]], settings: FrameSettings, prints: dict[Path, str], *, query: bool
) -> list[ConversionShard]:
    """Cut rows into files named by a digest of their inputs; `prints` caches fingerprints."""
    shards = []
    for number, start in enumerate(range(0, len(rows), ROWS)):
        part = rows[start : start + ROWS]
        inputs = [{k: print_of(v, prints) if isinstance(v, Path) else v for k, v in row.items()} for row in part]
        text = json.dumps([inputs, asdict(settings)], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        shards.append(ConversionShard(folder / f"{number:05d}-{digest}.parquet", tuple(part), settings, query))
    return shards


def print_of(path: Path, prints: dict[Path, str]) -> str:
    """Name and fingerprint of a medium, computed once."""
    if path not in prints:
        prints[path] = f"{path.stem}|{fingerprint(path)}"
    return prints[path]
