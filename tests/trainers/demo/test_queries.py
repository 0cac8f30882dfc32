import io

import numpy as np
import PIL.Image

from gve.trainers.demo.queries import Hit, draw_sheet, film_strip
from gve.video_writer import encode_mp4


def test_film_strip_shows_first_and_last_frame():
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    strip = film_strip(frames, 3)
    assert strip.shape == (2, 9, 3)
    assert strip[0, ::3, 0].tolist() == [0, 4, 8]


def test_sheet_marks_right_answers_green(tmp_path):
    grey = np.full((8, 16, 16, 3), 128, np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(grey[0]).save(buffer, format="PNG")
    query = {"text": "a red ring", "image": buffer.getvalue(), "video": encode_mp4(grey, 8)}
    greens = []
    for right in (False, True):
        hits = [Hit("a", 0.5, right, grey), Hit("b", 0.25, False, grey)]
        draw_sheet("text query", query, hits, tmp_path / f"{right}.png")
        pixels = np.asarray(PIL.Image.open(tmp_path / f"{right}.png").convert("RGB")).astype(int)
        greens.append(int(((pixels[..., 1] - pixels[..., 0] > 60) & (pixels[..., 1] - pixels[..., 2] > 60)).sum()))
    assert greens[0] == 0 and greens[1] > 500
