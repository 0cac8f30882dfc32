"""Files of stored videos: each named by what it is made of, so that an interrupted conversion goes on where it was.

A file is written whole or not at all. One with videos that could not be read has a note beside it and is made again by
the next run.
"""

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value, Video
from tqdm import tqdm

from gve.hub_datasets.uvrb.media import FORMATS, FrameSettings, fingerprint, store_video
from gve.hub_datasets.world.files import write_rows, write_text
from gve.image_gve import open_image

ROWS = 64
"""Videos a file: what a killed process loses at most."""

_TEXT = Value("string")
VIDEO_FEATURES = {
    "id": _TEXT,
    "video": Video(decode=False),
    "timestamps": List(Value("float64")),
    "duration": Value("float64"),
}
QUERY_FEATURES = {
    "id": _TEXT,
    "set": _TEXT,
    "instruction": _TEXT,
    "text": _TEXT,
    "image": Image(),
    "video": Video(decode=False),
    "timestamps": List(Value("float64")),
    "duration": Value("float64"),
    "positives": List(_TEXT),
    "candidates": List(_TEXT),
}


@dataclass(frozen=True)
class Shard:
    """One file of a conversion.

    Attributes:
        path: The file.
        rows: What it holds: id, paths of media under image and video, and anything else as it is stored.
        settings: How videos are stored.
        query: Whether the rows are queries.
    """

    path: Path
    rows: tuple[dict[str, Any], ...]
    settings: FrameSettings
    query: bool

    @property
    def note(self) -> Path:
        """The file that names the rows which could not be read."""
        return self.path.with_name(self.path.name + ".broken.json")

    @property
    def done(self) -> bool:
        """Whether an earlier run finished it without loss."""
        return self.path.exists() and not self.note.exists()

    def write(self) -> None:
        """Read the media and write the file."""
        broken: dict[str, str] = {}
        rows = [row for row in (self._stored(row, broken) for row in self.rows) if row is not None]
        columns = QUERY_FEATURES if self.query else VIDEO_FEATURES
        if broken:
            write_text(self.note, json.dumps(broken, indent=2) + "\n")
        write_rows(self.path, rows, Features(columns))
        if not broken:
            self.note.unlink(missing_ok=True)

    def broken(self) -> dict[str, str]:
        """Reason by id of the rows that could not be read."""
        return json.loads(self.note.read_text(encoding="utf-8")) if self.note.exists() else {}

    def _stored(self, row: dict[str, Any], broken: dict[str, str]) -> dict[str, Any] | None:
        """A row with the content of its media; None when one of them cannot be read."""
        out = dict(row)
        try:
            if row.get("image") is not None:
                out["image"] = {"bytes": _image_bytes(Path(row["image"])), "path": Path(row["image"]).name}
            if row.get("video") is not None:
                path = Path(row["video"])
                stored = store_video(path, self.settings)
                suffix = FORMATS[self.settings.format][0]
                out["video"] = {"bytes": stored.content, "path": path.stem + suffix}
                out |= {"timestamps": stored.timestamps, "duration": stored.duration}
        except (OSError, ValueError) as error:
            broken[row["id"]] = (str(error).strip() or type(error).__name__).splitlines()[0]
            return None
        return {"timestamps": None, "duration": None} | out


def make_shards(
    folder: Path, rows: Sequence[dict[str, Any]], settings: FrameSettings, *, query: bool, prints: dict[Path, str]
) -> list[Shard]:
    """Cut rows into files whose names tell what they are made of.

    Args:
        folder: Where the files go.
        rows: In the order of the files.
        settings: How videos are stored.
        query: Whether the rows are queries.
        prints: Fingerprints by path, kept between calls.

    Returns:
        The files, none of them written.
    """
    shards = []
    for number, start in enumerate(range(0, len(rows), ROWS)):
        part = rows[start : start + ROWS]
        told = [{key: _told(value, prints) for key, value in row.items()} for row in part]
        text = json.dumps([told, asdict(settings)], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        shards.append(Shard(folder / f"{number:05d}-{digest}.parquet", tuple(part), settings, query))
    return shards


def write_shards(shards: Iterable[Shard], *, workers: int, progress: bool, title: str) -> None:
    """Write what is not done, in this process or in several.

    Args:
        shards: The files.
        workers: Processes; 1 works in this one.
        progress: Whether to show a bar on stderr.
        title: Of the bar.
    """
    everything = list(shards)
    left = [shard for shard in everything if not shard.done]
    total, rest = sum(len(shard.rows) for shard in everything), sum(len(shard.rows) for shard in left)
    with tqdm(total=total, initial=total - rest, desc=title, unit="row", disable=not progress, delay=1) as bar:
        if workers <= 1 or len(left) < 2:
            for shard in left:
                shard.write()
                bar.update(len(shard.rows))
            return
        context = multiprocessing.get_context("spawn")
        ignore = (signal.SIGINT, signal.SIG_IGN)  # an interrupt is this process's to handle
        with ProcessPoolExecutor(workers, mp_context=context, initializer=signal.signal, initargs=ignore) as pool:
            sizes = {pool.submit(shard.write): len(shard.rows) for shard in left}
            try:
                for future in as_completed(sizes):
                    future.result()
                    bar.update(sizes[future])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _told(value: Any, prints: dict[Path, str]) -> Any:
    """What of a value decides about the file: media by content, anything else as it is."""
    if not isinstance(value, Path):
        return value
    if value not in prints:
        prints[value] = f"{value.stem}|{fingerprint(value)}"
    return prints[value]


def _image_bytes(path: Path) -> bytes:
    """The file as it is, once it is known to open."""
    open_image(path)
    return path.read_bytes()
