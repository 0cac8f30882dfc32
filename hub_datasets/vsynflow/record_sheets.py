"""Records on HTML pages: their frames, their captions, and how they ended."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from gve.hub_datasets.pages import html_picture, html_table
from gve.hub_datasets.vsynflow.prompts import FRAME_STYLES, VIDEO_STYLES
from gve.hub_datasets.vsynflow.quality.worker import spread_frames
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Failed
from gve.hub_datasets.vsynflow.stills import jpeg, read_times

STYLE = (
    "body{margin:2rem auto;max-width:75rem;padding:0 1rem}section{border:1px solid #ddd;border-radius:.5rem;padding:.75rem "
    "1rem;margin:1rem 0}p,td{overflow-wrap:anywhere}th,td{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:left;"
    "vertical-align:top}td:first-child{white-space:nowrap}b.mark{border-radius:.3rem;padding:.1rem .4rem;color:#fff;background:#b3261e}b.kept{background:"
    "#2e7d32}b.failed{background:#8a6d00}.sheet{display:flex;flex-wrap:wrap;gap:12px}.sheet figure{width:200px;margin:0;"
    "font-size:12px;overflow-wrap:anywhere}.sheet img{width:100%}.strip img{height:80px;margin-right:3px}.plots{display:flex;"
    "flex-wrap:wrap;gap:18px}.plots figure{margin:0;font-size:12px;width:300px}svg{overflow:visible}.ends{display:flex;justify-content:space-between}"
    "pre{white-space:pre-wrap;background:#f5f5f5;padding:.5rem;font-size:12px}"
)
_SIDE, _SECONDS = 240, 20.0  # pixels of a frame, and the time to decode a video


def thumbnails(record: Record, count: int) -> list[str]:
    """Frames of a video as HTML; none of a video that does not decode."""
    try:
        seconds = float(read_times(record)[-1])
    except (ValueError, OSError):
        return []
    (found,) = spread_frames([{**record, "duration": seconds}], count, _SIDE, _SECONDS)
    frames = [] if isinstance(found, Failed) else found
    return [html_picture(jpeg(np.asarray(frame), quality=75), record["id"]) for frame in frames]


def mark(ended: str, words: str = "") -> str:
    """How a record ended, in its colour."""
    return f'<b class="mark {ended}">{ended}</b> {escape(words)}'


def reason(row: Mapping[str, Any]) -> str:
    """Stage, code and score of a rejected or failed record."""
    score = row.get("score")
    return f"{row['stage']}: {row['code']}" + (f" ({score:.4g})" if score is not None else "")


def answers_table(record: Record) -> str:
    """The captions and composed queries of a record that a captioner wrote."""
    rows: list[tuple[str, str]] = []
    for title, column, styles in (("", "captions", VIDEO_STYLES), ("frame: ", "frame_captions", FRAME_STYLES)):
        texts = record.get(column) or ()
        rows += [(f"{title}{style.name}", text) for style, text in zip(styles, texts, strict=False)]
    rows += [(name.replace("_", " "), record[name]) for name in ("image_query", "clip_query") if record.get(name)]
    kinds, texts = (record.get(f"counterfactual_{part}") or () for part in ("kinds", "texts"))
    rows += [(f"counterfactual: {kind}", text) for kind, text in zip(kinds, texts, strict=True)]
    return html_table(("text", "as it was written"), rows) if rows else ""
