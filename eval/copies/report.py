"""Copies as JSON, as a table for the terminal, and as one HTML page that loads nothing."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.console import clock, printable
from gve.eval.copies.suggestions import REMOVE, Findings, Suggestion
from gve.eval.copies.tracks import Track
from gve.eval.tables import aligned_table
from gve.hub_datasets.files import write_text
from gve.hub_datasets.pages import html_page, html_picture
from gve.hub_datasets.vsynflow.stills import jpeg
from gve.image_gve import open_image
from gve.video_gve import read_video

SCHEMA = "gve-duplicates/1"
_PICTURED = 200  # suggestions with frames beside them; those that free most come first
_PIXELS = 160 * 120
_STYLE = (
    "body{margin:2rem auto;max-width:70rem;padding:0 1rem}section{border:1px "
    "solid #ddd;border-radius:.5rem;padding:.75rem 1rem;margin:1rem 0}p{margin:.3rem 0;overflow-wrap:anywhere}small{color:"
    "#666}b{border-radius:.3rem;padding:.1rem .4rem;color:#fff;background:#2e7d32}b.remove{background:#b3261e}"
    "b.check{background:#8a6d00}figure{display:flex;gap:4px;margin:.3rem 0;flex-wrap:wrap;align-items:center}"
    "img{height:90px;max-width:32%}figcaption{width:3.5rem;color:#666;font-size:12px}"
)


def to_json(found: Findings) -> str:
    """All findings; times are in seconds."""
    groups = [
        {"keep": _file(group.keep), "copies": [_entry(one) for one in group.suggestions]} for group in found.groups
    ]
    facts = {"schema": SCHEMA, "files": found.files, "freed_bytes": found.freed, "groups": groups}
    return json.dumps({**facts, "unread": dict(found.unread), "links": dict(found.links)}, indent=1) + "\n"


def to_table(found: Findings) -> str:
    """A line for each file that is kept or repeats another."""
    rows = []
    for group in found.groups:
        rows.append(("keep", "", readable(group.keep.bytes), printable(group.keep.path), ""))
        for one in group.suggestions:
            size, path = readable(one.track.bytes), printable(one.track.path)
            rows.append((f"  {one.verdict}", one.kind, size, path, described(one)))
    table = aligned_table(("suggestion", "kind", "size", "path", "how"), rows, numbers=("size",)) if rows else ""
    return table + _summary(found) + "\n"


def write_html(found: Findings, target: Path) -> None:
    """Write the page; frames of the copy stand over the same moments of the file that it repeats."""
    left, parts = _PICTURED, []
    for group in found.groups:
        lines = [f"<p><b>keep</b> {_linked(group.keep)}</p>"]
        for one in group.suggestions:
            lines.append(f'<p><b class="{one.verdict}">{one.verdict}</b> {_linked(one.track)}<br>{one.kind}:')
            lines.append(f"{escape(described(one))}</p>{_frames(one) if left > 0 else ''}")
            left -= 1
        parts.append(f"<section>{' '.join(lines)}</section>")
    unread = [
        f"<p><small>left out: {escape(printable(f'{path}: {why}'))}</small></p>" for path, why in found.unread.items()
    ]
    links = [
        f"<p><small>the same file: {escape(printable(f'{path} and {first}'))}</small></p>"
        for path, first in found.links.items()
    ]
    about = (
        "Nothing was deleted. Remove: the same pictures in a kept file that is as good. Check: look before you decide."
    )
    text = ["<h1>Copies</h1>", f"<p>{escape(_summary(found))} {about}</p>", *parts, *unread, *links]
    write_text(target, html_page("Copies", text, _STYLE))


def described(one: Suggestion) -> str:
    """How a file repeats another, in words."""
    copy = one.copy
    if copy is None:
        return f"the same bytes as {printable(one.of.path)}"
    told = []
    if copy.view.cut > 0:
        told.append(f"{'' if one.first else 'the other is '}cropped by {copy.view.cut:.0%} of its area")
    told += ["mirrored"] if copy.view.mirrored else []
    told += [f"speed x{_speed(one):.3g}"] if copy.speed != 1 else []
    if one.kind == "partial":
        told += [f"{clock(a)}-{clock(b)} is {clock(c)}-{clock(d)}" for a, b, c, d in _spans(one)]
    return ", ".join([*told, f"repeats {printable(one.of.path)}, {copy.bits} of 256 bits differ"])


def readable(size: int) -> str:
    """A number of bytes as people write it."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size} B"
        size /= 1024
    return f"{size:,.1f} GiB"


def _summary(found: Findings) -> str:
    count = sum(one.verdict == REMOVE for group in found.groups for one in group.suggestions)
    checks = sum(len(group.suggestions) for group in found.groups) - count
    return f"{found.files} files: {count} to remove, {readable(found.freed)}; {checks} to check; {len(found.unread)} left out."


def _file(track: Track) -> dict[str, Any]:
    facts = {"path": track.path, "kind": track.kind, "bytes": track.bytes, "digest": track.digest}
    return {**facts, "width": track.width, "height": track.height, "duration": round(track.duration, 3)}


def _entry(one: Suggestion) -> dict[str, Any]:
    entry: Mapping[str, Any] = {"verdict": one.verdict, "copy": one.kind, "of": one.of.path, "how": described(one)}
    if one.copy is not None:
        shares = one.copy.shares if one.first else one.copy.shares[::-1]
        spans = [{"start": a, "end": b, "of_start": c, "of_end": d} for a, b, c, d in _spans(one)]
        entry |= {"bits": one.copy.bits, "shares": shares, "speed": round(_speed(one), 3), "spans": spans}
    return {**_file(one.track), **entry}


def _spans(one: Suggestion) -> list[tuple[float, ...]]:
    """Times in the copy, then in the file that it repeats."""
    spans = one.copy.spans if one.copy else ()
    return [tuple(span) if one.first else (*span[2:], *span[:2]) for span in spans]


def _speed(one: Suggestion) -> float:
    assert one.copy is not None
    return one.copy.speed if one.first else 1 / one.copy.speed


def _linked(track: Track) -> str:
    length = f", {clock(track.duration)}" if track.kind == "video" else ""
    size = f"{readable(track.bytes)}, {track.width} x {track.height}{length}"
    address = Path(track.path).absolute().as_uri()
    return f'<a href="{escape(address)}">{escape(printable(track.path))}</a> <small>{size}</small>'


def _frames(one: Suggestion) -> str:
    """Three moments of the copy, over the same moments of the other file."""
    start, end, low, high = (_spans(one) or [(0.0, one.track.duration, 0.0, one.of.duration)])[0]
    rows = []
    for name, track, first, last in (("copy", one.track, start, end), ("of", one.of, low, high)):
        frames = _read(track, first, last)
        shown = "".join(html_picture(jpeg(frame, most_pixels=_PIXELS, quality=75)) for frame in frames)
        rows.append(f"<figure><figcaption>{name}</figcaption>{shown}</figure>")
    return "".join(rows)


def _read(track: Track, start: float, end: float) -> list[np.ndarray]:
    try:
        if track.kind == "image":
            return [np.asarray(open_image(track.path).convert("RGB"))]
        times = [start + (end - start) * share for share in (1 / 6, 1 / 2, 5 / 6)]
        return list(read_video(track.path, timestamps=times, resize="fast").frames)
    except (OSError, ValueError):
        return []  # it has just changed
