"""Makes the README's moving picture of the page: a text query, a picture query, and its hits playing.

    python tests/make_page_gif.py tests/page.gif [DEMO]

DEMO is a folder of `gve demo`; without it, `gve demo --quick` makes one. Needs the extra `browser` and Chromium.
"""

import io
import sys
import tempfile
import time
from pathlib import Path

from browser import open_browser, serve, wait
from PIL import Image

from gve.__main__ import main as gve
from gve.hub_datasets.uvrb import load_set
from gve.image_gve import open_image

WIDTH, HEIGHT, SHOWN_WIDTH, COLOURS = 1000, 1000, 760, 128
TYPED, SHORT, LONG = 11, 160, 1400
"""Letters typed between two pictures; milliseconds of a picture in motion, and of one to be looked at."""
SETS, PICTURE = ("MSRVTT", "MSRVTT-I2V"), 3
"""The sets of the text and of the picture, and which of its pictures is dropped."""


class Recorder:
    """Pictures of a page, and how long each is shown."""

    def __init__(self, page):
        self.page, self.pictures, self.times = page, [], []

    def take(self, milliseconds):
        picture = Image.open(io.BytesIO(self.page.get_screenshot_as_png())).convert("RGB")
        self.pictures.append(picture.resize((SHOWN_WIDTH, round(picture.height * SHOWN_WIDTH / picture.width))))
        self.times.append(milliseconds)

    def take_playing(self, count):
        for _ in range(count):
            time.sleep(0.05)
            self.take(SHORT)

    def save(self, path):
        """All pictures in the same colours, so that what stands still costs nothing."""
        some = self.pictures[4::5]
        sheet = Image.new("RGB", (SHOWN_WIDTH, sum(picture.height for picture in some)))
        for place, picture in enumerate(some):
            sheet.paste(picture, (0, place * picture.height))
        palette = sheet.quantize(COLOURS)
        first, *rest = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in self.pictures]
        first.save(path, save_all=True, append_images=rest, duration=self.times, loop=0, optimize=False)


def record(page, recorder, text, picture):
    """Type a text, look at its hits, ask with a picture, and watch."""
    box = wait(page, "document.querySelector('#gve-query textarea')")
    wait(page, "document.readyState == 'complete'")
    recorder.take(2 * SHORT)
    for start in range(0, len(text), TYPED):
        box.send_keys(text[start : start + TYPED])
        settle(page, "text query")
        recorder.take(4 * SHORT)
    recorder.take(LONG)
    recorder.take_playing(5)
    box.send_keys("\ue009a\ue017")  # Ctrl-A, Delete
    page.find_element("css selector", "#gve-query input[type=file]").send_keys(str(picture))
    settle(page, "image query")
    recorder.take(LONG)
    recorder.take_playing(8)


def settle(page, note):
    """Wait until the hits of a query are there, play, and change no more."""
    wait(page, "document.querySelector('.gve-note')?.textContent.startsWith(arguments[0])", note)
    hits = None
    while hits != (hits := page.execute_script("return document.querySelector('#gve-hits').innerHTML")):
        time.sleep(0.7)
    wait(page, "[...document.querySelectorAll('.gve-hit video')].some(video => video.currentTime > 0.1)")


def main(out, demo=None):
    """Serve a demo's page, use it, and write what it looked like."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = Path(demo or folder / "demo").absolute()
        if demo is None and gve(["demo", "--quick", "--out", str(root)]):
            sys.exit("gve demo --quick failed")
        texts, pictures = (load_set(root / "data" / "uvrb", name, "unseen").queries for name in SETS)
        open_image(pictures[PICTURE]["image"]).save(folder / "picture.png")
        with serve(["-m", "gve", "app", root], folder) as (address, _), open_browser(folder / "profile") as page:
            metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            page.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
            page.get(address)
            recorder = Recorder(page)
            record(page, recorder, texts[0]["text"], folder / "picture.png")
        recorder.save(out)
    sys.stdout.write(f"{out}: {len(recorder.times)} pictures, {sum(recorder.times) / 1000:.1f} s, ")
    sys.stdout.write(f"{Path(out).stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
