"""What `gve eval --moments` takes, and how its scores are shown."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gve.eval.averages import round_half_up
from gve.eval.console import fail
from gve.eval.encoders import Encoder
from gve.eval.index.rows import Levels
from gve.eval.models import model_prompts
from gve.eval.moments.sets import MomentSet
from gve.eval.tables import aligned_table, markdown_table

WINDOW = 6.0
"""Seconds; the default stride is half a window."""
NOTE = (
    "R1@x: the first moment overlaps a true one by an IoU of x or more. mAP: mean average precision of ten moments, at an "
    "IoU of 0.5, of 0.75, and over 0.5 to 0.95. Chance shuffles the scores of a query's windows."
)
_HEADER = ("moments", "metric", "score", "SE", "95 %", "chance", "queries", "above chance")


def add_options(parser: argparse.ArgumentParser) -> None:
    """--moments, --window and --stride."""
    parser.add_argument(
        "--moments",
        type=Path,
        metavar="PATH",
        help="score moment retrieval too, or alone without --data: a folder with annotations of QVHighlights, "
        "MomentSeeker or the rendered world and their videos, or one file of annotations",
    )
    parser.add_argument("--window", type=float, help=f"seconds of a window of a searched video ({WINDOW:g})")
    parser.add_argument("--stride", type=float, help="seconds from window to window (half a window)")


def levels_of(arguments: argparse.Namespace) -> Levels:
    """The windows; stops at bad usage."""
    for name in ("window", "stride"):
        if arguments.moments is None and getattr(arguments, name) is not None:
            fail(f"--{name}: needs --moments. Add the annotations, or leave it out.")
    window = WINDOW if arguments.window is None else arguments.window
    stride = window / 2 if arguments.stride is None and window > 0 else arguments.stride
    return Levels(files=False, window=window, stride=stride)


def moment_instructions(source: str, encoder: Encoder, sets: Sequence[MomentSet]) -> Mapping[str, str | None] | None:
    """Instructions by set from --instructions; a JSON file is about UVRB and leaves moments their own."""
    if source == "none":
        return {one.name: "" for one in sets}
    if source == "model":
        prompt = model_prompts(encoder).get("query")
        return {one.name: prompt for one in sets}
    return None


def moment_markdown(moments: Mapping[str, Any]) -> list[str]:
    """The report's section on moments."""
    return ["### Moments", _settings(moments), markdown_table(_HEADER, _rows(moments)), NOTE]


def moment_table(moments: Mapping[str, Any]) -> str:
    """The same for the terminal."""
    return aligned_table(_HEADER, _rows(moments), numbers=_HEADER[2:-1])


def _settings(moments: Mapping[str, Any]) -> str:
    return (
        f"Data: `{moments['source']}`. Each query is ranked over its own video, in windows of {moments['window']:g} s "
        f"every {moments['stride']:g} s, {moments['num_frames']} frames each: {moments['windows']} windows of "
        f"{moments['videos']} videos, embedded in {moments['window_seconds']:.1f} s."
    )


def _rows(moments: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            metric,
            *(round_half_up(entry[key]) for key in ("score", "standard_error")),
            " - ".join(round_half_up(end) for end in entry["interval"]),
            round_half_up(entry["chance"]),
            str(data["num_queries"]),
            "yes" if entry["above_chance"] else "no",
        )
        for name, data in moments["sets"].items()
        for metric, entry in data["metrics"].items()
    ]
