"""Two reports on the same queries, compared by a paired bootstrap (Efron 1979).

Shapes: Q queries, R replicates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.averages import aggregate, aggregate_replicates, round_half_up
from gve.eval.report import read_report
from gve.eval.scores import SAMPLES, set_replicates
from gve.eval.tables import aligned_table
from gve.eval.video_retrieval.intervals import interval

HEADER = ("", "first", "second", "difference", "95 %", "p")
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


def comparison_table(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """`compare_reports` as aligned text."""
    rows = [
        (
            row["name"],
            round_half_up(row["first"]),
            round_half_up(row["second"]),
            _signed(row["difference"]),
            " .. ".join(map(_signed, row["interval"])),
            f"{row['p_value']:.4f}",
        )
        for row in compare_reports(first, second)
    ]
    names = "".join(f"{place}  {_named(report)}\n" for place, report in (("first ", first), ("second", second)))
    return f"{names}\n{aligned_table(HEADER, rows, numbers=HEADER[1:])}"


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
