"""Rows that lack a text, an image or a video of their task.

Shapes: N rows of a task, K hard negatives of a row.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from gve.trainers.resume.guard import record_batches

MODALITIES = {"t": "text", "i": "image", "v": "video"}
"""By their letter in the name of a task."""

NAMED = 5
"""Rows that a message names at most."""

logger = logging.getLogger(__name__)


def complete_rows(
    datasets: Mapping[str, Dataset], *, on_missing: str, negatives_of: Callable[[str], int]
) -> tuple[DatasetDict, dict[str, int]]:
    """The rows that have what their task is made of, and how many of each task were skipped."""
    kept, skipped = {}, {}
    for task, rows in datasets.items():
        gaps = find_gaps(rows, task, negatives=negatives_of(task))
        kept[task] = rows
        if not gaps:
            continue
        ids = rows.select_columns(["id"])
        named = ", ".join(f"{ids[row]['id']!r} without {what}" for row, what in list(gaps.items())[:NAMED])
        message = f"{len(gaps)} of {len(rows)} rows of {task} lack media: {named}{' ...' if len(gaps) > NAMED else ''}"
        if on_missing != "skip" or len(gaps) == len(rows):
            raise ValueError(
                f"train_dataset: got {message}; rows with all that {task} is made of are accepted; restore the files, "
                "build the set again, or leave such rows out with on_missing skip (some row must be left)"
            )
        logger.warning("on_missing: %s; they are left out", message)
        kept[task] = rows.select([row for row in range(len(rows)) if row not in gaps])
        skipped[task] = len(gaps)
    return DatasetDict(kept), skipped


def find_gaps(rows: Dataset, task: str, *, negatives: int = 0) -> dict[int, str]:
    """By row the first thing that is missing, in words; media are not read."""
    asked, _, found = task.partition("-")[0].partition("2")
    columns = ["query", "target", *(["negatives"] if negatives else [])]
    gaps: dict[int, str] = {}
    for start, batch in record_batches(rows, columns):
        for side, letters in (("query", asked), ("target", found)):
            for letter in letters:
                for row in np.flatnonzero(absent(batch.column(side), MODALITIES[letter])).tolist():
                    gaps.setdefault(start + row, f"its {side} {MODALITIES[letter]}")
        if negatives:
            lists = batch.column("negatives")
            parents = pc.list_parent_indices(lists).to_numpy()
            place = np.arange(len(parents)) - np.searchsorted(parents, parents)  # of each negative in its row
            for letter in found:
                lost = absent(pc.list_flatten(lists), MODALITIES[letter]) & (place < negatives)
                for row in parents[lost].tolist():
                    gaps.setdefault(start + row, f"the {MODALITIES[letter]} of a hard negative")
    return dict(sorted(gaps.items()))


def absent(side: pa.StructArray, modality: str) -> np.ndarray:
    """(N,) bool, where one modality of a side of N rows is missing; a file needs bytes, or a path to a file."""
    parts = dict(zip((field.name for field in side.type), side.flatten(), strict=True))
    if modality == "text":
        return parts["text"].is_null().to_numpy(zero_copy_only=False)
    source = dict(zip((field.name for field in parts[modality].type), parts[modality].flatten(), strict=True))
    sizes = pc.fill_null(pc.binary_length(source["bytes"]), 0)
    gone = pc.equal(sizes, 0).to_numpy(zero_copy_only=False).copy()
    for row in np.flatnonzero(gone).tolist():
        path = source["path"][row].as_py()
        gone[row] = path is None or not Path(path).is_file()
    return gone
