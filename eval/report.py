"""A benchmark report on disk, as Markdown and as a table for the terminal."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gve.eval.averages import AVERAGE_NAMES, benchmark_name, displayed, round_half_up
from gve.eval.charts import check_drawable, draw_bars, draw_radar, draw_scaling
from gve.eval.moments.options import moment_markdown, moment_table
from gve.eval.tables import aligned_table, markdown_table
from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

logger = logging.getLogger(__name__)

REPORT = "report.json"
_FAMILY = "gve-report/"
_NUMBER_LISTS = re.compile(r"\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]")
_HEADER = ("set", "abilities", "metric", "score", "SE", "95 %", "chance", "queries", "candidates", "above chance")
_SUMMARY_HEADER = ("ability", "score", "SE", "95 %", "chance", "above chance", "plain")
_NUMBERS = ("score", "SE", "95 %", "chance", "queries", "candidates", "plain")
_STAGES_HEADER = ("", "first stage", "both", "difference", "95 %")
_NOTE = (
    "SE is the standard error over queries, 95 % the bootstrap interval over them. Above chance: the score exceeds "
    "chance by more than two standard errors, its own or chance's, whichever is larger. In group: the query is ranked "
    "among near-identical videos only."
)
_RULES = (
    "Rounded half up to three decimals at every level, as in the paper's tables; a dash marks missing sets. FG is the "
    "mean of S, T and PR, and TXT of CG, FG and LC, as the paper's numbers imply; under plain, both are means over "
    "their sets."
)


def read_report(path: Path) -> dict[str, Any]:
    """Read the JSON file or folder of `gve eval --out`; ValueError if it is not a report with sets."""
    path = path / REPORT if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}). Give a report of `gve eval --out`.") from error
    schema = report.get("schema") if isinstance(report, dict) else None
    if not str(schema).startswith(_FAMILY) or not isinstance(report.get("sets"), dict) or not report["sets"]:
        raise ValueError(f"{path}: not a report with sets (schema {schema!r}). Give a report of `gve eval --out`.")
    return report


def write_report(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write report.json, report.md, bars.png, radar.png and, for several settings, scaling.png.

    Returns:
        The files; no radar where fewer than three abilities have all their sets.
    """
    written = [folder / name for name in (REPORT, "report.md", "bars.png")]
    write_atomic(written[0], to_json(report).encode())
    write_atomic(written[1], to_markdown(report).encode())
    if not report["sets"]:  # moments alone
        return written[:2]
    draw_bars(report, written[2])
    try:
        check_drawable(report["abilities"])
    except ValueError as error:
        logger.info("%s", error)
    else:
        written.append(folder / "radar.png")
        draw_radar(report, written[-1])
    if "scaling" in report:
        written.append(folder / "scaling.png")
        draw_scaling(report, written[-1])
    return written


def to_json(report: Mapping[str, Any]) -> str:
    """A report as JSON; lists of numbers, such as scores by query, take one line each."""
    text = json.dumps(report, indent=2, allow_nan=False)
    return _NUMBER_LISTS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def to_markdown(report: Mapping[str, Any]) -> str:
    """A report as Markdown: sets, then any abilities and averages."""
    title = f"{benchmark_name(report) if report['sets'] else 'Moment'} scores" + (
        f" of `{report['model']}`" if report.get("model") else ""
    )
    parts = [f"## {title}", f"Data: `{report['source']}`, split `{report['split']}`. Scores in 0..1."]
    parts += [markdown_table(_HEADER, _set_rows(report)), _NOTE] if report["sets"] else []
    if _has_abilities(report):
        parts += ["### Abilities and averages", markdown_table(_SUMMARY_HEADER, _summary_rows(report)), _RULES]
    if "rerank" in report:
        second = report["rerank"]
        parts += ["### Second stage", _second_stage(second), markdown_table(_STAGES_HEADER, stage_rows(second))]
    if "moments" in report:
        parts += moment_markdown(report["moments"])
    if "left_out" in report:
        parts += ["### Not scored", "\n".join(f"- {name}: {reason}" for name, reason in report["left_out"].items())]
    if "scaling" in report:
        points = report["scaling"]
        parts += ["### Scaling", markdown_table(scaling_header(points), scaling_rows(points))]
    return "\n\n".join([*parts, *_conditions(report)]) + "\n"


