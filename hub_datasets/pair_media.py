"""The media of a UVRD that stores each file once: packed in a configuration of their own, and rows that name them.

A row's path is the name of a medium, such as "0f3a....mp4": a digest of its content. `load_pairs` writes the packed media
once into the cache of `datasets` and puts whole paths into the rows, so that all that reads rows reads them as they are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from gve.hub_datasets.files import write_atomic
from gve.media_gve import MP4, shown

if TYPE_CHECKING:
    from datasets import Dataset, Features

MEDIA = "media"
"""The configuration that holds the media."""

_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,5}")
_WRITERS = 16
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def media_name(content: bytes, suffix: str) -> str:
    """The name of an encoded file: its digest and its suffix, .mp4 for one that is none."""
    suffix = suffix.lower() if _SUFFIX.fullmatch(suffix.lower()) else MP4
    return blake2b(content, digest_size=16).hexdigest() + suffix


def stored_features() -> "Features":
    """Columns of the media: a name, and a file under what it is."""
    from datasets import Features, Image, Value, Video  # a second to import, as below

    return Features({"name": Value("string"), "image": Image(decode=False), "video": Video(decode=False)})


def named_media(path: Path) -> set[str]:
    """The media that the rows of a parquet file name; bytes are not read."""
    with pq.ParquetFile(path) as file:
        leaves = (file.schema.column(number).path for number in range(len(file.schema)))
        rows = file.read([leaf for leaf in leaves if leaf.endswith(".path")]).to_pylist()
    return {medium["path"] for medium in _media_of(rows) if medium["path"] is not None}


def load_pairs(data: str, tasks: Sequence[str]) -> "dict[str, Dataset]":
    """The rows of a UVRD folder or Hub data set by task, ready for training, however it stores its media."""
    from datasets import get_dataset_config_names, load_dataset

    found = {task: load_dataset(data, task, split="train") for task in tasks}
    if MEDIA not in get_dataset_config_names(data):
        return found
    root = str(unpack_media(data))
    return {task: rows.map(_placed, fn_kwargs={"root": root}, desc=f"media of {task}") for task, rows in found.items()}


def unpack_media(data: str) -> Path:
    """Write the media of a UVRD into the cache of `datasets`, which sets may share; what is there stays."""
    from datasets import config
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm

    if Path(data).is_dir():
        folder = Path(data)
    else:
        folder = Path(snapshot_download(data, repo_type="dataset", allow_patterns=f"{MEDIA}/*.parquet"))
    root = Path(config.HF_DATASETS_CACHE) / "gve-media"
    for path in tqdm(sorted((folder / MEDIA).glob("*.parquet")), desc="media", unit="file", delay=2):
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                names = file.read_row_group(number, columns=["name"])["name"].to_pylist()
                if not all(_place(root, name).is_file() for name in names):
                    with ThreadPoolExecutor(_WRITERS) as pool:  # they wait for the disk, not for one another
                        list(pool.map(partial(_unpack, root), file.read_row_group(number).to_pylist()))
    return root


def _unpack(root: Path, row: Mapping[str, Any]) -> None:
    content = (row["video"] or row["image"] or {}).get("bytes") or b""
    place = _place(root, row["name"])
    if media_name(content, place.suffix) != row["name"]:
        raise ValueError(
            f"media: {row['name']!r} is damaged: its content has another digest. Build or fetch it again."
        )
    if not place.is_file():
        write_atomic(place, content)


def _place(root: Path, name: str) -> Path:
    """Where a medium lies; a name from elsewhere must not lead out of the folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"media: names must be a digest and a suffix, got {shown(name)}. Build the data set again.")
    return root / name[:2] / name


def _placed(row: Mapping[str, Any], root: str) -> dict[str, Any]:
    row = dict(row)
    for medium in _media_of(row):
        if medium["bytes"] is None and medium["path"] is not None:
            place = _place(Path(root), medium["path"])
            if not place.is_file():
                raise ValueError(
                    f"media: row {row['id']!r} names {medium['path']}, which the configuration {MEDIA} does not hold. "
                    "Build or fetch the data set again."
                )
            medium["path"] = str(place)
    return row


def _media_of(value: Any) -> Iterator[dict[str, Any]]:
    """All media, {"bytes", "path"}, within rows, or within parts of them."""
    if isinstance(value, list):
        for part in value:
            yield from _media_of(part)
    elif isinstance(value, dict):
        if "path" in value:
            yield value
        else:
            yield from _media_of(list(value.values()))
