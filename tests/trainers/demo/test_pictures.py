import numpy as np
import PIL.Image
import pytest

from gve.trainers.demo.pictures import Hit, Sheet, draw_curriculum, draw_sheet, film_strip, wrap


def test_film_strip_shows_first_and_last_frame():
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    strip = film_strip(frames, 3)
    assert strip.shape == (2, 9, 3)
    assert strip[0, ::3, 0].tolist() == [0, 4, 8]


@pytest.mark.parametrize("text", ["", "one", "a red ring and a blue box in the snow " * 9])
def test_wrap_keeps_every_word_and_the_width(text):
    lines = wrap(text, 30).split("\n")
    assert " ".join(lines).split() == text.split()
    assert max(map(len, lines)) <= 30


def test_sheet_marks_right_answers_green(tmp_path):
    grey = np.full((8, 16, 16, 3), 128, np.uint8)
    pictures = {}
    for right in (False, True):
        sheet = Sheet(
            "text query", "a red ring", grey[0], grey, [Hit("a", 0.5, right, grey), Hit("b", 0.25, False, grey)]
        )
        draw_sheet(sheet, tmp_path / f"{right}.png")
        pictures[right] = np.asarray(PIL.Image.open(tmp_path / f"{right}.png").convert("RGB")).astype(int)
    green = {k: int(((p[..., 1] - p[..., 0] > 60) & (p[..., 1] - p[..., 2] > 60)).sum()) for k, p in pictures.items()}
    assert green[False] == 0
    assert green[True] > 500


def test_curriculum_draws_every_epoch(tmp_path):
    history = {
        str(epoch): {"sigma": 0.1 + 0.45 * epoch, "probabilities": {"t2v": p, "t2i": 1 - p}, "scores": {}}
        for epoch, p in enumerate((0.5, 0.8, 0.6))
    }
    draw_curriculum(history, tmp_path / "curriculum.png", schedule="pyramid")
    draw_curriculum(history, tmp_path / "plain.png", schedule="unlock")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "curriculum.png").read_bytes()
    with PIL.Image.open(tmp_path / "curriculum.png") as picture:
        colours = {c for _, c in picture.convert("RGB").getcolors(1 << 20)}
    assert (31, 119, 180) in colours  # the first task's bars
    assert (174, 199, 232) in colours  # the second's
