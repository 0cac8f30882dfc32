"""The distinct targets of a task, and which of them may be a negative of which row.

Shapes: R rows of the task, C rows of an outside corpus, N distinct targets.

A place counts rows: 0 to R - 1 are the task's own, R to R + C - 1 the outside corpus's. Targets are numbered in the
order of the places at which they first stand.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import (
    Dataset,
    Features,
    Image,
    Value,
    Video,
    concatenate_datasets,
    get_dataset_config_names,
    get_dataset_split_names,
    load_dataset,
)

from gve.hub_datasets.pair_media import load_pairs
from gve.hub_datasets.schema import media_features
from gve.trainers.mining.settings import EXCLUSIONS
from gve.trainers.rows import target_digest

_READ_ROWS = 512
_CACHED_ANSWERS = 1 << 12


class TargetTable:
    """What mining needs of a task, read once; media are not kept.

    Args:
        corpus: More targets, with columns id and target, and others of a UVRD row if known.

    Attributes:
        row_targets: (R,) number of each row's target.
        places: (N,) place of each target.
        digest: Changes with anything in the rows and the corpus that mining depends on.
    """

    def __init__(self, task: str, rows: Dataset, corpus: Dataset | None = None, *, exclude: str = "none") -> None:
        _check_exclusion(task, rows, exclude)
        self.task, self.exclude = task, exclude
        self.ids: list[str] = list(rows["id"])
        self._sources: list[str] = []
        self._queries: list[bytes] = []
        self._facts: list[tuple[int, ...]] = []
        self._numbers: dict[bytes, int] = {}
        self._held: dict[int, set[int]] = defaultdict(set)  # fact -> targets for which it holds
        self._targets_of_source: dict[str, set[int]] = defaultdict(set)
        digest, places, row_targets = blake2b(digest_size=16), [], []
        outside = () if corpus is None else _read(corpus, task)
        for place, row in enumerate(chain(_read(rows, task), outside)):
            key = target_digest(row["target"])
            if key not in self._numbers:
                self._numbers[key] = len(places)
                places.append(place)
            number = self._numbers[key]
            self._note_target(row, number)
            if place < len(rows):
                row_targets.append(number)
                self._note_query(row)
            digest.update(repr((row["id"], key, row.get("target_facts"), row.get("group"))).encode())
        for query, facts in zip(self._queries, self._facts, strict=True):
            digest.update(query + repr(facts).encode())
        self.row_targets, self.places = np.array(row_targets, dtype=np.int64), np.array(places, dtype=np.int64)
        self.digest = digest.hexdigest()
        self._twins: dict[bytes, set[int]] = defaultdict(set)
        for query, number in zip(self._queries, row_targets, strict=True):
            self._twins[query].add(number)
        self._answers = lru_cache(_CACHED_ANSWERS)(self._find_answers)

    def __len__(self) -> int:
        return len(self.places)

    def excluded(self, row: int) -> np.ndarray:
        """Targets that may not be a row's negative: its own, others that answer its query, those excluded by rule."""
        numbers = self._twins[self._queries[row]] | self._answers(self._facts[row])
        if source := self._sources[row]:
            numbers = numbers | self._targets_of_source[source]
        return np.array(sorted(numbers), dtype=np.int64)

    def _note_target(self, row: Mapping[str, Any], number: int) -> None:
        for fact in row.get("target_facts") or ():
            self._held[fact].add(number)
        if source := _source_of(row, self.exclude):
            self._targets_of_source[source].add(number)

    def _note_query(self, row: Mapping[str, Any]) -> None:
        self._queries.append(target_digest(row["query"]))
        self._facts.append(tuple(sorted(row["query_facts"])))
        self._sources.append(_source_of(row, self.exclude))

    def _find_answers(self, facts: tuple[int, ...]) -> frozenset[int]:
        """The targets for which all of some facts hold; none where nothing is stated."""
        held = sorted((self._held.get(fact, set()) for fact in facts), key=len)
        return frozenset(held[0].intersection(*held[1:])) if held else frozenset()


def ids_digest(ids: Iterable[str]) -> str:
    """A digest of ids in their order."""
    digest = blake2b(digest_size=16)
    for name in ids:
        digest.update(b"%d:" % len(name.encode()) + name.encode())
    return digest.hexdigest()


