"""A benchmark report as Markdown and as a table for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from gve.eval.averages import displayed, round_half_up

_HEADER = ("set", "abilities", "metric", "score", "SE", "chance", "queries", "candidates", "above chance")
_SUMMARY_HEADER = ("ability", "score", "SE", "chance", "above chance")
_NOTE = (
    "SE is the standard error over queries. Above chance: the score exceeds chance by more than two standard errors, "
    "the larger of the score's and of chance's. In group: the query is ranked among near-identical videos only."
)


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: sets, then abilities and averages.

    Args:
        report: What `run_benchmark` returned or the JSON file holds.

    Returns:
        Two tables under headings.
    """
    source = f"`{report['source']}`, split `{report['split']}`"
    title = f"UVRB scores of `{report['model']}`" if report.get("model") else "UVRB scores"
    return "\n\n".join(
        [
            f"## {title}",
            f"Data: {source}. Scores in 0..1.",
            _markdown_table(_HEADER, _set_rows(report)),
            _NOTE,
            "### Abilities and averages",
            _markdown_table(_SUMMARY_HEADER, _summary_rows(report)),
            "Rounded half up to three decimals at every level, as in the paper's tables; a dash marks missing sets.\n",
        ]
    )


def to_table(report: Mapping[str, Any]) -> str:
    """The report as aligned text.

    Args:
        report: What `run_benchmark` returned or the JSON file holds.

    Returns:
        Lines that end in a newline.
    """
    return _aligned(_HEADER, _set_rows(report)) + "\n" + _aligned(_SUMMARY_HEADER, _summary_rows(report))


def _set_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a set, and one more where members of a group were told apart."""
    rows = []
    for name, entry in report["sets"].items():
        rows.append((name, " ".join(entry["abilities"]), *_cells(entry, entry["num_candidates"])))
        group = entry["in_group"]
        if group is not None:
            rows.append((f"{name} in group", "", *_cells(group, group["group_size"])))
    return rows


def _cells(entry: Mapping[str, Any], candidates: float) -> tuple[str, ...]:
    """The columns from metric on."""
    return (
        entry["metric"],
        round_half_up(entry["score"]),
        round_half_up(entry["standard_error"]),
        round_half_up(entry["chance"]),
        str(entry["num_queries"]),
        f"{candidates:g}",
        "yes" if entry["above_chance"] else "no",
    )


def _summary_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row an ability and average, rounded as the paper rounds."""
    scores, chances = displayed(report, "score"), displayed(report, "chance")
    rows = []
    for name, entry in {**report["abilities"], **report["averages"]}.items():
        score, chance = scores[name], chances[name]
        if entry is None or score is None or chance is None:
            rows.append((name, "-", "-", "-", "-"))
            continue
        error = round_half_up(entry["standard_error"])
        rows.append((name, score, error, chance, "yes" if entry["above_chance"] else "no"))
    return rows


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, *rows):
        padded = [
            cell.rjust(width) if title in ("score", "SE", "chance", "queries", "candidates") else cell.ljust(width)
            for title, cell, width in zip(header, cells, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"
