"""The command `gve analyze`: correlations over models, and the paper's tables computed again."""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gve.eval.analysis import Entry, analyse, join_entries, paper_entries, read_report
from gve.eval.averages import AVERAGE_NAMES, RULES, round_half_up
from gve.eval.console import fail, run_command
from gve.eval.correlations import STATISTICS, correlation_matrix
from gve.eval.heatmaps import draw_against_average, draw_models, draw_triangles
from gve.eval.paper_tables import FAMILIES, figure7_scores
from gve.eval.tables import aligned_table, markdown_table
from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES
from gve.media_gve import PNG

logger = logging.getLogger(__name__)

_REPRODUCED = {
    "tables_1_2": "Tables 1 and 2, abilities and averages by rule `paper`",
    "tables_1_2_plain": "the same by rule `plain`",
    "table_3": "Table 3, from its own columns",
    "figure_7": "Figure 7, Spearman over 14 baselines and GVE-i-3B/7B",
    "figure_7_pearson": "the same, Pearson",
}
Section = tuple[str, Sequence[str], list[list[str]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        0 with an analysis, 2 for bad usage or a broken report, 130 when interrupted.
    """
    return run_command(_analyze, _parser(), argv)


def to_table(analysis: Mapping[str, Any]) -> str:
    """An analysis as aligned text.

    Args:
        analysis: What `analyse` returned.

    Returns:
        Titles and tables; lines end in a newline.
    """
    parts = []
    for title, header, rows in _sections(analysis):
        parts.append(f"{title}\n\n" + aligned_table(header, rows, numbers=set(header) - _WORDS))
    return "\n".join(parts)


def to_markdown(analysis: Mapping[str, Any]) -> str:
    """An analysis as Markdown.

    Args:
        analysis: What `analyse` returned.

    Returns:
        Tables under headings.
    """
    parts = [f"## {title}\n\n{markdown_table(header, rows)}\n" for title, header, rows in _sections(analysis)]
    return "\n".join(parts)


_WORDS = {"model", "family", "", "where", "what", "note"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve analyze",
        description="Correlations of UVRB's sets and abilities over the paper's 16 models and your own, and the "
        "paper's tables computed again from what it prints.",
    )
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT.json", help="what `gve eval --out` wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for analysis.json, analysis.md and heat maps")
    parser.add_argument("--json", action="store_true", help="JSON on stdout in place of tables")
    parser.add_argument(
        "--family", choices=FAMILIES[1:], default="MLLM", help="architecture of the reports' models (%(default)s)"
    )
    parser.add_argument("--rule", choices=RULES, default="paper", help="how abilities are formed (%(default)s)")
    return parser


def _analyze(arguments: argparse.Namespace) -> int:
    out: Path | None = arguments.out
    if out is not None and ((out.exists() and not out.is_dir()) or not out.absolute().parent.is_dir()):
        fail(f"--out: cannot write to {str(out)!r}; a folder, or a new one in a folder, is accepted; check the path")
    entries = join_entries(paper_entries(), [read_report(path, arguments.family) for path in arguments.reports])
    for entry in entries:
        if not entry.official:
            logger.warning(
                "%s: %s has other numbers of queries or candidates than the paper's data; it is shown, and left out "
                "of the correlations with the paper's models",
                entry.name,
                entry.source,
            )
    analysis = analyse(entries, rule=arguments.rule)
    sys.stdout.write(json.dumps(analysis, indent=2) + "\n" if arguments.json else to_table(analysis))
    if out is not None:
        _write(analysis, entries, out)
    return 0


def _write(analysis: Mapping[str, Any], entries: Sequence[Entry], out: Path) -> None:
    """Everything into one folder."""
    out.mkdir(exist_ok=True)
    write_atomic(out / "analysis.json", (json.dumps(analysis, indent=2) + "\n").encode())
    write_atomic(out / "analysis.md", to_markdown(analysis).encode())
    correlations = analysis["correlations"]
    sizes = {name: len(entry["models"]) for name, entry in correlations.items()}
    for statistic in STATISTICS:
        matrices = {name: entry[statistic]["abilities"] for name, entry in correlations.items()}
        title = f"Correlation of abilities over models ({statistic.title()})"
        draw_triangles(matrices, sizes, title, out / f"abilities_{statistic}{PNG}")
    figure7 = {name: figure7_scores(name) for name in FAMILIES}
    draw_triangles(
        {name: correlation_matrix(scores, ABILITY_NAMES, ABILITY_NAMES) for name, scores in figure7.items()},
        {name: len(scores) for name, scores in figure7.items()},
        "Figure 7 of the paper, computed again (Spearman)",
        out / "figure7.png",
    )
    for average in AVERAGE_NAMES:
        title = f"Correlation with {average} over models"
        draw_against_average(correlations, average, title, out / f"against_{average.lower()}{PNG}")
    draw_models(entries, analysis["rule"], f"UVRB scores (rule `{analysis['rule']}`)", out / "models.png")


def _sections(analysis: Mapping[str, Any]) -> list[Section]:
    """The tables: title, header, rows."""
    names = [*ABILITY_NAMES, *AVERAGE_NAMES]
    models = [
        [
            model["name"] + ("" if model["official"] else " *"),
            model["family"],
            *(_cell(model["scores"][name], 3) for name in names),
        ]
        for model in analysis["models"]
    ]
    title = f"Abilities and averages, rule {analysis['rule']}"
    if not all(model["official"] for model in analysis["models"]):
        title += " (* on other data than the paper's: not comparable)"
    sections: list[Section] = [(title, ["model", "family", *names], models)]
    correlations = analysis["correlations"]
    pairs = [(name, statistic) for name in correlations for statistic in STATISTICS]
    for average in AVERAGE_NAMES:
        rows = [
            [row, *(_cell(correlations[name][statistic]["averages"][row][average], 2) for name, statistic in pairs)]
            for row in (*SETS, *ABILITY_NAMES)
        ]
        header = ["", *(f"{name}, {statistic.title()}" for name, statistic in pairs)]
        sections.append((f"Correlation with {average}", header, rows))
    for name, statistic in pairs:
        matrix = correlations[name][statistic]["abilities"]
        rows = [
            [row, *(_cell(matrix[row][column], 2) for column in ABILITY_NAMES[:place])]
            + [""] * (len(ABILITY_NAMES) - 1 - place)
            for place, row in enumerate(ABILITY_NAMES)
            if place
        ]
        title = f"Correlation of abilities, {name} ({len(correlations[name]['models'])} models), {statistic.title()}"
        sections.append((title, ["", *ABILITY_NAMES[:-1]], rows))
    return [*sections, *_reproduction_sections(analysis["reproduction"])]


def _reproduction_sections(reproduction: Mapping[str, Any]) -> list[Section]:
    """The paper's tables computed again, and its slips."""
    counts = [
        [label, str(reproduction[key]["equal"]), str(reproduction[key]["numbers"])]
        for key, label in _REPRODUCED.items()
    ]
    slips = [
        [slip["where"], slip["what"], str(slip["printed"]), _found(slip["found"]), slip["note"]]
        for slip in reproduction["slips"]
    ]
    return [
        ("The paper's numbers, computed again from what it prints", ["what", "equal", "numbers"], counts),
        ("What the paper prints and does not follow", ["where", "what", "printed", "found", "note"], slips),
    ]


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else round_half_up(value, digits)


def _found(value: float | str | None) -> str:
    return "nothing" if value is None else str(value)
