"""Reports on the same queries, each compared with the first by a paired bootstrap (Efron 1979).

Shapes: Q queries, R replicates.
"""

import logging
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.averages import AVERAGE_NAMES, aggregate, aggregate_replicates, round_half_up
from gve.eval.charts import draw_radars
from gve.eval.report import read_report
from gve.eval.scores import SAMPLES, set_replicates
from gve.eval.tables import aligned_table, markdown_table
from gve.eval.video_retrieval.intervals import interval
from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

logger = logging.getLogger(__name__)

_LETTERS = string.ascii_uppercase
_NEEDED = ("metric", "score", "per_query", "queries_digest")


def read_comparable(path: Path) -> dict[str, Any]:
    """Read a report that holds per-query scores; ValueError for any other file."""
    report = read_report(path)
    for name, entry in report["sets"].items():
        lacking = [key for key in _NEEDED if key not in entry]
        if lacking:
            raise ValueError(
                f"--compare: {name} of {str(path)!r} has no {', '.join(lacking)}; scores by query are needed. Run "
                "`gve eval` again."
            )
    return report


def compare_reports(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Differences of the sets that both reports hold, and of the abilities and averages that follow.

    Returns:
        Rows of name, first, second, difference (second minus first), its 95 % interval and p-value.

    Raises:
        ValueError: If they share no set, or a shared one has other queries or another metric.
    """
    shared = [name for name in first["sets"] if name in second["sets"]]
    if not shared:
        raise ValueError("--compare: the reports share no set. Score both models on the same sets.")
    drawn, values = {}, {}
    for name in shared:
        before, after = first["sets"][name], second["sets"][name]
        for key in ("metric", "queries_digest"):
            if before[key] != after[key]:
                raise ValueError(
                    f"--compare: {name} has {key} {before[key]!r} and {after[key]!r}. Score both models on the same data."
                )
        differences = np.array(after["per_query"]) - np.array(before["per_query"])
        drawn[name] = set_replicates(name, differences)
        values[name] = (before["score"], after["score"])
    rows = [_row(name, *values[name], drawn[name]) for name in shared]
    one, two = (aggregate({name: pair[side] for name, pair in values.items()}) for side in (0, 1))
    for name, replicates in aggregate_replicates(drawn).items():
        before, after = one[name], two[name]
        if replicates is not None and before is not None and after is not None:
            rows.append(_row(name, before, after, replicates))
    return rows


def comparison_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Scores of all reports side by side, and each one's difference from the first, as aligned text."""
    header, rows = _side_by_side(reports)
    names = "".join(f"{letter}  {_named(report)}\n" for letter, report in zip(_LETTERS, reports, strict=False))
    return f"{names}\n{aligned_table(header, rows, numbers=header[1:])}"


def write_comparison(reports: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write comparison.md, and radar.png where all reports have three abilities in common."""
    header, rows = _side_by_side(reports)
    names = "\n".join(f"- {letter}: {_named(report)}" for letter, report in zip(_LETTERS, reports, strict=False))
    write_atomic(folder / "comparison.md", f"{names}\n\n{markdown_table(header, rows)}\n".encode())
    labels = [f"{letter}  {_named(report)}" for letter, report in zip(_LETTERS, reports, strict=False)]
    try:
        draw_radars(dict(zip(labels, reports, strict=True)), folder / "radar.png")
    except ValueError as error:
        logger.info("%s", error)


def _side_by_side(reports: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: every set, ability and average that a report has; a dash where another lacks it."""
    if len(reports) > len(_LETTERS):
        raise ValueError(f"--compare: got {len(reports)} reports; at most {len(_LETTERS)} fit. Name fewer.")
    first, *others = reports
    pairs = [{row["name"]: row for row in compare_reports(first, other)} for other in others]
    header = ["", *_LETTERS[: len(reports)]]
    for letter in _LETTERS[1 : len(reports)]:
        header += [f"{letter} - A", "95 %", "p"]
    scores = []
    for report in reports:
        values = {name: entry["score"] for name, entry in report["sets"].items()}
        scores.append({**values, **aggregate({name: values[name] for name in SETS if name in values})})
    named = dict.fromkeys(name for report in reports for name in report["sets"])
    rows = []
    for name in (*named, *ABILITY_NAMES, *AVERAGE_NAMES):
        found = [values.get(name) for values in scores]
        if any(value is not None for value in found):
            cells = ["-" if value is None else round_half_up(value) for value in found]
            rows.append((name, *cells, *(cell for pair in pairs for cell in _difference(pair.get(name)))))
    return tuple(header), rows


def _difference(row: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if row is None:
        return "-", "-", "-"
    return _signed(row["difference"]), " .. ".join(map(_signed, row["interval"])), f"{row['p_value']:.4f}"


def _row(name: str, before: float, after: float, drawn: np.ndarray) -> dict[str, Any]:
    """One line of the comparison; `drawn` are replicates (R,) of the difference."""
    value = after - before
    extreme = np.count_nonzero(np.abs(drawn - value) >= abs(value) - 1e-9)
    return {
        "name": name,
        "first": before,
        "second": after,
        "difference": value,
        "interval": list(interval(drawn)),
        "p_value": (extreme + 1) / (SAMPLES + 1),
    }


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no minus before zero


def _named(report: Mapping[str, Any]) -> str:
    settings = report.get("settings", {})
    details = ", ".join(f"{key} {settings[key]}" for key in ("num_frames", "frame_tokens") if settings.get(key))
    return f"{report.get('model') or 'unnamed'}" + (f" ({details})" if details else "")
