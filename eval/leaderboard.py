"""A page of models beside the paper's sixteen, as Markdown and as one HTML file without scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from gve.eval.analysis import PAPER, paper_models, report_model
from gve.eval.averages import AVERAGE_NAMES, round_half_up
from gve.eval.media_encoder import NUM_FRAMES
from gve.eval.report import read_report
from gve.eval.tables import markdown_table
from gve.hub_datasets.pages import html_page, html_picture
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

Interval = tuple[float, float]

TITLE = "UVRB leaderboard"
COLUMNS = ((*AVERAGE_NAMES, *ABILITY_NAMES), tuple(SETS))
"""Columns of a section's two tables."""
PAPERS_SETTINGS: dict[str, Any] = {
    "num_frames": NUM_FRAMES,
    "frame_tokens": 200,
    "instructions": "uvrb",
    "videos": None,
}
"""The paper's, section 4.1, as a report names them."""
_ABOUT = (
    "Scores in 0..1, rounded half up to three decimals at every level as in the paper; sorted by AVG-D. In brackets the "
    "95 % interval over queries; the paper gives none. A dash marks missing sets, (own) a row from a report, and a number "
    "a setting that is not the paper's:"
)
_STYLE = (
    "body{margin:2rem}"
    "th,td{padding:.3rem .5rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:inherit}"
    "thead,tr{background:#fff}tr.own{background:#eef4fb}small{color:#666;display:block}"
    "div.wide{overflow-x:auto;margin-bottom:1.5rem}img{max-width:32rem;width:100%}"
)


@dataclass(frozen=True)
class Row:
    """One model."""

    name: str
    source: str  # the paper, or the report's data if they are not the paper's
    values: dict[str, float | None]
    intervals: dict[str, Interval] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # settings that differ from the paper's
    own: bool = False


def build_rows(paths: Sequence[Path]) -> list[Row]:
    """The paper's models and the reports', best AVG-D first; ValueError for a file that is not a report on UVRB."""
    rows = [Row(model.name, PAPER, model.values("paper")) for model in paper_models()]
    for path in paths:
        model, report = report_model(path, "MLLM"), read_report(path)
        entries = {**report["sets"], **report["abilities"], **report["averages"]}
        intervals = {
            name: tuple(entry["interval"]) for name, entry in entries.items() if entry and "interval" in entry
        }
        notes = differing(report)
        source = PAPER if model.official else model.source
        rows.append(Row(model.name, source, model.values("paper"), intervals, tuple(notes), own=True))
    return sorted(rows, key=lambda row: -(row.values["AVG-D"] or 0))


def differing(report: Mapping[str, Any]) -> list[str]:
    """The settings of a report that are not the paper's, in words."""
    if "settings" not in report:
        return ["settings unknown"]
    settings = report["settings"]
    return [
        f"{key} {settings.get(key) or 'unknown'} (paper: {expected or 'whole videos'})"
        for key, expected in PAPERS_SETTINGS.items()
        if settings.get(key) != expected
    ]


def to_markdown(rows: Sequence[Row]) -> str:
    """The page as Markdown."""
    notes = _footnotes(rows)
    parts = [f"# {TITLE}", _ABOUT, "\n".join(f"{number}. {note}" for note, number in notes.items())]
    for source, group in _sections(rows).items():
        parts.append(f"## {_heading(source)}")
        for columns in COLUMNS:
            body = [[_label(row, notes), *(_cell(row, name) for name in columns)] for row in group]
            parts.append(markdown_table(["model", *columns], body))
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(rows: Sequence[Row], radar: bytes | None = None) -> str:
    """The page as one HTML file that loads nothing; `radar` is a PNG file of the reports' abilities."""
    notes = _footnotes(rows)
    parts = [f"<h1>{TITLE}</h1>", f"<p>{escape(_ABOUT)}</p>"]
    parts.append(f"<ol>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ol>" if notes else "")
    if radar is not None:
        parts.append(html_picture(radar, "Abilities of the reports", "image/png"))
    for source, group in _sections(rows).items():
        parts.append(f"<h2>{escape(_heading(source))}</h2>")
        parts += [_html_table(group, columns, notes) for columns in COLUMNS]
    return html_page(TITLE, parts, _STYLE)


def _html_table(rows: Sequence[Row], columns: Sequence[str], notes: Mapping[str, int]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("model", *columns))
    lines = []
    for row in rows:
        own = ' class="own"' if row.own else ""
        cells = [f"<td>{escape(_label(row, notes))}</td>"]
        for name in columns:
            score, _, interval = _cell(row, name).partition(" ")
            cells.append(f"<td>{score}{f'<small>{interval}</small>' if interval else ''}</td>")
        lines.append(f"<tr{own}>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _sections(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by data, the reports' own data first; scores compare within a section alone."""
    sources = sorted(dict.fromkeys(row.source for row in rows), key=lambda source: source == PAPER)
    return {source: [row for row in rows if row.source == source] for source in sources}


def _heading(source: str) -> str:
    return "The paper's data" if source == PAPER else f"Other data, not comparable with the paper's: {source}"


def _footnotes(rows: Sequence[Row]) -> dict[str, int]:
    notes = dict.fromkeys(note for row in rows for note in row.notes)
    return {note: number for number, note in enumerate(notes, 1)}


def _label(row: Row, notes: Mapping[str, int]) -> str:
    marks = "".join(f" [{notes[note]}]" for note in row.notes)
    return f"{row.name}{' (own)' if row.own else ''}{marks}"


def _cell(row: Row, name: str) -> str:
    value = row.values[name]
    if value is None:
        return "-"
    ends = row.intervals.get(name)
    return round_half_up(value) + (f" [{'-'.join(map(round_half_up, ends))}]" if ends else "")
