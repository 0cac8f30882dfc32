"""Hits as HTML, and the shelf from which a browser fetches what it plays."""

import asyncio
import hashlib
import html
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gve.eval.console import clock, fail, printable
from gve.eval.index.rows import Hit
from gve.model_cards.playing import copy_for_browsers, view_of

STYLE = """
#gve-query .submit-button {background: var(--primary-500); color: white}
.gve-note {margin: 0 0 .8rem; color: var(--body-text-color); font-size: .9rem}
.gve-alert {padding: .8rem 1rem; border-left: 4px solid #c2410c; background: #fff7ed; color: #7c2d12}
.gve-hits {display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 1rem}
.gve-hit {margin: 0; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden}
.gve-hit video, .gve-hit img {display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #111}
.gve-hit .gve-lost {aspect-ratio: 4 / 3; display: grid; place-items: center; padding: 1rem}
.gve-hit figcaption {display: flex; flex-wrap: wrap; gap: .1rem .6rem; padding: .45rem .6rem; font-size: .85rem}
.gve-hit .gve-name {flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.gve-hit .gve-score, .gve-hit .gve-time {font-variant-numeric: tabular-nums}
.gve-hit .gve-more {flex-basis: 100%; display: flex; justify-content: space-between; min-height: 1.3rem}
#gve-hits .gve-hit button {all: unset; cursor: pointer; color: var(--link-text-color); text-decoration: underline}
#gve-hits .gve-hit button:focus-visible {outline: 2px solid var(--primary-500)}
"""
SCRIPT = """
const repeat = event => {
  const video = event.target, start = Number(video.dataset.start), end = Number(video.dataset.end);
  if (video.dataset.end === undefined || (video.paused && !video.ended)) return;
  if (video.ended || (video.currentTime >= end && video.currentTime < end + 1)) { video.currentTime = start; video.play(); }
};
element.addEventListener('timeupdate', repeat, true);
element.addEventListener('ended', repeat, true);
element.addEventListener('error', event => {
  const lost = document.createElement('div');
  lost.className = 'gve-lost';
  lost.textContent = 'cannot be shown';
  event.target.replaceWith(lost);
}, true);
element.addEventListener('click', event => {
  const button = event.target.closest('[data-like]');
  if (button) trigger('select', {key: button.dataset.like});
});
"""
"""Repeats moments and reports buttons; media events do not bubble, so they are caught on their way down."""
_ROUTE = "gve-media"
_COPIES_AT_ONCE = 2

logger = logging.getLogger(__name__)


class Shelf:
    """The hits that the page has shown. A browser can fetch their files and no others.

    Args:
        copies: Folder for copies of files that browsers do not play.
    """

    def __init__(self, copies: Path) -> None:
        self.copies, self._hits = copies, dict[str, Hit]()
        self._turns = asyncio.Semaphore(_COPIES_AT_ONCE)

    def put(self, hit: Hit) -> str:
        """A key for a hit, the same each time."""
        stretch = f"{hit.level}|{hit.start}|{hit.end}|".encode()
        key = hashlib.blake2b(stretch + os.fsencode(hit.path), digest_size=12).hexdigest()
        self._hits[key] = hit
        return key

    def hit(self, key: str) -> Hit:
        """The hit of a key; ValueError if it has not been shown."""
        if key not in self._hits:
            fail("hit: the page was started anew. Search again.")
        return self._hits[key]

    def route(self) -> Any:
        """The route of Starlette that sends files."""
        from starlette.routing import Route

        return Route(f"/{_ROUTE}/{{key}}", self._send)

    async def _send(self, request: Any) -> Any:
        """A file, or its copy in a browser's format, made now unless the browser has gone on."""
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import FileResponse, Response

        hit = self._hits.get(request.path_params["key"])
        if hit is None:
            return Response(status_code=404)
        path = Path(hit.path)
        try:
            if view_of(path).copied:
                async with self._turns:
                    if await request.is_disconnected():
                        return Response(status_code=404)
                    path = await run_in_threadpool(copy_for_browsers, path, self.copies, *_stretch(hit))
        except (OSError, ValueError) as error:
            logger.warning("cannot show %s: %s", printable(hit.path), printable(error))
            return Response(status_code=404)
        return FileResponse(path)


def results(note: str, hits: Sequence[Hit], shelf: Shelf) -> str:
    """A note above cards of hits."""
    cards = "".join(_card(rank, hit, shelf) for rank, hit in enumerate(hits, start=1))
    return f'<p class="gve-note">{_escape(note)}</p><div class="gve-hits">{cards}</div>'


def alert(text: str) -> str:
    """What is wrong."""
    return f'<p class="gve-alert" role="alert">{_escape(text)}</p>'


def _card(rank: int, hit: Hit, shelf: Shelf) -> str:
    name, key = _escape(Path(hit.path).name), shelf.put(hit)
    start, end = _stretch(hit)
    time = "" if start is None or end is None else f"{clock(start)} to {clock(end)}"
    about = "".join(f"&#10;{_escape(f'{column}: {value}')}" for column, value in hit.columns.items())
    return (
        f'<figure class="gve-hit">{_medium(hit, name, key)}<figcaption><span>{rank}</span>'
        f'<span class="gve-name" title="{name}{about}">{name}</span>'
        f'<span class="gve-score">{hit.score:.3f}</span><span class="gve-more"><span class="gve-time">{time}</span>'
        f'<button type="button" data-like="{key}">similar</button></span></figcaption></figure>'
    )


def _medium(hit: Hit, name: str, key: str) -> str:
    try:
        view = view_of(Path(hit.path))
    except FileNotFoundError:
        return '<div class="gve-lost">the file is gone</div>'
    except (OSError, ValueError) as error:
        logger.warning("cannot show %s: %s", printable(hit.path), printable(error))
        return '<div class="gve-lost">cannot be shown</div>'
    address = f"{_ROUTE}/{key}"  # relative, so that it holds behind a proxy as well
    if view.element == "image":
        return f'<img src="{address}" alt="{name}">'
    start, end = (None, None) if view.copied else _stretch(hit)  # a copy holds the moment alone
    played = "loop" if start is None else f'data-start="{start:.3f}" data-end="{end:.3f}"'
    address += "" if start is None else f"#t={start:.3f}"
    return f'<video src="{address}" autoplay muted {played} playsinline controls></video>'


def _stretch(hit: Hit) -> tuple[float | None, float | None]:
    """Start and end of a moment; None of a whole file."""
    return (None, None) if hit.level == "file" else (hit.start, hit.end)


def _escape(text: object) -> str:
    """Text as HTML; lone surrogates would break the server's JSON."""
    return html.escape(printable(text))
