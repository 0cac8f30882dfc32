"""Files as rows of an index: what a file is, and the vectors of its segments.

Shapes: n rows, D width.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.encode import embed_files
from gve.eval.encoders import Encoder
from gve.eval.index.rows import Levels, Segment
from gve.eval.index.sources import Item
from gve.eval.index.storage import real_path
from gve.eval.index.windows import embed_segments, to_unit
from gve.eval.index.writing import Entry
from gve.eval.inputs import file_row
from gve.eval.media_encoder import NUM_FRAMES
from gve.eval.models import VideoSetting
from gve.eval.store import file_stamp
from gve.hub_datasets.files import content_digest
from gve.video_gve import video_info

_ROWS, _FILES = 256, 64  # written together, which is what a kill may cost


@dataclass(frozen=True, eq=False)
class File:
    """A file and what the ledger keeps of it; `read` fills in the last two."""

    stored: str  # its path, as in COLUMNS
    stamp: str | None  # None if it is gone
    columns: str  # the user's own, as JSON
    known: tuple[str, np.ndarray] | None
    digest: str = ""
    kind: str = ""

    @classmethod
    def of(cls, item: Item, stored: str, before: Entry | None) -> "File":
        """The file of an item; a source without columns keeps those that a table gave it."""
        keeps = before is not None and not item.columns
        columns = before.columns if keeps else json.dumps(dict(item.columns), sort_keys=True)
        try:
            stamp = file_stamp(item.path)
        except OSError:
            stamp = None
        return cls(stored, stamp, columns, item.known)

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(real_path(self.stored))

    def read(self, before: Entry | None) -> "File":
        """The file with kind and digest; ValueError or OSError if it is missing or no video or image."""
        kind = next(iter(file_row(self.path)))
        if before is not None and before.digest and before.stamp == self.stamp:
            return replace(self, kind=kind, digest=before.digest)
        return replace(self, kind=kind, digest=content_digest(self.path))

    def row(self, segment: Segment, duration: float | None) -> dict[str, Any]:
        """A row of the index, without its vector."""
        own = {"id": segment.key(self.path), "path": self.stored, "folder": Path(self.stored).parent.name}
        own |= {"kind": self.kind, **segment._asdict(), "duration": duration}
        return own | {"digest": self.digest, "stamp": self.stamp, **json.loads(self.columns)}

    def entry(self, duration: float | None, error: str | None = None) -> Entry:
        """The line of the ledger."""
        return Entry(self.stored, self.stamp, self.digest or None, self.kind or None, duration, self.columns, error)


@dataclass
class Embedded:
    """Rows to write, and after them the files that they complete.

    Attributes:
        vectors: (n, D).
        finished: Files with their durations.
        failed: Files that have no rows, with the reason.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    parts: list[np.ndarray] = field(default_factory=list)
    finished: list[tuple[File, float | None]] = field(default_factory=list)
    failed: list[tuple[File, Exception | str]] = field(default_factory=list)

    @property
    def vectors(self) -> np.ndarray:
        """Unit vectors (n, D)."""
        return to_unit(np.concatenate(self.parts))


class FileEmbedder:
    """Embeds whole files in blocks, and videos that are cut one after the other.

    Args:
        num_frames: Of a row; None for the encoder's own.

    Raises:
        ValueError: For another number of frames than an encoder without that setting has.
    """

    def __init__(self, encoder: Encoder, levels: Levels, num_frames: int | None) -> None:
        own = VideoSetting().described(encoder)["num_frames"] or NUM_FRAMES
        self.encoder, self.levels, self.num_frames = encoder, levels, own if num_frames is None else num_frames
        self._options = {} if self.num_frames == own else VideoSetting(self.num_frames).options(encoder)

    def embed(self, files: Sequence[File], known: Mapping[str, Sequence[Segment]]) -> Iterator[Embedded]:
        """Yield rows in bounded portions.

        Args:
            known: Segments that have rows already, by stored path.
        """
        cut = [file for file in files if file.kind == "video" and self.levels.cuts]
        whole = [file for file in files if file not in cut]
        for start in range(0, len(whole), _FILES):
            yield self._whole(whole[start : start + _FILES])
        yield from _joined(part for file in cut for part in self._cut(file, known.get(file.stored, ())))

    def _whole(self, files: Sequence[File]) -> Embedded:
        known = {str(file.path): file.known for file in files if file.known is not None}
        found = embed_files(
            self.encoder,
            [file.path for file in files],
            known=known,
            progress=False,
            video_options=self._options,
        )
        out = Embedded()
        vectors = dict(zip(found.paths, found.vectors, strict=True))
        for file in files:
            name = str(file.path)
            if name not in vectors:
                out.failed.append((file, found.skipped[name]))
                continue
            if not (np.isfinite(vectors[name]).all() and vectors[name].any()):  # of `gve encode`, as they are
                out.failed.append((file, ValueError("its vector has nan, infinity or zeros alone")))
                continue
            out.parts.append(vectors[name][None])
            duration = _duration(file)
            segment = Segment("file") if duration is None else Segment("file", 0.0, duration)
            out.rows.append(file.row(segment, duration))
            out.finished.append((file, duration))
        return out

    def _cut(self, file: File, known: Sequence[Segment]) -> Iterator[Embedded]:
        """A video segment by segment; `known` ones have rows already."""
        duration, out = _duration(file), Embedded()
        try:
            for segments, vectors in embed_segments(
                self.encoder, file.path, self.levels, num_frames=self.num_frames, known=known
            ):
                out.rows += [file.row(segment, duration) for segment in segments]
                out.parts.append(vectors)
                if len(out.rows) >= _ROWS:
                    yield out
                    out = Embedded()
        except (OSError, ValueError, SyntaxError) as error:
            yield Embedded(failed=[(file, error)])
        else:
            out.finished.append((file, duration))
            yield out


def _joined(portions: Iterable[Embedded]) -> Iterator[Embedded]:
    """Portions of at least _ROWS rows, so that short videos do not make a write each."""
    out = Embedded()
    for portion in portions:
        for name in ("rows", "parts", "finished", "failed"):
            getattr(out, name).extend(getattr(portion, name))
        if len(out.rows) >= _ROWS:
            yield out
            out = Embedded()
    yield out


def _duration(file: File) -> float | None:
    """Seconds of a video by its headers; None for an image, or if they do not say."""
    try:
        return video_info(file.path).duration if file.kind == "video" else None
    except (OSError, ValueError):
        return None
