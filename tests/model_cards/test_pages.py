import json

import numpy as np
import pytest
from browser import foreign_requests, open_browser, serve, skip_without_browser, wait
from snippets import ROOT

from gve import save_embedder
from gve.__main__ import main as gve
from gve.video_writer import encode_mp4

pytestmark = pytest.mark.browser
skip_without_browser()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    root = tmp_path_factory.mktemp("page")
    save_embedder(root / "model", *tiny)
    (root / "videos").mkdir()
    for place, name in enumerate(("red", "green", "blue")):
        frames = np.zeros((24, 48, 48, 3), np.uint8)
        frames[..., place] = np.linspace(40, 255, 24, dtype=np.uint8)[:, None, None]
        (root / "videos" / f"{name}.mp4").write_bytes(encode_mp4(frames, 8))
    return root


def test_a_typed_query_shows_hits_that_play(folder):
    command = ["-m", "gve", "app", folder / "videos", "--model", folder / "model"]
    with serve(command, folder) as (address, lines), open_browser(folder / "profile") as page:
        page.get(address)
        box = wait(page, "document.querySelector('#gve-query textarea')")
        box.send_keys("a red square\n")
        assert wait(page, "document.querySelectorAll('.gve-hit').length") == 3
        playing = "[...document.querySelectorAll('.gve-hit video')].filter(v => v.currentTime > 0.2).length"
        assert wait(page, playing) >= 1
        scores = page.execute_script("return [...document.querySelectorAll('.gve-score')].map(s => +s.textContent)")
        assert scores == sorted(scores, reverse=True) and foreign_requests(page) == []
    assert "Traceback" not in "".join(lines)


@pytest.fixture(scope="module")
def index(folder):
    """Windows of two long videos, one a copy of the other, and whole files."""
    pytest.importorskip("lancedb")
    (folder / "long").mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (96, 48, 48, 3), np.uint8)
    for name in ("first.mp4", "second.mp4"):
        (folder / "long" / name).write_bytes(encode_mp4(frames, 8))
    options = ["--model", str(folder / "model"), "--window", "1"]
    assert gve(["index", "add", str(folder / "index"), str(folder / "long"), *options]) == 0
    return folder / "index"


def test_hits_of_an_index_come_while_typing_and_play_their_moment(folder, index):
    with serve(["-m", "gve", "app", index], folder) as (address, lines), open_browser(folder / "profile3") as page:
        page.get(address)
        wait(page, "document.querySelector('#gve-query textarea')").send_keys("a red squ")  # and no Enter
        assert wait(page, "document.querySelectorAll('.gve-hit').length") >= 4
        moment = "[...document.querySelectorAll('video[data-start]')].filter(v => v.dataset.start > 2)[0]"
        start, end = page.execute_script(f"const v = {moment}; return [+v.dataset.start, +v.dataset.end]")
        page.execute_script(f"const v = {moment}; v.scrollIntoView(); window.moment = v; window.times = []")
        page.execute_script("moment.addEventListener('timeupdate', () => times.push(moment.currentTime))")
        times = wait(page, "times.some((t, i) => i && t < times[i - 1] - 0.2) && times")
        assert start - 0.1 <= min(times) and max(times) < end + 1, "it plays and begins again, within its moment"
        page.find_element("css selector", "#gve-filter input, #gve-filter textarea").send_keys("level = 'file'\n")
        assert wait(page, "document.querySelectorAll('.gve-hit').length == 2")
        name = page.execute_script("return document.querySelector('.gve-name').textContent")
        page.execute_script("document.querySelector('[data-like]').click()")
        wait(page, "document.querySelector('.gve-note').textContent.startsWith('Nearest')")
        first = page.execute_script("return document.querySelector('.gve-hit').textContent")
        assert "1.000" in first and name not in first
        assert foreign_requests(page) == []
    assert "Traceback" not in "".join(lines)


def test_the_metrics_page_scores_arrays(folder):
    np.save(folder / "queries.npy", np.eye(2, 3, dtype=np.float32))
    np.save(folder / "corpus.npy", np.eye(3, dtype=np.float32))
    with (
        serve([ROOT / "eval" / "video_retrieval" / "app.py"], folder) as (address, lines),
        open_browser(folder / "profile2") as page,
    ):
        page.get(address)
        wait(page, "document.querySelectorAll('input[type=file]').length == 2")
        for place, name in enumerate(("queries.npy", "corpus.npy")):
            inputs = page.find_elements("css selector", "input[type=file]")
            inputs[0 if place == 0 else -1].send_keys(str(folder / name))
            wait(page, f"document.body.innerText.includes('{name.removesuffix('.npy')}')")
        box = page.find_element("css selector", "textarea")
        box.clear()
        box.send_keys(json.dumps([[0], [1]]))
        page.execute_script("[...document.querySelectorAll('button')].find(b => b.innerText == 'Submit').click()")
        assert wait(page, "document.body.innerText.includes('recall@1')")
    assert "Traceback" not in "".join(lines)
