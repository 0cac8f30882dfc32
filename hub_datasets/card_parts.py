"""Parts that the cards of several data folders share: columns, sources with their licences, slips of the paper."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import Features, Image, List, Value, Video

from gve.hub_datasets.uvrb.tasks import ABILITIES, RetrievalSet

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Rows below a bound, and the Hub's word for so many."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table.

    Args:
        head: Names of the columns.
        rows: Their cells.

    Returns:
        The lines; where there is no row, one that says so.
    """
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    body = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return lines + (body or ["|" + " none |" + " |" * (len(head) - 1)])


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows.

    Args:
        rows: The number.

    Returns:
        Such as "1K<n<10K".
    """
    return next((word for bound, word in SIZES if rows < bound), "n>1M")


def feature_table(features: Features, meanings: Mapping[str, str]) -> list[str]:
    """Columns of a data set with their types and meanings.

    Args:
        features: Its columns.
        meanings: What each means, without exception and without others.

    Returns:
        Lines of a table.

    Raises:
        ValueError: If a column has no meaning, or a meaning no column.
    """
    if odd := sorted(set(features) ^ set(meanings)):
        raise ValueError(
            f"meanings: {', '.join(odd)} stands on one side only; every column with its meaning is accepted; name it"
        )
    return table(
        ("column", "type", "meaning"), ((f"`{name}`", _type(kind), meanings[name]) for name, kind in features.items())
    )


def _type(feature: Any) -> str:
    """A column's type in words."""
    if isinstance(feature, Value):
        return feature.dtype
    if isinstance(feature, Image | Video):
        return f"{type(feature).__name__.lower()}{'' if feature.decode else ' file, not decoded'}"
    if isinstance(feature, List):
        return f"list of {_type(feature.feature)}"
    return "{" + ", ".join(feature) + "}"


def source_table(tasks: Iterable[RetrievalSet]) -> list[str]:
    """The sources of sets of UVRB, each with its licences and what may be hosted again.

    Args:
        tasks: The sets.

    Returns:
        Lines of a table, one row a source.
    """
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
    """What the paper's description of the benchmark says and its numbers do not.

    Args:
        tasks: The sets that a card is about.

    Returns:
        Lines of a list.
    """
    tasks = list(tasks)
    pooled = [task for task in tasks if task.pool_size is not None]
    counts = f"{len(ABILITIES['FG'])} and {len(ABILITIES['TXT'])}"
    lines = [
        f"- The paper calls FG and TXT averages over their sets ({counts}); its numbers are the mean of S, T and PR,"
    ]
    lines += ["  and of CG, FG and LC."]
    if pooled:
        sizes = ", ".join(f"{task.name} {task.official_corpus}" for task in pooled)
        lines.append(
            f"- Its Table 4 gives as size of a corpus what is the number of candidates of each query: {sizes}."
        )
    lines.append(
        "- `gve analyze` computes its tables again and lists every cell that does not follow from the others."
    )
    return lines
