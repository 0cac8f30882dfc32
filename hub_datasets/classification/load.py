"""Reads the labelled videos of one classification task from a folder and checks them.

Three layouts: `queries.jsonl` (a video, its own candidates, the index of the answer), `labels.csv` (path, label), or
one folder of videos per class. Beside the last two, `classes.txt` may name all classes, one a line.

Shapes: Q queries, N classes or distinct candidates.
"""

import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from gve.hub_datasets.classification.tasks import ClassificationTask
from gve.hub_datasets.uvrb.load import EvaluationSet, id_text
from gve.hub_datasets.walking import walk_files
from gve.media_gve import shown
from gve.video_gve import video_info

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

QUERIES, LABELS, CLASSES = "queries.jsonl", "labels.csv", "classes.txt"


class _Rows(NamedTuple):
    """Ids and paths of Q videos, ids and texts of N candidates, and the answer of each query."""

    query_ids: list[str]
    paths: list[Path]
    corpus_ids: list[str]
    texts: list[str]
    answers: list[int]
    pools: list[np.ndarray] | None


def load_folder(folder: str | PathLike[str], task: ClassificationTask, *, strict: bool = False) -> EvaluationSet:
    """Load and check the videos of one task; each has one positive among all classes or its own candidates.

    Raises:
        ValueError: A folder, class or video is missing, a label, path or answer is unknown or repeated, or a file is
            no video. With `strict`, also if the number of classes differs from the published one (else a warning).
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{task.slug}: got {shown(str(folder))}, which is not a folder of videos. Check the path.")
    present = [name for name in (QUERIES, LABELS) if (root / name).is_file()]
    if len(present) > 1:
        raise ValueError(f"{task.slug}: {root} has {QUERIES} and {LABELS}; it may have one of them. Remove the other.")
    rows = _read_queries(root, task) if present == [QUERIES] else _read_classes(root, task, has_labels=bool(present))
    if len(rows.texts) != task.num_classes:
        found = f"{task.slug}: {root} has {len(rows.texts)} classes; {task.name} has {task.num_classes}"
        if strict:
            raise ValueError(f"{found}. Add the missing ones (list all names in {CLASSES}), or drop strict.")
        logger.warning("%s; scores do not compare with scores on all of them", found)
    _check_unique(rows.query_ids, f"{task.slug}: video", "Query each once, or give the rows an id.")
    _check_videos(rows.paths, task)
    absent = [None] * len(rows.paths)
    return EvaluationSet(
        task=task,
        queries=_table(id=rows.query_ids, text=absent, image=absent, video=list(map(str, rows.paths))),
        corpus=_table(id=rows.corpus_ids, text=rows.texts),
        query_ids=rows.query_ids,
        corpus_ids=rows.corpus_ids,
        positives=[np.array([answer], dtype=np.int64) for answer in rows.answers],
        pools=rows.pools,
    )


def label_words(name: str) -> str:
    """A class name as words: "ApplyEyeMakeup" -> "apply eye makeup". Names with spaces keep their capitals."""
    text = " ".join(re.sub(r"[_\[\]]", " ", name).split())
    if " " in name.strip():
        return text
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text).lower()


def _read_classes(root: Path, task: ClassificationTask, *, has_labels: bool) -> _Rows:
    pairs = _labels_of_file(root, task) if has_labels else _labels_of_folders(root, task)
    listed = root / CLASSES
    names = _lines(listed) if listed.is_file() else sorted({label for _, label in pairs})
    if not names or not pairs:
        raise ValueError(
            f"{task.slug}: {root} has no class with a video; it must have a folder for each class, {LABELS} or "
            f"{QUERIES}. Check the path."
        )
    texts = [task.template.format(label=label_words(name)) for name in names]
    _check_unique(texts, f"{task.slug}: the class that reads", "Rename one of the classes.")
    rows = {name: row for row, name in enumerate(names)}
    for path, label in pairs:
        if label not in rows:
            raise ValueError(f"{task.slug}: {path}: label {shown(label)} is not in {CLASSES}. Add it.")
    answers = [rows[label] for _, label in pairs]
    return _Rows([path for path, _ in pairs], [root / path for path, _ in pairs], names, texts, answers, None)


def _labels_of_folders(root: Path, task: ClassificationTask) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = list(walk_files([folder]))
        if not files:
            raise ValueError(
                f"{task.slug}: class {shown(folder.name)} has no video. Add one, or remove the folder and name the "
                f"class in {CLASSES}."
            )
        pairs += [(path.relative_to(root).as_posix(), folder.name) for path in files]
    return pairs


def _labels_of_file(root: Path, task: ClassificationTask) -> list[tuple[str, str]]:
    with (root / LABELS).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise ValueError(
                f"{task.slug}: {LABELS} must have the columns path and label, got {shown(reader.fieldnames)}. Name them "
                "in the first line."
            )
        pairs = []
        for row in reader:
            if not row["path"] or not (row["label"] or "").strip():
                raise ValueError(f"{task.slug}: {LABELS} line {reader.line_num} lacks a path or a label. Fill it in.")
            pairs.append((row["path"], row["label"].strip()))
    return pairs


def _read_queries(root: Path, task: ClassificationTask) -> _Rows:
    """Videos with candidates of their own; equal texts share a corpus row."""
    query_ids, paths, answers, pools = [], [], [], []
    corpus: dict[str, int] = {}
    for number, line in enumerate(_lines(root / QUERIES), start=1):
        row = _parse(line, f"{task.slug}: {QUERIES} entry {number}")
        candidates = row["candidates"]
        pool = [corpus.setdefault(text, len(corpus)) for text in candidates]
        query_ids.append(row["id"])
        paths.append(root / row["video"])
        pools.append(np.array(pool, dtype=np.int64))
        answers.append(pool[row["answer"]])
    if not query_ids:
        raise ValueError(f"{task.slug}: {QUERIES} is empty; it needs one row a video. Fill it.")
    return _Rows(query_ids, paths, list(corpus), list(corpus), answers, pools)


def _parse(line: str, where: str) -> dict[str, Any]:
    """One row {id, video, candidates, answer}; the id defaults to the video's path."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error}); each line must be one object. Correct it.") from error
    if not isinstance(row, dict) or not {"video", "candidates", "answer"} <= row.keys():
        raise ValueError(f"{where}: video, candidates and answer are required. Fill them in.")
    if not isinstance(row["video"], str) or not row["video"]:
        raise ValueError(f"{where}: video must be a path, got {shown(row['video'])}. Correct it.")
    row["id"] = id_text(row["video"] if row.get("id") in (None, "") else row["id"], where)
    candidates, answer = row["candidates"], row["answer"]
    if not isinstance(candidates, list) or not all(isinstance(text, str) and text.strip() for text in candidates):
        raise ValueError(f"{where}: candidates must be a list of texts, got {shown(candidates)}. Correct it.")
    if len(set(candidates)) != len(candidates):
        raise ValueError(f"{where}: a candidate appears twice. Remove the repetition.")
    if type(answer) is not int or not 0 <= answer < len(candidates):
        raise ValueError(
            f"{where}: answer must be an index from 0 to {len(candidates) - 1}, got {shown(answer)}. Correct it."
        )
    return row


