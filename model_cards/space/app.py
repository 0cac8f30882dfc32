"""The page: a query of text, image and video above, the videos and moments that it finds below, playing.

As a Space it searches the videos in its folder `assets` with the model that its README.md names.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard

from gve.eval.console import fail
from gve.eval.inputs import default_instruction
from gve.model_cards.catalogue import Catalogue, open_catalogue, query_row
from gve.model_cards.hits import SCRIPT, STYLE, Shelf, alert, results

MOST_HITS, HITS = 24, 8
_UPLOAD = "100mb"

logger = logging.getLogger(__name__)


def answer(
    catalogue: Catalogue,
    shelf: Shelf,
    asked: dict[str, Any] | None,
    count: float,
    instruction: str | None,
    filters: str | None = None,
) -> str:
    """The hits of a query as HTML, or what is wrong with it.

    Args:
        catalogue: What is searched.
        shelf: Where hits are put for the browser.
        asked: "text" and "files" of the query's box.
        count: Number of hits.
        instruction: The system message; blank for the one that suits the query.
        filters: A condition of SQL over the columns of an index.
    """
    asked = asked or {"text": "", "files": []}
    try:
        row = query_row(asked["text"] or "", [Path(name) for name in asked["files"]])
        used = (instruction or "").strip() or default_instruction(row)
        found = catalogue.find(row, int(count), instruction=used, filters=(filters or "").strip() or None)
    except ValueError as error:
        told = str(error).replace("--where:", "filter:")
        for name in asked["files"]:  # an upload's folder means nothing to its sender
            told = told.replace(name, Path(name).name)
        return alert(told)
    said = "the model's own" if used is None else used
    return results(f"{' + '.join(row)} query over {catalogue.content}. Instruction: {said}", found, shelf)


def alike(catalogue: Catalogue, shelf: Shelf, key: str, count: float, filters: str | None = None) -> str:
    """What other files hold that is like a hit on the shelf, as HTML."""
    try:
        hit = shelf.hit(key)
        found = catalogue.like(hit, int(count), filters=(filters or "").strip() or None)
    except ValueError as error:
        return alert(str(error).replace("--where:", "filter:"))
    name = Path(hit.path).name
    return results(f"Nearest to {name} in other files: near-duplicates have a score close to 1.", found, shelf)


def build(catalogue: Catalogue, shelf: Shelf) -> Any:
    """The page as Gradio's Blocks."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError('gradio: not installed; the page needs the extra: pip install "gve[app]"') from error

    def search(asked: dict[str, Any] | None, count: float, instruction: str | None, filters: str | None) -> str:
        return answer(catalogue, shelf, asked, count, instruction, filters)

    def search_typed(asked: dict[str, Any] | None, *settings: Any) -> str:
        return search(asked, *settings) if asked and (asked["text"].strip() or asked["files"]) else ""

    def search_alike(count: float, filters: str | None, event: gradio.EventData) -> str:
        return alike(catalogue, shelf, event.key, count, filters)

    with gradio.Blocks(title="Video search", analytics_enabled=False, fill_width=True) as page:
        gradio.Markdown(
            f"# Video search\n{catalogue.content}. Describe a video, drop an image or a video, or combine them: "
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
        filters = gradio.Textbox(
            label="filter",
            placeholder="duration > 60 AND folder = 'holiday'",
            info=f"SQL over {', '.join(catalogue.fields)}",
            visible=bool(catalogue.fields),
            elem_id="gve-filter",
        )
        with gradio.Accordion("Settings", open=False):
            count = gradio.Slider(1, MOST_HITS, value=HITS, step=1, label="hits")
            instruction = gradio.Textbox(
                label="instruction", info="The system message; left blank, one that suits the parts of the query."
            )
        hits = gradio.HTML(elem_id="gve-hits", js_on_load=SCRIPT)
        inputs = [query, count, instruction, filters]
        query.submit(search, inputs, hits, api_name="search")
        quiet = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        gradio.on(
            [query.change, filters.submit, count.release, instruction.submit],
            search_typed,
            inputs,
            hits,
            trigger_mode="always_last",
            **quiet,
        )
        hits.select(search_alike, [count, filters], hits, **quiet)
    return page


def serve(catalogue: Catalogue, *, host: str | None = None, port: int | None = None) -> None:
    """Show the page until interrupted.

    Args:
        catalogue: What it searches.
        host: Address to listen on; None takes the Space's, or this machine only.
        port: None takes the Space's, or the first free one from 7860.
    """
    with tempfile.TemporaryDirectory(prefix="gve-app-") as copies:
        shelf = Shelf(Path(copies))
        page = build(catalogue, shelf)
        import gradio

        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        try:
            page.launch(
                server_name=host,
                server_port=port,
                theme=gradio.themes.Default(**fonts),  # other fonts would be fetched
                css=STYLE,
                app_kwargs={"routes": [shelf.route()]},
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
        logger.info("%s at %s", catalogue.content, page.local_url)
        try:
            page.server.thread.join()
        finally:
            page.close(verbose=False)


def open_space(folder: Path) -> Catalogue:
    """The videos in a Space's `assets`, with the first of the `models` in its README."""
    models = RepoCard.load(folder / "README.md").data.to_dict().get("models")
    if not models:
        fail("README.md: names no model. Add `models:` with one Hub name to its front matter.")
    return open_catalogue(str(folder / "assets"), models[0])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    serve(open_space(Path(__file__).resolve().parent))
