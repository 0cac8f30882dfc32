"""README files of the data folders: the configurations that `load_dataset` reads, and what is inside."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.benchmark import TABLES
from gve.hub_datasets.world.sets import CORPUS_OF
from gve.hub_datasets.world.spec import SPLITS

_COLUMNS = ("name", "metric", "queries", "candidates", "positives", "chance")


def uvrd_card(folder: Path, counts: Mapping[str, int], seed: int) -> str:
    """README of the training pairs: one configuration a task.

    Args:
        folder: Where their files lie.
        counts: Pairs by task.
        seed: What they were drawn with.
    """
    lines = ["---", "configs:"]
    for task in counts:
        lines += _config(folder, task, {"train": f"{task}/train-*.parquet"})
    lines += ["---", "", "# UVRD of the rendered world", ""]
    lines += [f"Pairs with exact ground truth, rendered with seed {seed}. One configuration a task:", ""]
    lines += ["| task | pairs |", "|---|---|", *(f"| {task} | {count} |" for task, count in counts.items())]
    return "\n".join(lines) + "\n"


def uvrb_card(folder: Path, sets: Mapping[str, Sequence[Mapping[str, Any]]], seed: int) -> str:
    """README of the benchmark: three or four configurations a set, and a table of the sets.

    Args:
        folder: Where its files lie.
        sets: For each split the sets' summaries.
        seed: What the sets were drawn with.
    """
    lines = ["---", "configs:"]
    for task in SETS.values():
        for table in TABLES:
            if table == "top_ranked" and task.pool_size is None:
                continue
            owner = CORPUS_OF.get(task.name, task.slug) if table == "corpus" else task.slug
            files = {split: f"{owner}-{table}/{split}.parquet" for split in SPLITS}
            lines += _config(folder, f"{task.slug}-{table}", files)
    lines += ["---", "", "# UVRB of the rendered world", ""]
    lines += [
        f"The sixteen sets in miniature, rendered with seed {seed}. Split `seen` uses the combinations of colour and",
        "shape of training, split `unseen` only held-out ones. `chance` is the expected score of a random ranking.",
    ]
    for split, rows in sets.items():
        lines += ["", f"## {split}", "", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
        lines += [f"| {' | '.join(str(row[column]) for column in _COLUMNS)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _config(folder: Path, name: str, files: Mapping[str, str]) -> list[str]:
    """One configuration.

    Its description is a digest of its files: `datasets` keeps what it has read under the folder's name and the
    configuration, so that without it another folder of the same name would give this one's rows.
    """
    digest = blake2b(digest_size=8)
    for path in sorted(found for pattern in files.values() for found in folder.glob(pattern)):
        digest.update(path.read_bytes())
    lines = [f"- config_name: {name}", f'  description: "blake2b {digest.hexdigest()}"', "  data_files:"]
    for split, pattern in files.items():
        lines += [f"  - split: {split}", f"    path: {pattern}"]
    return lines
