"""A report as the files of a folder: JSON, Markdown and charts."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gve.eval.bars import draw_bars
from gve.eval.radar import check_drawable, draw_radar
from gve.eval.report import to_markdown
from gve.eval.scaling import draw_scaling
from gve.hub_datasets.files import write_atomic

logger = logging.getLogger(__name__)

REPORT = "report.json"
_NUMBERS = re.compile(r"\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]")


def to_json(report: Mapping[str, Any]) -> str:
    """A report as JSON; each list of numbers, such as the scores by query, stands on one line.

    Args:
        report: What `run_benchmark` returned.

    Returns:
        Text that ends in a newline.
    """
    text = json.dumps(report, indent=2, allow_nan=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def write_report(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write report.json, report.md, bars.png, radar.png and, for several settings, scaling.png.

    Args:
        report: What `run_benchmark` returned.
        folder: Where to; made if missing.

    Returns:
        The files; the radar is left out where fewer than three abilities have all their sets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / name for name in (REPORT, "report.md", "bars.png")]
    write_atomic(written[0], to_json(report).encode())
    write_atomic(written[1], to_markdown(report).encode())
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