def read_rows(rows: Dataset, numbers: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Some columns of some rows, fetched in one piece."""
    return rows.select_columns(list(columns)).__getitems__([int(number) for number in numbers])


def _read(rows: Dataset, task: str) -> Iterator[dict[str, Any]]:
    columns = [
        name
        for name in ("id", "query", "target", "query_facts", "target_facts", "group", "lineage")
        if name in rows.column_names
    ]
    seen: set[str] = set()
    for start in range(0, len(rows), _READ_ROWS):
        for row in read_rows(rows, range(start, min(start + _READ_ROWS, len(rows))), columns):
            if row["id"] in seen:
                raise ValueError(f"id: got {row['id']!r} twice in {task}; unique ids are accepted; rename one")
            seen.add(row["id"])
            _check_media(row, task)
            yield row


def _check_media(row: Mapping[str, Any], task: str) -> None:
    for side in ("query", "target"):
        for kind in ("image", "video"):
            medium = (row.get(side) or {}).get(kind)
            if medium is None or medium["bytes"] is not None:
                continue
            path = medium["path"]
            if path is None or ("://" not in path and not Path(path).is_file()):
                raise ValueError(
                    f"{kind}: got {path!r} for the {side} of row {row['id']!r} of {task}, which is not a file; encoded bytes "
                    "or the path of a file are accepted; restore the file or take the row out"
                )


def _source_of(row: Mapping[str, Any], exclude: str) -> str:
    """The name under which a row's exclusion is kept; empty for none."""
    if exclude == "group":
        return row.get("group") or ""
    return row["lineage"]["origin"] or "" if exclude == "source" and "lineage" in row else ""


def _check_exclusion(task: str, rows: Dataset, exclude: str) -> None:
    if exclude not in EXCLUSIONS:
        raise ValueError(f"exclude: got {exclude!r}; {', '.join(EXCLUSIONS)} are accepted; choose one")
    if exclude == "source" and "lineage" not in rows.column_names:
        raise ValueError(
            f"exclude: got 'source' for {task}, whose rows have no column lineage; rows of gve synth are accepted; "
            "use 'group' or 'none'"
        )


MEDIA = ("text", "image", "video")
_KEPT = ("id", "target", "target_facts", "group", "lineage")


def load_corpus(source: str, task: str, rows: Dataset) -> Dataset:
    """Another data set's targets with the modalities of a task: a UVRD gives its same task, a UVRB all its corpora."""
    there = get_dataset_config_names(source)
    if task in there:
        corpus = load_pairs(source, [task])[task].with_format(None)
        found = corpus.select_columns([name for name in _KEPT if name in corpus.column_names])
    else:
        found = _benchmark_corpora(source, [name for name in there if name.endswith("-corpus")])
    wanted = _modalities(rows[0]["target"])
    kept = [] if found is None else _of_modalities(found, wanted)
    if not kept:
        raise ValueError(
            f"corpus: got {source!r}, which holds no targets of {' and '.join(wanted)} for {task} (it has "
            f"{', '.join(there)}); a UVRD with that task or a UVRB with such a corpus is accepted; choose another"
        )
    return found.select(kept)


def _benchmark_corpora(source: str, configs: list[str]) -> Dataset | None:
    """Every corpus of a UVRB, each id under its configuration and split."""
    parts = []
    for config in configs:
        for split in get_dataset_split_names(source, config):
            rows = load_dataset(source, config, split=split)
            for name, kind in (("image", Image(decode=False)), ("video", Video(decode=False))):
                if name in rows.column_names:
                    rows = rows.cast_column(name, kind)
            features = Features({"id": Value("string"), "target": media_features()})
            options = {"features": features, "remove_columns": rows.column_names}
            parts.append(rows.map(_as_target, fn_kwargs={"prefix": f"{config}/{split}/"}, **options))
    return concatenate_datasets(parts) if parts else None


def _as_target(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {"id": f"{prefix}{row['id']}", "target": {name: row.get(name) for name in MEDIA}}


def _modalities(target: dict[str, Any]) -> list[str]:
    return [name for name in MEDIA if target[name] is not None]


def _of_modalities(rows: Dataset, wanted: list[str]) -> list[int]:
    """Places of the rows whose target holds just these modalities, without reading the media."""
    column = rows.data.column("target")
    there = [pc.struct_field(column, name).is_valid().to_numpy() == (name in wanted) for name in MEDIA]  # (3, C)
    return np.flatnonzero(np.all(there, axis=0)).tolist()