def to_table(report: Mapping[str, Any]) -> str:
    """A report as aligned text."""
    parts = [aligned_table(_HEADER, _set_rows(report), numbers=_NUMBERS)] if report["sets"] else []
    if _has_abilities(report):
        parts.append(aligned_table(_SUMMARY_HEADER, _summary_rows(report), numbers=_NUMBERS))
    if "rerank" in report:
        second = report["rerank"]
        table = aligned_table(_STAGES_HEADER, stage_rows(second), numbers=_STAGES_HEADER[1:])
        parts.append(f"{_second_stage(second)}\n{table}")
    if "moments" in report:
        parts.append(moment_table(report["moments"]))
    if "scaling" in report:
        header = scaling_header(report["scaling"])
        parts.append(aligned_table(header, scaling_rows(report["scaling"]), numbers=header))
    return "\n".join(parts)


def scaling_header(points: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Columns of a scaling curve: setting, abilities and averages (or else sets), seconds."""
    whole = any(point["abilities"][name] for point in points for name in ABILITY_NAMES)
    return ("frames", "tokens a frame", *((*ABILITY_NAMES, *AVERAGE_NAMES) if whole else points[0]["sets"]), "seconds")


def scaling_rows(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row a setting; a dash where a set is missing."""
    rows, names = [], scaling_header(points)[2:-1]
    for point in points:
        entries = {**point["abilities"], **point["averages"], **point["sets"]}
        scores = ["-" if entries[name] is None else round_half_up(entries[name]["score"]) for name in names]
        setting = ["-" if point[key] is None else str(point[key]) for key in ("num_frames", "frame_tokens")]
        rows.append((*setting, *scores, round_half_up(point["throughput"]["encode_seconds"], 1)))
    return rows


def stage_rows(second: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a set, ability and average: the score of the first stage, and of both."""
    return [
        (
            row["name"],
            round_half_up(row["first"]),
            round_half_up(row["second"]),
            f"{row['difference']:+.3f}",
            " .. ".join(f"{end:+.3f}" for end in row["interval"]),
        )
        for row in second["differences"]
    ]


def _second_stage(second: Mapping[str, Any]) -> str:
    pace = f", {second['seconds'] / second['pairs']:.3f} s a pair" if second["pairs"] else ""
    return (
        f"The first {second['top']} candidates of each query, reordered by `{second['model']}` "
        f"({second['num_frames']} frames a video): {second['pairs']} pairs scored in {second['seconds']:.1f} s{pace}."
    )


def _set_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a set, and one more for the ranking within groups."""
    rows = []
    for name, entry in report["sets"].items():
        rows.append((name, " ".join(entry["abilities"]), *_cells(entry, entry["num_candidates"])))
        group = entry["in_group"]
        if group is not None:
            rows.append((f"{name} in group", "", *_cells(group, group["group_size"])))
    return rows


def _cells(entry: Mapping[str, Any], candidates: float) -> tuple[str, ...]:
    return (
        entry["metric"],
        round_half_up(entry["score"]),
        round_half_up(entry["standard_error"]),
        _interval(entry),
        round_half_up(entry["chance"]),
        str(entry["num_queries"]),
        f"{candidates:g}",
        "yes" if entry["above_chance"] else "no",
    )


def _interval(entry: Mapping[str, Any]) -> str:
    return " - ".join(round_half_up(end) for end in entry["interval"]) if "interval" in entry else "-"


def _has_abilities(report: Mapping[str, Any]) -> bool:
    return any(entry["abilities"] for entry in report["sets"].values())


def _summary_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row an ability and average, rounded as the paper rounds."""
    scores, chances, plain = displayed(report), displayed(report, "chance"), displayed(report, rule="plain")
    rows = []
    for name, entry in {**report["abilities"], **report["averages"]}.items():
        score, chance = scores[name], chances[name]
        if entry is None or score is None or chance is None:
            rows.append((name, *"------"))
            continue
        error, above = round_half_up(entry["standard_error"]), "yes" if entry["above_chance"] else "no"
        rows.append((name, score, error, _interval(entry), chance, above, plain[name] or "-"))
    return rows


def _conditions(report: Mapping[str, Any]) -> list[str]:
    """How the scores were made; absent from reports put together by hand."""
    if "settings" not in report:
        return []
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items() if value is not None)
    spent, versions = report["throughput"], report["versions"]
    rows = f"{spent['rows_encoded']} of {spent['rows']} rows encoded in {spent['encode_seconds']:.1f} s"
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return ["### Conditions", f"Settings: {settings}. {rows} ({spent['rows_per_second']:.1f} a second). {packages}."]
