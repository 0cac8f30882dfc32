"""How soon the page shows hits of what is being typed, over an index: the shipped tiny model, random vectors.

    python tests/bench/page.py --rows 100000

Times from each letter in headless Chromium until the page shows the hits of the text up to there, and beside it what of
that the server needs. Rows are windows, four a file; the files are links to a few rendered clips. Needs the extras
`browser` and `index`.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
from browser import open_browser, serve, wait
from common import head, make_parser, say

import gve
from gve.eval.index.rows import Levels, Segment
from gve.eval.index.table import Index
from gve.eval.models import model_fingerprint
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes
from gve.model_cards.catalogue import open_catalogue
from gve.model_cards.hits import Shelf
from gve.model_cards.space.app import HITS, answer
from gve.tiny.demo import CHECKPOINT

TEXT = "a red ring left of a blue square in the snow"
CLIPS, WINDOWS, SECONDS = 16, 4, 0.5
WATCH = """
const keys = () => [...document.querySelectorAll('[data-like]')].map(each => each.dataset.like).join();
let before = keys();
window.typed = []; window.seen = [];
document.querySelector('#gve-query textarea').addEventListener('input', () => typed.push(performance.now()));
const look = () => { if (keys() !== before) { before = keys(); seen.push(performance.now()); } };
new MutationObserver(() => requestAnimationFrame(look))
  .observe(document.querySelector('#gve-hits'), {childList: true, subtree: true, characterData: true});
"""


def make_index(folder, rows):
    """An index of windows with random vectors, whose files are links to a few clips."""
    rng, width = np.random.default_rng(0), gve.load_demo().encode_query(["a"]).shape[1]
    for number in range(CLIPS):
        (folder / f"clip{number}.mp4").write_bytes(video_bytes((sample_clip(rng, "seen"),)))
    levels, fingerprint = Levels(files=False, window=SECONDS), model_fingerprint(str(CHECKPOINT))
    made = {"model": str(CHECKPOINT), "fingerprint": fingerprint, "width": width, "levels": levels}
    index = Index.create(str(folder / "index"), **made, settings={"num_frames": 8})
    (folder / "files").mkdir()
    vectors = rng.standard_normal((rows, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = []
    for number, vector in enumerate(vectors):
        path = folder / "files" / f"clip{number // WINDOWS:06d}.mp4"
        if number % WINDOWS == 0:
            path.symlink_to(folder / f"clip{number // WINDOWS % CLIPS}.mp4")
        segment = Segment("window", number % WINDOWS * SECONDS, (number % WINDOWS + 1) * SECONDS)
        row = {"id": segment.key(path), "path": str(path), "folder": "files", "kind": "video", "duration": 2.0}
        table.append(row | segment._asdict() | {"vector": vector})
    index.segments.add(pa.Table.from_pylist(table, schema=index.segments.schema))
    index.segments.optimize()


def time_server(folder, clock):
    """Milliseconds of an answer to each beginning of the text, the first aside."""
    catalogue, times = open_catalogue(str(folder / "index")), []
    for length in range(1, len(TEXT) + 1):
        start = clock()
        page = answer(catalogue, Shelf(folder), {"text": TEXT[:length], "files": []}, HITS, None)
        times.append(1e3 * (clock() - start))
        assert page.count("<video ") == HITS, page
    return times[1:]


def time_browser(folder, pause):
    """Milliseconds from each letter to the page with its hits, the first aside."""
    times = []
    with (
        serve(["-m", "gve", "app", folder / "index"], folder) as (address, _),
        open_browser(folder / "profile") as page,
    ):
        page.get(address)
        box = wait(page, "document.querySelector('#gve-query textarea')")
        page.execute_script(WATCH)
        for letter in TEXT:
            page.execute_script("window.typed = []; window.seen = []")
            box.send_keys(letter)
            time.sleep(pause)
            typed, seen = page.execute_script("return [window.typed, window.seen]")
            if seen:  # a blank at the end changes nothing
                times.append(seen[0] - typed[0])
    return times[1:]


def main():
    """Make the index, time the server, then the browser."""
    parser = make_parser(__doc__, rows=100_000, pause=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_index(folder, arguments.rows)
        say(head("| of each letter, ms | median | p95 | most | letters |"))
        for label, times in (
            ("CPU of an answer", time_server(folder, time.process_time)),
            ("answer of the server", time_server(folder, time.perf_counter)),
            ("letter to hits on the page", time_browser(folder, arguments.pause)),
        ):
            middle, late = statistics.median(times), np.percentile(times, 95)
            say(f"| {label} | {middle:.0f} | {late:.0f} | {max(times):.0f} | {len(times)} |")


if __name__ == "__main__":
    main()
