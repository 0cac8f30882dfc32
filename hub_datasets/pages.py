"""HTML pages of one file that load nothing: a head, tables, pictures, histograms."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

BASE_STYLE = "body{font:15px/1.5 system-ui,sans-serif;color:#222}table{border-collapse:collapse;font-size:13px}"
_WIDTH, _HEIGHT, _BINS = 300, 90, 40  # pixels, and bars of a histogram


def html_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """A page of parts that are HTML already."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{BASE_STYLE}{style}</style>'
    body = "\n".join(part for part in parts if part)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of texts, which are escaped."""
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>\n{body}\n</tbody></table>"


def html_picture(content: bytes, text: str = "", mime: str = "image/jpeg") -> str:
    """A picture within the page; `text` stands for it where it is not seen."""
    return f'<img alt="{escape(text)}" src="data:{mime};base64,{base64.b64encode(content).decode()}">'


def html_histogram(title: str, values: np.ndarray, limits: Sequence[float] = ()) -> str:
    """How often values, (N,), occur, with limits as red lines; a limit far outside of them is only written down."""
    values = values[np.isfinite(values)]
    words = f"{title}, {len(values):,} values" + (
        f", limit {' to '.join(f'{one:g}' for one in limits)}" if limits else ""
    )
    if not len(values):
        return f"<figure><figcaption>{escape(words)}</figcaption></figure>"
    low, high = float(values.min()), float(values.max())
    room = (high - low) or abs(high) or 1.0
    near = [limit for limit in limits if low - room / 2 <= limit <= high + room / 2]
    low, high = min(low, *near, high), max(high, *near, low)
    high = high if high > low else low + room
    counts, _ = np.histogram(values, bins=_BINS, range=(low, high))
    step, tall = _WIDTH / _BINS, _HEIGHT / counts.max()
    bars = [
        f'<rect x="{place * step:.1f}" y="{_HEIGHT - max(1.0, count * tall):.1f}" width="{step - 1:.1f}" '
        f'height="{max(1.0, count * tall):.1f}" fill="#4a7ab5"/>'
        for place, count in enumerate(counts.tolist())
        if count
    ]
    places = [(limit - low) / (high - low) * _WIDTH for limit in near]
    bars += [f'<path d="M{place:.1f} 0V{_HEIGHT}" stroke="#c0392b" stroke-width="2"/>' for place in places]
    drawn = f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(words)}">{"".join(bars)}</svg>'
    ends = f'<div class="ends"><span>{low:.4g}</span><span>{high:.4g}</span></div>'
    return f"<figure><figcaption>{escape(words)}</figcaption>{drawn}{ends}</figure>"