def _check_videos(paths: Sequence[Path], task: ClassificationTask) -> None:
    """Check for a video stream; reads headers only."""
    with ThreadPoolExecutor() as threads:
        found = tqdm(threads.map(_problem, paths), total=len(paths), desc=f"check {task.slug}", unit="video", delay=2)
        problems = [(path, problem) for path, problem in zip(paths, found, strict=True) if problem]
    if problems:
        path, problem = problems[0]
        more = f", and {len(problems) - 1} more such" if len(problems) > 1 else ""
        raise ValueError(f"{task.slug}: {path} {problem}{more}. Repair it, or leave it out.")


def _problem(path: Path) -> str | None:
    if not path.is_file():
        return "is not a file"
    try:
        str(path).encode()  # it becomes an id, and tables hold UTF-8
        video_info(path)
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    except ValueError as error:
        return f"is not a video ({error})"
    return None


def _check_unique(values: Iterable[str], what: str, remedy: str) -> None:
    common = Counter(values).most_common(1)
    if common and common[0][1] > 1:
        raise ValueError(f"{what} {shown(common[0][0])} appears more than once. {remedy}")


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _table(**columns: list[str | None]) -> "Dataset":
    from datasets import Dataset, Features, Value  # takes a second to import, and some commands need only the tasks

    return Dataset.from_dict(columns, features=Features({name: Value("string") for name in columns}))
