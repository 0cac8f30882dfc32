"""README files of the data folders: the configurations that `load_dataset` reads, and what is inside."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.benchmark import TABLES, table_features
from gve.hub_datasets.world.sets import CORPUS_OF
from gve.hub_datasets.world.spec import SPLITS

_COLUMNS = ("name", "metric", "queries", "candidates", "positives", "chance")

_UVRB_HEAD = """---
pretty_name: UVRB of the rendered world
license: apache-2.0
language: [en]
task_categories: [feature-extraction]
tags: [video-retrieval, composed-retrieval, benchmark, synthetic, mteb]
size_categories: [1K<n<10K]
configs:"""

_UVRB_USE = """
# UVRB of the rendered world

The sixteen sets of the universal video retrieval benchmark (arXiv 2510.27571) in miniature: the same names, instructions,
metrics, kinds of query and candidate pools, on videos drawn by a program, so that every positive is exact. A controlled
diagnostic, not the paper's data: its scores do not compare with the paper's. Rendered with seed {seed}.

## Use

```python
from datasets import load_dataset

queries = load_dataset("org/uvrb", split="unseen")  # all sets: every query with its instruction and positives
queries = load_dataset("org/uvrb", "msrvtt", split="unseen")  # one set
videos = load_dataset("org/uvrb", "msrvtt-corpus", split="unseen")  # what its positives name
```

The split `seen` uses the combinations of colour and shape that training shows, `unseen` only held-out ones. Images are
decoded when a row is read; videos are MP4 files in `video["bytes"]`, so that no decoder is needed to read a row. The
four configurations of each set are those that MTEB's own loader reads.

| configuration | columns |
|---|---|
| `default`, `<set>` | {columns} |
| `<set>-queries` | `id` and what the set's queries are made of |
| `<set>-corpus` | `id`, `video` |
| `<set>-qrels` | `query-id`, `corpus-id`, `score` |
| `<set>-top_ranked` | `query-id`, `corpus-ids`; only of the sets with pools |

`positives` and `candidates` are ids of the set's corpus; `candidates` is null where all of the corpus is searched. Ids are
unique within a set. Sets that share a corpus share its file.

| set | abilities | queries of | instruction |
|---|---|---|---|"""

_UVRB_COUNTS = """
`chance` is the expected score of a random ranking; `candidates` and `positives` are the most of any query."""

_UVRB_LIMITS = """
## Limits

Clips of 48 x 48 pixels with 48 kinds of coloured things, ten actions and a grammar instead of people's words. No rights
of others are touched: every video and every text was generated, and may be used under the licence above.
"""


def uvrd_card(folder: Path, counts: Mapping[str, int], seed: int) -> str:
    """README of the training pairs: one configuration a task.

    Args:
        folder: Where their files lie.
        counts: Pairs by task.
        seed: What they were drawn with.
    """
    lines = ["---", "configs:"]
    for task in counts:
        lines += _config(folder, task, {"train": [f"{task}/train-*.parquet"]})
    lines += ["---", "", "# UVRD of the rendered world", ""]
    lines += [f"Pairs with exact ground truth, rendered with seed {seed}. One configuration a task:", ""]
    lines += ["| task | pairs |", "|---|---|", *(f"| {task} | {count} |" for task, count in counts.items())]
    return "\n".join(lines) + "\n"


def uvrb_card(folder: Path, sets: Mapping[str, Sequence[Mapping[str, Any]]], seed: int) -> str:
    """README of the benchmark: its configurations, how to use them, and tables of the sets.

    Args:
        folder: Where its files lie.
        sets: For each split the sets' summaries.
        seed: What the sets were drawn with.
    """
    columns = ", ".join(f"`{column}`" for column in table_features("queries"))
    lines = [_UVRB_HEAD, *_uvrb_configs(folder), "---", *_UVRB_USE.format(seed=seed, columns=columns).splitlines()]
    for task in SETS.values():
        parts = " + ".join(task.query_modalities)
        lines.append(f"| `{task.slug}` | {', '.join(task.abilities)} | {parts} | {task.instruction} |")
    lines += ["", "## Sizes", *_UVRB_COUNTS.splitlines()]
    for split, rows in sets.items():
        lines += ["", f"### {split}", "", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
        lines += [f"| {' | '.join(str(row[column]) for column in _COLUMNS)} |" for row in rows]
    return "\n".join([*lines, *_UVRB_LIMITS.splitlines()]) + "\n"


def _uvrb_configs(folder: Path) -> Iterable[str]:
    """The default configuration and, for each set, itself and its tables; media are stored once."""
    every = {split: [f"{task.slug}-queries/{split}.parquet" for task in SETS.values()] for split in SPLITS}
    yield from _config(folder, "default", every, default=True)
    for task in SETS.values():
        own = {split: [f"{task.slug}-queries/{split}.parquet"] for split in SPLITS}
        yield from _config(folder, task.slug, own)
        for table in TABLES:
            if table == "top_ranked" and task.pool_size is None:
                continue
            owner = CORPUS_OF.get(task.name, task.slug) if table == "corpus" else task.slug
            files = {split: [f"{owner}-{table}/{split}.parquet"] for split in SPLITS}
            # MTEB puts a column named instruction into the query's text, and refuses null among the texts
            columns = ("id", *task.query_modalities) if table == "queries" else None
            yield from _config(folder, f"{task.slug}-{table}", files, columns=columns)


def _config(
    folder: Path,
    name: str,
    files: Mapping[str, Sequence[str]],
    *,
    columns: Sequence[str] | None = None,
    default: bool = False,
) -> list[str]:
    """One configuration: the patterns of its files by split, and the columns that it shows of them (None: all).

    Its description is a digest of its files: `datasets` keeps what it has read under the folder's name and the
    configuration, so that without it another folder of the same name would give this one's rows.
    """
    digest = blake2b(digest_size=8)
    for path in sorted(found for patterns in files.values() for pattern in patterns for found in folder.glob(pattern)):
        stat = path.stat()
        digest.update(_file_digest(path, stat.st_size, stat.st_mtime_ns))
    lines = [f"- config_name: {name}", f'  description: "blake2b {digest.hexdigest()}"']
    lines += ["  default: true"] if default else []
    lines += [f"  columns: [{', '.join(columns)}]"] if columns else []
    lines += ["  data_files:"]
    for split, patterns in files.items():
        lines += [f"  - split: {split}"]
        lines += (
            [f"    path: {patterns[0]}"] if len(patterns) == 1 else ["    path:", *(f"    - {p}" for p in patterns)]
        )
    return lines


@lru_cache(maxsize=1024)
def _file_digest(path: Path, size: int, changed: int) -> bytes:
    """Of one file; several configurations read the same."""
    return blake2b(path.read_bytes(), digest_size=16).digest()
