"""A benchmark report as Markdown and as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from gve.eval.averages import benchmark_name, displayed, round_half_up
from gve.eval.scaling import scaling_header, scaling_rows
from gve.eval.tables import aligned_table, markdown_table

_HEADER = ("set", "abilities", "metric", "score", "SE", "95 %", "chance", "queries", "candidates", "above chance")
_SUMMARY_HEADER = ("ability", "score", "SE", "95 %", "chance", "above chance", "plain")
_NUMBERS = ("score", "SE", "95 %", "chance", "queries", "candidates", "plain")
_NOTE = (
    "SE is the standard error over queries, 95 % the interval of a bootstrap over them. Above chance: the score exceeds chance by more than two standard errors, "
    "the larger of the score's and of chance's. In group: the query is ranked among near-identical videos only."
)
_RULES = (
    "Rounded half up to three decimals at every level, as in the paper's tables; a dash marks missing sets. FG is the "
    "mean of S, T and PR, and TXT of CG, FG and LC, as the paper's numbers imply; under plain, both are means over "
    "their sets."
)


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: sets, then abilities and averages.

    Args:
        report: What `run_benchmark` returned or the JSON file holds.

    Returns:
        Tables under headings; that of abilities is left out where no set counts towards one.
    """
    source = f"`{report['source']}`, split `{report['split']}`"
    title = f"{benchmark_name(report)} scores" + (f" of `{report['model']}`" if report.get("model") else "")
    return (
        "\n\n".join(
            [
                f"## {title}",
                f"Data: {source}. Scores in 0..1.",
                markdown_table(_HEADER, _set_rows(report)),
                _NOTE,
                *_summary(report),
                *_scaling(report),
                *_conditions(report),
                "",
            ]
        ).rstrip()
        + "\n"
    )


def to_table(report: Mapping[str, Any]) -> str:
    """The report as aligned text.

    Args:
        report: What `run_benchmark` returned or the JSON file holds.

    Returns:
        Lines that end in a newline.
    """
    parts = [aligned_table(_HEADER, _set_rows(report), numbers=_NUMBERS)]
    if _summary(report):
        parts.append(aligned_table(_SUMMARY_HEADER, _summary_rows(report), numbers=_NUMBERS))
    if "scaling" in report:
        header = scaling_header(report["scaling"])
        parts.append(aligned_table(header, scaling_rows(report["scaling"]), numbers=header))
    return "\n".join(parts)


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
        _interval(entry),
        round_half_up(entry["chance"]),
        str(entry["num_queries"]),
        f"{candidates:g}",
        "yes" if entry["above_chance"] else "no",
    )


def _interval(entry: Mapping[str, Any]) -> str:
    """Both ends; the members of a group have none."""
    return " - ".join(round_half_up(end) for end in entry["interval"]) if "interval" in entry else "-"


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


def _summary(report: Mapping[str, Any]) -> list[str]:
    """Abilities and averages, where a set counts towards one."""
    if not any(entry["abilities"] for entry in report["sets"].values()):
        return []
    return ["### Abilities and averages", markdown_table(_SUMMARY_HEADER, _summary_rows(report)), _RULES]


def _scaling(report: Mapping[str, Any]) -> list[str]:
    """What more frames and tokens bring."""
    if "scaling" not in report:
        return []
    points = report["scaling"]
    return ["### Scaling", markdown_table(scaling_header(points), scaling_rows(points))]


def _conditions(report: Mapping[str, Any]) -> list[str]:
    """How the scores were made; a report that was put together by hand has no such part."""
    if "settings" not in report:
        return []
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items() if value is not None)
    spent, versions = report["throughput"], report["versions"]
    rows = f"{spent['rows_encoded']} of {spent['rows']} rows encoded in {spent['encode_seconds']:.1f} s"
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return ["### Conditions", f"Settings: {settings}. {rows} ({spent['rows_per_second']:.1f} a second). {packages}."]
