"""README files of the data folders: the configurations that `load_dataset` reads, and their content."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gve.hub_datasets.card_parts import config_lines, feature_table, size_category, slip_lines, source_table
from gve.hub_datasets.card_parts import table as markdown_table
from gve.hub_datasets.schema import COUNTERFACTUALS, pair_features
from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.benchmark import TABLES, table_features
from gve.hub_datasets.world.sets import CORPUS_OF
from gve.hub_datasets.world.spec import ACTIONS, COLORS, SHAPES, SPLITS, held_out, held_out_action

_COLUMNS = ("name", "metric", "queries", "candidates", "positives", "chance")

_HEAD = """---
pretty_name: {name} of the rendered world
license: apache-2.0
language: [en]
task_categories: [feature-extraction]
tags: [video-retrieval, composed-retrieval, {tags}synthetic]
size_categories: ["{size}"]
configs:"""
_COLUMN_MEANINGS = {
    "id": "of the query, unique within its set",
    "set": "name of the set",
    "instruction": "the set's instruction for queries",
    "text": "the query's words, or null",
    "image": "the query's picture, or null",
    "video": "the query's clip, or null",
    "positives": "ids of the corpus that answer it",
    "candidates": "ids that it is ranked against; null: the whole corpus",
}
_PAIR_MEANINGS = {
    "id": "unique within a task",
    "task": "one of seven; `t2v` is text to video",
    "kind": "what its words describe, such as spatial",
    "instruction": "the instruction of the query",
    "query": "words, picture and clip; absent parts are null",
    "target": "the answer, likewise",
    "negatives": "near-identical targets that do not",
    "group": "joins rows of near-identical targets; empty elsewhere",
    "query_facts": "ids of the statements that the query makes",
    "target_facts": "ids of the statements true of the target: a target with all of a query's answers it",
}

_MADE = """
A program draws the truth of each clip (two coloured shapes, where they are, what each does in either half, camera,
scene, look), renders it, and writes its words by a grammar from the same truth, without models or people. The same seed and
versions give the same bytes."""

_COUNTERFACTUALS = """Rows of the sources named `counterfactual` come in twos: two clips that differ in one thing, `kind`, and the
two texts, each true of its own clip and false of the other, whose clip or text is the row's hard negative."""

_LICENCE = """
All under the licence above. Every video and every text was generated for this set."""

_UVRD_USE = """
## Use

```python
from datasets import load_dataset

pairs = load_dataset("org/uvrd", "{task}", split="train")
```
"""

