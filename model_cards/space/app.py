"""The page: a query of text, image and video above, the videos that it finds below, playing.

As a Space it searches the videos in its folder `assets` with the model that its README.md names.
"""

import hashlib
import html
import logging
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import RepoCard

from gve.eval.console import fail, printable
from gve.model_cards.catalogue import Catalogue, Match, default_instruction, open_catalogue, query_row
from gve.model_cards.playing import playable

MOST_HITS, HITS = 24, 8
_UPLOAD = "100mb"
_FILES = "gradio_api/file="
"""Where gradio serves files, relative to the page, so that it holds behind a proxy as well."""
_STYLE = """
#gve-query .submit-button {background: var(--primary-500); color: white}
.gve-note {margin: 0 0 .8rem; color: var(--body-text-color-subdued); font-size: .9rem}
.gve-alert {padding: .8rem 1rem; border-left: 4px solid #c2410c; background: #fff7ed; color: #7c2d12}
.gve-hits {display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 1rem}
.gve-hit {margin: 0; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden}
.gve-hit video, .gve-hit img {display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #111}
.gve-hit .gve-lost {aspect-ratio: 4 / 3; display: grid; place-items: center; padding: 1rem}
.gve-hit figcaption {display: flex; gap: .6rem; padding: .45rem .6rem; font-size: .85rem}
.gve-hit .gve-name {flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.gve-hit .gve-score {font-variant-numeric: tabular-nums}
"""

logger = logging.getLogger(__name__)


def answer(
    catalogue: Catalogue, asked: dict[str, Any] | None, count: float, instruction: str | None, copies: Path
) -> str:
    """The hits of a query as HTML, or what is wrong with it.

    Args:
        catalogue: The files.
        asked: "text" and "files" of the query's box.
        count: Number of hits.
        instruction: The system message; blank for the one that suits the query.
        copies: Folder for copies of files that a browser does not play.
    """
    asked = asked or {"text": "", "files": []}
    try:
        row = query_row(asked["text"] or "", [Path(name) for name in asked["files"]])
        used = (instruction or "").strip() or default_instruction(row)
        found = catalogue.find(row, int(count), instruction=used)
    except ValueError as error:
        told = str(error)
        for name in asked["files"]:  # an upload's folder means nothing to its sender
            told = told.replace(name, Path(name).name)
        return f'<p class="gve-alert" role="alert">{_escape(told)}</p>'
    said = "the model's own" if used is None else used
    note = f"{' + '.join(row)} query over {len(catalogue.paths)} files. Instruction: {said}"
    cards = "".join(_card(rank, hit, copies) for rank, hit in enumerate(found, start=1))
    return f'<p class="gve-note">{_escape(note)}</p><div class="gve-hits">{cards}</div>'


def _card(rank: int, hit: Match, copies: Path) -> str:
    name = _escape(hit.path.name)
    try:
        kind, path = playable(_addressable(hit.path, copies), copies)
    except (OSError, ValueError) as error:
        logger.warning("cannot show %s: %s", printable(hit.path), printable(error))
        medium = '<div class="gve-lost">cannot be shown</div>'
    else:
        address = html.escape(_FILES + quote(str(path)))
        medium = (
            f'<video src="{address}" autoplay muted loop playsinline controls></video>'
            if kind == "video"
            else f'<img src="{address}" alt="{name}">'
        )
    return (
        f'<figure class="gve-hit">{medium}<figcaption><span>{rank}</span><span class="gve-name" title="{name}">{name}'
        f'</span><span class="gve-score">{hit.score:.3f}</span></figcaption></figure>'
    )


def _escape(text: object) -> str:
    """Text as HTML; lone surrogates would break the server's JSON."""
    return html.escape(printable(text))


def _addressable(path: Path, copies: Path) -> Path:
    """The file itself, or a link to it where its name is not UTF-8: servers read addresses as such."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        suffix = path.suffix if path.suffix.isascii() else ""
        link = copies / f"{hashlib.blake2b(os.fsencode(path), digest_size=12).hexdigest()}{suffix}"
        if not link.is_symlink():
            link.symlink_to(path.absolute())
        return link
    return path


def build(catalogue: Catalogue, copies: Path) -> Any:
    """The page as Gradio's Blocks; `copies` is a folder for copies of files that a browser does not play."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError('gradio: not installed; the page needs the extra: pip install "gve[app]"') from error

    def search(asked: dict[str, Any] | None, count: float, instruction: str | None) -> str:
        return answer(catalogue, asked, count, instruction, copies)

    with gradio.Blocks(title="Video search", analytics_enabled=False) as page:
        gradio.Markdown(
            f"# Video search\n{len(catalogue.paths)} files. Describe a video, drop an image or a video, or combine them: "
            "*the same object as in the image vanishes*."
        )
        query = gradio.MultimodalTextbox(
            label="query",
            placeholder="a text, and with the paper clip one image and one video",
            file_count="multiple",
            max_lines=1,  # so that Enter submits
            submit_btn="Search",
            elem_id="gve-query",
        )
        if catalogue.examples:
            gradio.Examples([{"text": text, "files": []} for text in catalogue.examples], query, label="for example")
        with gradio.Accordion("Settings", open=False):
            count = gradio.Slider(1, MOST_HITS, value=HITS, step=1, label="hits")
            instruction = gradio.Textbox(
                label="instruction", info="The system message; left blank, one that suits the parts of the query."
            )
        hits = gradio.HTML(elem_id="gve-hits")
        query.submit(search, [query, count, instruction], hits, api_name="search")
    return page


def serve(catalogue: Catalogue, *, host: str | None = None, port: int | None = None) -> None:
    """Show the page until interrupted.

    Args:
        catalogue: What it searches.
        host: Address to listen on; None takes the Space's, or this machine only.
        port: None takes the Space's, or the first free one from 7860.
    """
    with tempfile.TemporaryDirectory(prefix="gve-app-") as copies:
        page = build(catalogue, Path(copies))
        import gradio

        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        try:
            page.launch(
                server_name=host,
                server_port=port,
                theme=gradio.themes.Default(**fonts),  # other fonts would be fetched
                css=_STYLE,
                allowed_paths=[*map(str, catalogue.paths), copies],  # files, not folders: nothing else is served
                max_file_size=_UPLOAD,
                footer_links=[],
                run_history=False,
                share=False,
                ssr_mode=False,
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            fail(f"--port: {port} cannot be used ({error}). Choose another.")
        logger.info("%d files at %s", len(catalogue.paths), page.local_url)
        try:
            page.server.thread.join()
        finally:
            page.close(verbose=False)


def open_space(folder: Path) -> Catalogue:
    """The videos in a Space's `assets`, with the first of the `models` in its README."""
    models = RepoCard.load(folder / "README.md").data.to_dict().get("models")
    if not models:
        fail("README.md: names no model. Add `models:` with one Hub name to its front matter.")
    return open_catalogue(folder / "assets", models[0])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    serve(open_space(Path(__file__).resolve().parent))
