"""What an index is made of: folders, tables, data sets and vectors of `gve encode`, as files with their columns."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gve.eval.console import fail, printable, report_others
from gve.eval.index.storage import MEDIA, check_columns, is_local
from gve.eval.inputs import find_files
from gve.eval.store import INDEX, load_embeddings
from gve.hub_datasets.files import write_atomic
from gve.media_gve import shown

logger = logging.getLogger(__name__)

TABLES = (".csv", ".jsonl", ".parquet")
MEDIA_COLUMNS = ("path", "video", "image")
_BATCH = 64  # rows of a table that are in memory at once, which may hold whole files


@dataclass(frozen=True)
class Item:
    """A file to index.

    Attributes:
        columns: The user's own, by name.
        known: Stamp and vector (D,) of the whole file, if somebody has embedded it.
    """

    path: Path
    columns: Mapping[str, Any] = field(default_factory=dict)
    known: tuple[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Source:
    """A folder, file, table, data set or the output of `gve encode`.

    Raises:
        ValueError: On construction, if there is no such thing.
    """

    name: str

    def __post_init__(self) -> None:
        name = self.name.partition(":")[0]
        if self.kind == "dataset" and not (Path(name).is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
            fail(
                f"SOURCES: {shown(self.name)} does not exist. Give a folder, files, a table ({', '.join(TABLES)}), the output "
                "of `gve encode` or a data set such as name:config:split."
            )

    @property
    def kind(self) -> str:
        """files, table, dataset or vectors."""
        path = Path(self.name)
        if path.suffix in TABLES and path.is_file():
            return "table"
        if (path.is_file() and path.suffix == ".safetensors") or (path / INDEX).is_file():
            return "vectors"
        return "files" if path.exists() and not _is_saved(path) else "dataset"

    @property
    def lasting(self) -> str:
        """The name as an index keeps it: a path becomes absolute."""
        path, colon, rest = self.name.partition(":")
        if Path(self.name).exists():
            return str(Path(self.name).absolute())
        return f"{Path(path).absolute()}{colon}{rest}" if Path(path).exists() else self.name

    def columns(self) -> dict[str, pa.DataType]:
        """The user's own columns; ValueError for names that the index uses itself."""
        if self.kind not in ("table", "dataset"):
            return {}
        schema = next(iter(self._batches())).schema
        media = _media_column(schema, self.name)
        found = {}
        for each in schema:
            if each.name == media:
                continue
            if pa.types.is_nested(each.type) or pa.types.is_binary(each.type) or pa.types.is_large_binary(each.type):
                logger.warning("%s: left out the column %s of %s", printable(self.name), each.name, each.type)
                continue
            numbers = pa.types.is_integer(each.type) or pa.types.is_floating(each.type)
            found[_own_name(each.name)] = each.type if numbers or pa.types.is_boolean(each.type) else pa.string()
        check_columns(found)
        return found

    def items(self, where: str, fingerprint: str) -> Iterator[Item]:
        """The files, in their order.

        Args:
            where: The index, beside which files go that a data set holds as bytes.
            fingerprint: Of the index's model, whose vectors alone are taken.
        """
        if self.kind == "files":
            paths, others = find_files([self.name])
            report_others(others)
            yield from map(Item, paths)
        elif self.kind == "vectors":
            made = load_embeddings(Path(self.name))
            if made.fingerprint != fingerprint:
                fail(
                    f"SOURCES: {shown(self.name)} has vectors of {shown(made.model)}, which is not the model of the index. "
                    "Encode with that one."
                )
            for name, stamp, vector in zip(made.paths, made.stamps, made.vectors, strict=True):
                yield Item(Path(name), known=(stamp, vector))
        else:
            yield from self._rows(where)

    def _rows(self, where: str) -> Iterator[Item]:
        own = self.columns()
        base = Path(self.name).parent if self.kind == "table" else Path()
        for batch in self._batches():
            media = _media_column(batch.schema, self.name)
            for row in batch.to_pylist():
                values = {_own_name(name): value for name, value in row.items() if name != media}
                path = _file_of(row[media], base, where)
                if path is None:
                    fail(f"SOURCES: {shown(self.name)} has a row without a {media}. Fill it, or leave the row out.")
                texts = {name for name, kind in own.items() if kind == pa.string() and values[name] is not None}
                yield Item(path, {name: str(values[name]) if name in texts else values[name] for name in own})

    def _batches(self) -> Iterator[pa.RecordBatch | pa.Table]:
        """The rows as stored, nothing decoded."""
        if self.kind == "dataset":
            yield from self._dataset().with_format("arrow").iter(_BATCH)
            return
        import pyarrow.csv
        import pyarrow.json
        import pyarrow.parquet

        path = Path(self.name)
        try:
            if path.suffix == ".parquet":
                with pyarrow.parquet.ParquetFile(path) as file:
                    empty = file.schema_arrow.empty_table()
                    yield from file.iter_batches(_BATCH) if file.metadata.num_rows else [empty]
            else:
                read = pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.json.read_json
                table = read(path)
                yield from table.to_batches(_BATCH) or [table]
        except pa.ArrowException as error:
            fail(f"SOURCES: {shown(self.name)} is no readable {path.suffix[1:]} ({error}). Repair it.")

    def _dataset(self) -> Any:
        from datasets import DatasetDict, load_dataset, load_from_disk

        name, *parts = self.name.split(":")
        if _is_saved(Path(name)):
            found = load_from_disk(name)
        else:
            config, split = [*parts, None, None][:2]
            found = load_dataset(name, config, split=split)
        if isinstance(found, DatasetDict):
            split = parts[-1] if parts else next(iter(found))
            if split not in found:
                fail(f"SOURCES: {shown(self.name)}: no split {shown(split)}. Choose one of {', '.join(found)}.")
            found = found[split]
        return found


def _is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def _own_name(name: str) -> str:
    """A column's name as SQL takes it without quotes."""
    return re.sub(r"\W", "_", name.lower())


def _media_column(schema: pa.Schema, name: str) -> str:
    found = [column for column in MEDIA_COLUMNS if column in schema.names]
    if not found:
        fail(
            f"SOURCES: {shown(name)} has the columns {shown(', '.join(schema.names))}; one must be named "
            f"{', '.join(MEDIA_COLUMNS[:-1])} or {MEDIA_COLUMNS[-1]}. Rename one."
        )
    return found[0]


def _file_of(medium: Any, base: Path, where: str) -> Path | None:
    """The file of a row: a path, or bytes that are written beside the index."""
    held = medium if isinstance(medium, Mapping) else {"path": medium}
    content, name = held.get("bytes"), held.get("path")
    if content is None:
        return base / name if name else None
    if not is_local(where):
        fail(f"SOURCES: a row holds its file as bytes, which need an index in a local folder, not {shown(where)}.")
    suffix = Path(name or "").suffix.lower()
    path = Path(where) / MEDIA / f"{blake2b(content, digest_size=16).hexdigest()}{suffix}"
    if not path.exists():
        write_atomic(path, content)
    return path
