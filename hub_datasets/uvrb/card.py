"""The README of converted archives: the configurations that `load_dataset`, our loader and MTEB read."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gve.hub_datasets.card_parts import config_lines, file_digest, slip_lines, source_table
from gve.hub_datasets.uvrb.shards import ConvertedSet

SPLIT = "test"

_HEAD = """---
pretty_name: UVRB, converted
license: other
license_name: those-of-the-sources
language: [en]
task_categories: [feature-extraction]
tags: [video-retrieval, composed-retrieval, benchmark]
viewer: false
configs:"""

_TEXT = """---

# UVRB, converted from a local copy of the archives

For local use: the clips of most sets may not be published again (`source` of each set in the table of
`gve.hub_datasets.uvrb.tasks` says which and why). A video is a file of a few evenly spread frames, in
`video["bytes"]`, with their true times in the file and in the column `timestamps` of `<set>-times`.

```python
from datasets import load_dataset

queries = load_dataset("FOLDER", "msrvtt", split="test")  # with instruction, positives and candidates
videos = load_dataset("FOLDER", "msrvtt-corpus", split="test")
times = load_dataset("FOLDER", "msrvtt-times", split="test")
```

| set | queries | candidates | from |
|---|---|---|---|"""

_DECONTAMINATION = """Fingerprint this folder with `gve synth fingerprint` before you build training data: V-SynFlow's gate then drops every
video and text that is in here too."""


def archive_card(folder: Path, sets: Sequence[ConvertedSet]) -> str:
    """README of a converted folder: front matter, then the stored sets."""

    def config(name: str, files: Iterable[Path], **options: Any) -> list[str]:
        names = [path.relative_to(folder).as_posix() for path in files]
        return config_lines(folder, name, {SPLIT: names}, digest=_digest, **options)

    lines = [_HEAD]
    if sets:
        every = [shard.path for one in sets for shard in one.queries]
        lines += config("default", every, default=True)
    for one in sets:
        task, slug = one.archive.task, one.archive.task.slug
        queries, videos = [shard.path for shard in one.queries], [shard.path for shard in one.corpus]
        lines += config(slug, queries)
        # MTEB puts a column named instruction into the query's text, and refuses null among the texts
        lines += config(f"{slug}-queries", queries, columns=("id", *task.query_modalities))
        lines += config(f"{slug}-corpus", videos, columns=("id", "video"))
        lines += config(f"{slug}-times", videos, columns=("id", "timestamps", "duration"))
        for table in ("qrels", "top_ranked") if one.archive.pools is not None else ("qrels",):
            lines += config(f"{slug}-{table}", [folder / f"{slug}-{table}" / f"{SPLIT}.parquet"])
    lines.append(_TEXT)
    for one in sets:
        task, archive = one.archive.task, one.archive
        size = len(archive.corpus) if task.pool_size is None else f"{task.pool_size} a query"
        lines.append(f"| `{task.slug}` | {len(archive.queries)} | {size} | {task.source.name} |")
    tasks = [one.archive.task for one in sets]
    lines += ["", "## Licences", "", *source_table(tasks), "", "## Known slips", "", *slip_lines(tasks)]
    lines += ["", "## Decontamination", "", *_DECONTAMINATION.splitlines()]
    return "\n".join(lines) + "\n"


def _digest(path: Path) -> bytes:
    """File digest; video shards skip the read, since their names already hold a content digest."""
    return file_digest(path) if path.stem == SPLIT else f"{path.name}|{path.stat().st_size}".encode()