_UVRB_USE = """
# UVRB of the rendered world

The sixteen sets of the universal video retrieval benchmark (arXiv 2510.27571) in miniature: the same names, instructions,
metrics, kinds of query and candidate pools, on videos drawn by a program, so that every positive is exact. A controlled
diagnostic, not the paper's data: its scores do not compare with the paper's. Rendered with {origin}.

## Use

```python
from datasets import load_dataset

queries = load_dataset("org/uvrb", split="unseen")  # all sets: every query with its instruction and positives
queries = load_dataset("org/uvrb", "msrvtt", split="unseen")  # one set
videos = load_dataset("org/uvrb", "msrvtt-corpus", split="unseen")  # what its positives name
```

The split `seen` uses the combinations of colour and shape that training shows, `unseen` only held-out ones. Images are
decoded when a row is read; videos are MP4 files in `video["bytes"]`, so reading a row needs no decoder. MTEB's own
loader reads the four configurations of each set.

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

_LIMITS = """Clips of 48 x 48 pixels with 48 kinds of coloured things, ten actions and a grammar instead of people's words: a
model that is good here may be bad on real videos, and the reverse."""


def uvrd_card(folder: Path, counts: Mapping[str, int], origin: str) -> str:
    """README of the training pairs, one configuration a task."""
    lines = [_HEAD.format(name="UVRD", tags="", size=size_category(sum(counts.values())))]
    for task in counts:
        lines += config_lines(folder, task, {"train": [f"{task}/train-*.parquet"]})
    lines += ["---", "", "# UVRD of the rendered world", ""]
    lines += [f"Pairs for training a video embedder, with exact ground truth, rendered with {origin}."]
    lines += [_UVRD_USE.format(task=next(iter(counts))), "", "One configuration a task:", ""]
    lines += markdown_table(("task", "pairs"), counts.items())
    lines += ["", *_COUNTERFACTUALS.splitlines()] if set(counts) & set(COUNTERFACTUALS) else []
    lines += ["", "## Columns", "", *feature_table(pair_features(), _PAIR_MEANINGS)]
    lines += ["", "## How it was made", _MADE, "", "## Licence", _LICENCE]
    lines += ["", "## Decontamination", "", *_held_out(), "", "## Limits", "", _LIMITS]
    return "\n".join(lines) + "\n"


def uvrb_card(folder: Path, sets: Mapping[str, Sequence[Mapping[str, Any]]], origin: str) -> str:
    """README of the benchmark: configurations, use, and tables of the sets."""
    columns = ", ".join(f"`{column}`" for column in table_features("queries"))
    size = size_category(sum(row["queries"] for rows in sets.values() for row in rows))
    lines = [_HEAD.format(name="UVRB", tags="benchmark, mteb, ", size=size), *_uvrb_configs(folder), "---"]
    lines.append(_UVRB_USE.format(origin=origin, columns=columns))
    for task in SETS.values():
        parts = " + ".join(task.query_modalities)
        lines.append(f"| `{task.slug}` | {', '.join(task.abilities)} | {parts} | {task.instruction} |")
    lines += ["", "## Sizes", _UVRB_COUNTS]
    for split, rows in sets.items():
        lines += [
            "",
            f"### {split}",
            "",
            *markdown_table(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows)),
        ]
    lines += ["", "## Columns of a query", "", *feature_table(table_features("queries"), _COLUMN_MEANINGS)]
    lines += ["", "## How it was made", _MADE, "", "## Licences", _LICENCE, ""]
    lines += [
        "The sets have the names of these sources and contain nothing from them. The sources' own terms are:",
        "",
    ]
    lines += [*source_table(SETS.values()), "", "## Decontamination", "", *_held_out()]
    lines += [
        "",
        "## Known slips",
        "",
        "Where the paper contradicts itself, this set follows its numbers, not its words:",
        "",
    ]
    return "\n".join([*lines, *slip_lines(SETS.values()), "", "## Limits", "", _LIMITS]) + "\n"


def _held_out() -> list[str]:
    """How training and benchmark are kept apart, counted from the rule itself."""
    things = [(color, shape) for color in COLORS for shape in SHAPES]
    acts = [(shape, action) for shape in SHAPES for action in ACTIONS]
    kept = sum(held_out(*one) for one in things), sum(held_out_action(*one) for one in acts)
    return [
        "By construction, not by a filter. Training pairs and the split `seen` are drawn from one distribution with",
        f"other random numbers. Of the {len(things)} combinations of colour and shape, {kept[0]} are in the split `unseen` alone, and of",
        f"the {len(acts)} of shape and action, {kept[1]}: no training pair shows them.",
    ]


def _uvrb_configs(folder: Path) -> Iterable[str]:
    """The default configuration, then each set and its tables; media are stored once."""
    every = {split: [f"{task.slug}-queries/{split}.parquet" for task in SETS.values()] for split in SPLITS}
    yield from config_lines(folder, "default", every, default=True)
    for task in SETS.values():
        own = {split: [f"{task.slug}-queries/{split}.parquet"] for split in SPLITS}
        yield from config_lines(folder, task.slug, own)
        for table in TABLES:
            if table == "top_ranked" and task.pool_size is None:
                continue
            owner = CORPUS_OF.get(task.name, task.slug) if table == "corpus" else task.slug
            files = {split: [f"{owner}-{table}/{split}.parquet"] for split in SPLITS}
            # MTEB puts a column named instruction into the query's text, and refuses null among the texts
            columns = ("id", *task.query_modalities) if table == "queries" else None
            yield from config_lines(folder, f"{task.slug}-{table}", files, columns=columns)
