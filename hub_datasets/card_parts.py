"""What the cards of several data folders share: configurations, columns, sources with licences, slips of the paper."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value, Video

from gve.hub_datasets.uvrb.tasks import ABILITIES, RetrievalSet

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Upper bound of rows, and the Hub's word for fewer."""


def file_digest(path: Path) -> bytes:
    """Digest of a file's content, read once although several configurations share it."""
    stat = path.stat()
    return _content_digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _content_digest(path: Path, size: int, changed: int) -> bytes:
    return blake2b(path.read_bytes(), digest_size=16).digest()


def config_lines(
    folder: Path,
    name: str,
    files: Mapping[str, Sequence[str]],
    *,
    columns: Sequence[str] | None = None,
    default: bool = False,
    digest: Callable[[Path], bytes] = file_digest,
) -> list[str]:
    """Front matter of one configuration, from patterns of files by split.

    The description is a digest of the files. `datasets` caches by folder name and configuration, so without it another
    folder of the same name would get this one's rows.
    """
    found = sorted(path for patterns in files.values() for pattern in patterns for path in folder.glob(pattern))
    whole = blake2b(b"".join(map(digest, found)), digest_size=8).hexdigest()
    lines = [f"- config_name: {name}", f'  description: "blake2b {whole}"']
    lines += ["  default: true"] if default else []
    lines += [f"  columns: [{', '.join(columns)}]"] if columns else []
    lines += ["  data_files:"]
    for split, patterns in files.items():
        paths = [f" {patterns[0]}"] if len(patterns) == 1 else ["", *(f"    - {pattern}" for pattern in patterns)]
        lines += [f"  - split: {split}", f"    path:{paths[0]}", *paths[1:]]
    return lines


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table; without rows, one line that says none."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    body = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return lines + (body or ["|" + " none |" + " |" * (len(head) - 1)])


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows, such as "1K<n<10K"."""
    return next((word for bound, word in SIZES if rows < bound), "n>1M")


def feature_table(features: Features, meanings: Mapping[str, str]) -> list[str]:
    """Columns of a data set with types and meanings; ValueError if a column lacks a meaning or a meaning a column."""
    if odd := sorted(set(features) ^ set(meanings)):
        raise ValueError(
            f"meanings must name every column and nothing else, got {', '.join(odd)} on one side only. Add or remove it."
        )
    return table(
        ("column", "type", "meaning"), ((f"`{name}`", _type(kind), meanings[name]) for name, kind in features.items())
    )


def _type(feature: Any) -> str:
    if isinstance(feature, Value):
        return feature.dtype
    if isinstance(feature, Image | Video):
        return f"{type(feature).__name__.lower()}{'' if feature.decode else ' file, not decoded'}"
    if isinstance(feature, List):
        return f"list of {_type(feature.feature)}"
    return "{" + ", ".join(feature) + "}"


def source_table(tasks: Iterable[RetrievalSet]) -> list[str]:
    """The sources of UVRB sets, one row each, with licences and what may be hosted again."""
    sources: dict[str, tuple[RetrievalSet, list[str]]] = {}
    for task in tasks:
        sources.setdefault(task.source.name, (task, []))[1].append(task.name)
    rows = (
        (
            f"[{task.source.name}]({task.source.homepage})",
            ", ".join(names),
            task.source.annotations_licence,
            task.source.videos_licence,
            f"{task.source.may_rehost}: {task.source.reason}",
        )
        for task, names in sources.values()
    )
    return table(("source", "sets", "licence of the texts", "licence of the videos", "may be hosted again"), rows)


def slip_lines(tasks: Iterable[RetrievalSet]) -> list[str]:
    """Where the paper's description of these sets contradicts its own numbers."""
    tasks = list(tasks)
    pooled = [task for task in tasks if task.pool_size is not None]
    counts = f"{len(ABILITIES['FG'])} and {len(ABILITIES['TXT'])}"
    lines = [
        f"- The paper calls FG and TXT averages over their sets ({counts}); its numbers are the mean of S, T and PR,",
        "  and of CG, FG and LC.",
    ]
    if pooled:
        sizes = ", ".join(f"{task.name} {task.official_corpus}" for task in pooled)
        lines.append(f"- Its Table 4 gives the number of candidates of each query as the size of a corpus: {sizes}.")
    return [*lines, "- `gve analyze` recomputes its tables and lists every cell that contradicts the others."]
