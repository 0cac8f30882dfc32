"""The README of converted archives: configurations that `load_dataset`, our loader and MTEB read."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gve.hub_datasets.card_parts import slip_lines, source_table
from gve.hub_datasets.uvrb.archive import Archive
from gve.hub_datasets.uvrb.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator

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

# UVRB, converted from one's own copy of the archives

For use where it was made: the clips of most sets may not be published again (`source` of each set in the table of
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

_DECONTAMINATION = """Make fingerprints of this folder with `gve synth fingerprint` before training data are built: V-SynFlow's gate then
drops every video and text that stands here too."""


def archive_card(
    folder: Path,
    archives: Sequence[Archive],
    corpora: Mapping[str, Sequence[Shard]],
    queries: Mapping[str, Sequence[Shard]],
) -> str:
    """The README of a converted folder.

    Args:
        folder: Where its files lie.
        archives: The sets that are complete.
        corpora: Their files of videos.
        queries: Their files of queries.

    Returns:
        Its text: front matter, then a description.
    """
    lines = [_HEAD]
    every = [shard for archive in archives for shard in queries[archive.task.name]]
    if every:
        lines += _config(folder, "default", [shard.path for shard in every], default=True)
    for archive in archives:
        task, slug = archive.task, archive.task.slug
        asked = [shard.path for shard in queries[task.name]]
        videos = [shard.path for shard in corpora[task.name]]
        lines += _config(folder, slug, asked)
        # MTEB puts a column named instruction into the query's text, and refuses null among the texts
        lines += _config(folder, f"{slug}-queries", asked, columns=("id", *task.query_modalities))
        lines += _config(folder, f"{slug}-corpus", videos, columns=("id", "video"))
        lines += _config(folder, f"{slug}-times", videos, columns=("id", "timestamps", "duration"))
        tables = ("qrels", "top_ranked") if archive.pools is not None else ("qrels",)
        for table in tables:
            lines += _config(folder, f"{slug}-{table}", [folder / f"{slug}-{table}" / f"{SPLIT}.parquet"])
    lines.append(_TEXT)
    for archive in archives:
        task = archive.task
        size = len(archive.corpus) if task.pool_size is None else f"{task.pool_size} a query"
        lines.append(f"| `{task.slug}` | {len(archive.queries)} | {size} | {task.source.name} |")
    tasks = [archive.task for archive in archives]
    lines += ["", "## Licences", "", *source_table(tasks), "", "## Known slips", "", *slip_lines(tasks)]
    lines += ["", "## Decontamination", "", *_DECONTAMINATION.splitlines()]
    return "\n".join(lines) + "\n"


def _config(
    folder: Path, name: str, files: Sequence[Path], *, columns: Sequence[str] | None = None, default: bool = False
) -> "Iterator[str]":
    """One configuration; its description is a digest of its files, for `datasets` keeps what it has read by name."""
    digest = hashlib.blake2b(digest_size=8)
    for path in files:  # a file of videos has its content in its name
        told = path.read_bytes() if path.stem == SPLIT else f"{path.name}|{path.stat().st_size}".encode()
        digest.update(told)
    yield f"- config_name: {name}"
    yield f'  description: "blake2b {digest.hexdigest()}"'
    if default:
        yield "  default: true"
    if columns:
        yield f"  columns: [{', '.join(columns)}]"
    yield "  data_files:"
    yield f"  - split: {SPLIT}"
    yield "    path:"
    yield from (f"    - {path.relative_to(folder).as_posix()}" for path in files)
