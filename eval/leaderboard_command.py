"""The command `gve leaderboard`: reports and the paper's models on one page."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from gve.eval.charts import draw_radars
from gve.eval.console import check_out, run_command
from gve.eval.leaderboard import build_rows, to_html, to_markdown
from gve.eval.report import read_report
from gve.hub_datasets.files import write_atomic

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 with a page, 2 for bad usage or a broken report, 130 when interrupted."""
    return run_command(_leaderboard, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve leaderboard",
        description="Put your reports beside the paper's 16 models: Markdown, and one HTML file that loads nothing.",
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="output of `gve eval --out`")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for leaderboard.md, leaderboard.html, radar.png"
    )
    return parser


def _leaderboard(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    check_out(out, folder=True)
    rows = build_rows(arguments.reports)
    reports = [read_report(path) for path in arguments.reports]
    labels = [f"{number}  {report.get('model') or 'unnamed'}" for number, report in enumerate(reports, 1)]
    radar = None
    try:
        draw_radars(dict(zip(labels, reports, strict=True)), out / "radar.png")
        radar = (out / "radar.png").read_bytes()
    except ValueError as error:
        logger.info("%s", error)
    markdown = to_markdown(rows)
    write_atomic(out / "leaderboard.md", markdown.encode())
    write_atomic(out / "leaderboard.html", to_html(rows, radar).encode())
    sys.stdout.write(markdown)
    return 0
