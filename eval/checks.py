"""Data and instructions checked before anything is encoded.

Shapes: Q queries.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from gve.hub_datasets.classification import CLASSIFICATION, ClassificationTask, load_folder
from gve.hub_datasets.uvrb import SETS, EvaluationSet, RetrievalSet, load_set, resolve
from gve.hub_datasets.uvrb.tasks import look_up

if TYPE_CHECKING:
    from datasets import Dataset

WHOLE = "all"
"""Name in reports of the split of a folder of labelled videos, which has no splits."""


def resolve_tasks(names: Iterable[str] | None) -> list[RetrievalSet | ClassificationTask]:
    """UVRB sets and classification tasks by name or slug, in the order given; None for UVRB's sixteen."""
    return [*resolve()] if names is None else look_up(names, {**SETS, **CLASSIFICATION})


def choose_split(source: str | PathLike[str], tasks: Sequence[RetrievalSet | ClassificationTask]) -> str:
    """The default split: "unseen", or the only one; "all" if every task is classification."""
    of_uvrb = [task for task in tasks if task.name in SETS]
    if not of_uvrb:
        return WHOLE
    from datasets import get_dataset_split_names  # a second to import; the tables above need none of it

    try:
        splits = get_dataset_split_names(str(source), f"{of_uvrb[0].slug}-queries")
    except (ValueError, FileNotFoundError, ConnectionError):
        return "unseen"  # loading will say what is wrong
    return splits[0] if len(splits) == 1 else "unseen"


def load_checked(
    source: str | PathLike[str], sets: Iterable[str] | None, split: str, *, strict: bool = False
) -> list[EvaluationSet]:
    """Load sets and make sure that every row has its media.

    Args:
        source: A folder or Hub repository in the UVRB layout. A classification task is the subfolder of its name or,
            if it is the only task, the folder itself.
        sets: Names or slugs; None for UVRB's sixteen.
        strict: Refuse classification data with another number of classes than published.

    Raises:
        ValueError: As for `load_set` and `load_folder`, and for a missing medium, with its set and row.
    """
    tasks = resolve_tasks(sets)
    loaded = [
        load_folder(_folder_of(source, task, alone=len(tasks) == 1), task, strict=strict)
        if isinstance(task, ClassificationTask)
        else load_set(source, task.name, split)
        for task in tasks
    ]
    for data in loaded:
        _check_media(data.corpus, data.task.corpus_modality, f"{data.task.slug}-corpus")
        for modality in data.task.query_modalities:
            _check_media(data.queries, modality, f"{data.task.slug}-queries")
    return loaded


def check_instructions(
    loaded: Sequence[EvaluationSet], given: Mapping[str, str | None] | None
) -> dict[str, str | None]:
    """Instruction by set name, from `given` (by name or slug) or the table.

    Raises:
        ValueError: If a name is unknown, or a set is left out.
    """
    if given is None:
        return {data.task.name: data.task.instruction for data in loaded}
    by_name = {resolve_tasks([name])[0].name: text for name, text in given.items()}
    lacking = [data.task.name for data in loaded if data.task.name not in by_name]
    if lacking:
        raise ValueError(
            f"instructions: none for {', '.join(lacking)}; one for every set is needed. Add them, or use the table's."
        )
    return {data.task.name: by_name[data.task.name] for data in loaded}


def _folder_of(source: str | PathLike[str], task: ClassificationTask, *, alone: bool) -> Path:
    folder = Path(source, task.slug)
    return Path(source) if alone and not folder.is_dir() else folder


def _check_media(rows: "Dataset", modality: str, config: str) -> None:
    """Every row must hold its medium: encoded bytes, or the path of an existing file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = rows.data.column(modality)
    if modality == "text" or not pa.types.is_struct(column.type):
        return
    column = column.combine_chunks()
    content = pc.struct_field(column, "bytes")
    without = pc.or_(pc.is_null(content), pc.equal(pc.binary_length(content), 0)).fill_null(True)
    if not pc.any(without).as_py():
        return
    paths = pc.struct_field(column, "path")
    for row in pc.indices_nonzero(without).to_pylist():
        path = paths[row].as_py()
        if path is None or not (Path(path).is_file() or "://" in path):
            identity = rows.data.column("id")[row].as_py()
            raise ValueError(
                f"{config}: row {row} (id {identity!r}) has no {modality}: "
                f"{'neither bytes nor path' if path is None else f'no file {path!r}'}. Add it, or leave the row out."
            )
