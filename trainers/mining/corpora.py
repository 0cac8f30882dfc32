"""Targets of another data set, for hard negatives beyond a task's own."""

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

from gve.hub_datasets.schema import media_features

MEDIA = ("text", "image", "video")
_KEPT = ("id", "target", "target_facts", "group", "lineage")


def load_corpus(source: str, task: str, rows: Dataset) -> Dataset:
    """The targets of a data set that are of the modalities of a task's.

    Args:
        source: Folder or Hub name of a UVRD, whose task of the same name is read, or of a UVRB, all of whose corpora
            are read.
        task: Name of the task.
        rows: Its rows.

    Returns:
        Rows with columns id and target, and from a UVRD the facts, group and lineage.

    Raises:
        ValueError: Where there is nothing of the kind.
    """
    there = get_dataset_config_names(source)
    if task in there:
        corpus = load_dataset(source, task, split="train").with_format(None)
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
    """Places of the rows whose target holds just these modalities, told without reading the media."""
    column = rows.data.column("target")
    there = [pc.struct_field(column, name).is_valid().to_numpy() == (name in wanted) for name in MEDIA]  # (3, C)
    return np.flatnonzero(np.all(there, axis=0)).tolist()
