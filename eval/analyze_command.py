"""The command `gve analyze`: correlations of UVRB's sets and abilities over models."""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gve.eval.analysis import FAMILIES, STATISTICS, ModelScores, analyse, join_models, report_model
from gve.eval.averages import AVERAGE_NAMES, RULES, round_half_up
from gve.eval.console import check_out, run_command
from gve.eval.tables import aligned_table, markdown_table
from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES
from gve.media_gve import PNG

logger = logging.getLogger(__name__)

_WORDS = {"model", "family", ""}
Section = tuple[str, Sequence[str], list[list[str]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 with an analysis, 2 for bad usage or a broken report, 130 when interrupted."""
    return run_command(_analyze, _parser(), argv)


def to_table(analysis: Mapping[str, Any]) -> str:
    """An analysis as aligned text."""
    parts = [
        f"{title}\n\n{aligned_table(header, rows, numbers=set(header) - _WORDS)}"
        for title, header, rows in _sections(analysis)
    ]
    return "\n".join(parts)


def to_markdown(analysis: Mapping[str, Any]) -> str:
    """An analysis as Markdown tables under headings."""
    return "\n".join(f"## {title}\n\n{markdown_table(header, rows)}\n" for title, header, rows in _sections(analysis))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve analyze",
        description="Correlations of UVRB's sets and abilities over the paper's 16 models and your own.",
    )
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT.json", help="output of `gve eval --out`")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for analysis.json, analysis.md and heat maps")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--family", choices=FAMILIES[1:], default="MLLM", help="architecture of the reports' models (%(default)s)"
    )
    parser.add_argument("--rule", choices=RULES, default="paper", help="how abilities are formed (%(default)s)")
    return parser


def _analyze(arguments: argparse.Namespace) -> int:
    out: Path | None = arguments.out
    check_out(out, folder=True)
    models = join_models([report_model(path, arguments.family) for path in arguments.reports])
    for model in models:
        if not model.official:
            logger.warning(
                "%s: %s has other numbers of queries or candidates than the paper's data; it is shown, but left out of "
                "the correlations with the paper's models",
                model.name,
                model.source,
            )
    analysis = analyse(models, rule=arguments.rule)
    sys.stdout.write(json.dumps(analysis, indent=2) + "\n" if arguments.json else to_table(analysis))
    if out is not None:
        _write(analysis, models, out)
    return 0


def _write(analysis: Mapping[str, Any], models: Sequence[ModelScores], out: Path) -> None:
    from gve.eval.heatmaps import draw_against_average, draw_models, draw_triangles

    write_atomic(out / "analysis.json", (json.dumps(analysis, indent=2) + "\n").encode())
    write_atomic(out / "analysis.md", to_markdown(analysis).encode())
    correlations = analysis["correlations"]
    for statistic in STATISTICS:
        title = f"Correlation of abilities over models ({statistic.title()})"
        draw_triangles(correlations, statistic, title, out / f"abilities_{statistic}{PNG}")
    for average in AVERAGE_NAMES:
        title = f"Correlation with {average} over models"
        draw_against_average(correlations, average, title, out / f"against_{average.lower()}{PNG}")
    draw_models(models, analysis["rule"], f"UVRB scores (rule `{analysis['rule']}`)", out / f"models{PNG}")


def _sections(analysis: Mapping[str, Any]) -> list[Section]:
    """Title, header and rows of each table."""
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
    return sections


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else round_half_up(value, digits)
