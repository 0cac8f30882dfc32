import base64
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from gve import Frames
from gve.frames_gve import Form
from gve.image_gve import Picture, image_size, open_image
from gve.inputs_gve import ParsedInput, chat_of, parse_input, parse_inputs, resolve_path
from gve.media_gve import media_kind

FRAMES = Frames(np.zeros((2, 8, 9, 3), np.uint8), [0.0, 1.0], 2.0)
PICTURE = PIL.Image.new("RGB", (8, 8))


def user(*items):
    return {"role": "user", "content": list(items)}


def test_plain_rows(media):
    path, image = str(media / "a.mp4"), media / "i.png"
    assert parse_input("words", 0) == ParsedInput("words", [], [])
    assert parse_input({"video": path}, 0) == ParsedInput(None, [], [path])
    assert parse_input({"image": image, "video": None}, 0) == ParsedInput(None, [image], [])
    assert parse_input(path, 0) == ParsedInput(None, [], [Form(file=path, size=(48, 64))])
    assert parse_input(image, 0) == ParsedInput(None, [Picture(image, (70, 90))], [])
    assert parse_input(parse_input(path, 0), 0) == parse_input(path, 0)
    for blank in ("", " ", {"text": ""}, user({"type": "text", "text": ""})):  # benchmarks hold some
        assert parse_input(blank, 0).text in ("", " ")
    assert parse_input(PICTURE, 0).images == [PICTURE]
    assert parse_input(FRAMES, 0).videos == [FRAMES]
    array = np.zeros((8, 8, 3), np.uint8)
    assert parse_input(array, 0).images == [array]
    assert parse_input(torch.zeros(2, 3, 8, 8), 0).videos[0].shape == (2, 3, 8, 8)
    timed = {"frames": array[None], "fps": 2.0}
    assert parse_input(timed, 0).videos[0] is timed


def test_lists_in_a_row(media):
    path, image = str(media / "a.mp4"), str(media / "i.png")
    assert parse_input({"text": ["a", "b"]}, 0).text == "a\nb"
    assert parse_input({"image": [image, PICTURE]}, 0).images == [image, PICTURE]
    assert parse_input({"video": [path, b"x"]}, 0).videos == [path, b"x"]
    for frames in ([PICTURE, PICTURE], (image, image), [np.zeros((4, 4, 3), np.uint8)] * 2):
        assert parse_input({"video": frames}, 0).videos == [list(frames)]


@pytest.mark.parametrize("form", [list, tuple])
def test_chats(form):
    system = {"role": "system", "content": [{"type": "text", "text": "find"}]}
    message = user(
        {"type": "text", "text": "a"},
        {"type": "image", "image": PICTURE},
        {"type": "image", "path": "i.png"},
        {"type": "image_url", "image_url": {"url": "j.png"}},
        {"type": "image", "base64": "QUJD"},
        {"type": "video", "url": "a.mp4"},
        {"type": "video", "video": None},
        {"type": "text", "text": "b"},
    )
    row = ParsedInput("a\nb", [PICTURE, "i.png", "j.png", "data:;base64,QUJD"], ["a.mp4"], "find")
    assert parse_input(form([system, message]), 0) == row
    assert parse_input(message, 0) == row._replace(system=None)
    assert parse_input([{"role": "user", "content": "a"}], 0) == ParsedInput("a", [], [])
    kinds = [item["type"] for item in chat_of(row)[1]["content"]]
    assert kinds == ["video", "image", "image", "image", "image", "text"]
    assert chat_of(row)[0] == system and parse_input(chat_of(row), 0) == row


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"text": None, "image": None}, r"inputs\[2\]: got no text, no image and no video"),
        ({}, "no text"),
        (user(), "no text"),
        ("a \ud83d b", r"inputs\[2\]: got a text with half a character"),
        ({"text": "\udfff", "image": PICTURE}, "half a character"),
        (3, r"inputs\[2\]: got int; accepted are a text"),
        (b"bytes", r"got bytes; .* wrap it as"),
        ([PICTURE, PICTURE], "got list"),
        ({"words": "x"}, r"inputs\[2\]: unknown modality key 'words'"),
        ({"text": "x", "id": 3, "label": 1}, "unknown modality key 'id', 'label'"),
        ({"bytes": b"x", "path": None}, r"unknown modality key 'bytes', 'path'.*wrap the row"),
        ({"text": 4}, r"inputs\[2\]\['text'\]: got int"),
        ({"text": ["a", None]}, r"\['text'\]: got list"),
        ({"image": []}, r"\['image'\]: got an empty list"),
        ({"video": []}, r"\['video'\]: got an empty list, that is, zero frames"),
        ({"video": ["a.mp4", None]}, "a None in a list"),
        ({"video": [PICTURE, "a.mp4"]}, "a list of images and of other things"),
        ([{"role": "assistant", "content": "a"}], r"roles \['assistant'\]; accepted is one message of the user"),
        ([user(), user()], "words of several turns"),
        ([{"type": "text", "text": "a"}], r"roles \[None\]"),
        ({"role": "user", "content": None}, r"\['content'\]: got NoneType"),
        (user("words"), r"\['content'\]\[0\]: got type 'str'"),
        (user({"type": "audio", "audio": "a.wav"}), "got type 'audio'"),
        (user({"type": "image"}), "got an item of type 'image' without its image"),
        (user({"type": "video", "video": "a.mp4", "fps": 2}), r"got keys \['video', 'fps'\]"),
        (user({"type": "text", "text": 3}), r"\[0\]\['text'\]: got int"),
        ([{"role": "system", "content": [{"type": "image", "image": "a"}]}, user()], "media in a system message"),
    ],
)
def test_refused_rows(row, match):
    with pytest.raises(ValueError, match=match):
        parse_inputs(["a", "b", row])


def test_a_row_that_is_not_in_a_list():
    for inputs in ("words", b"x", {"text": "a"}, PICTURE, FRAMES, np.zeros(3), Path("a"), 3, None):
        with pytest.raises(ValueError, match=r"inputs: got \w+; accepted is a list of rows"):
            parse_inputs(inputs)
    with pytest.raises(ValueError, match="inputs: got an empty list"):
        parse_inputs([])


@pytest.mark.parametrize(
    "name",
    [
        *("nowhere.mp4", "/tmp/no/a b.webm", "x.m4v", "y.JPG", "z.gif", Path("p.mkv"), "a\0.mp4", "00001.MTS"),
        *("i.avif", "file:///no/a.mp4", "photo.jpg?w=100", Path("notes")),
    ],
)
def test_missing_media_is_never_a_text(name):
    with pytest.raises(FileNotFoundError, match=r"inputs\[1\]: got .* no file is named"):
        parse_inputs(["fine", name])
    assert parse_input({"text": str(name)}, 0).text == str(name)
    if isinstance(name, str) and " " not in name:
        with pytest.raises(FileNotFoundError):
            resolve_path(user({"type": "text", "text": name}))
    with pytest.raises(ValueError, match=r"got the address 'https://x.org/a.mp4'"):
        parse_inputs(["https://x.org/a.mp4"])


def test_texts_that_name_files(media):
    path = str(media / "b.webm")
    found = resolve_path(user({"type": "text", "text": path}))
    assert found == user({"type": "video", "video": Form(file=path, size=(48, 64))})
    for other in (user({"type": "text", "text": "a film called movie.mp4"}), {"role": "system", "content": path}):
        assert resolve_path(other) is other
    assert media_kind("the camera films a file called movie.mp4 and more") is None
    assert media_kind("a\nb.mp4") is None


def test_every_form_of_an_image(media):
    expected = PIL.Image.open(media / "i.png").convert("RGB")
    path, data, pixels = media / "i.png", (media / "i.png").read_bytes(), np.asarray(expected)
    forms = [
        *(path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), PIL.Image.open(path), expected),
        *({"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, {"path": str(path)}),
        "data:image/png;base64," + base64.b64encode(data).decode(),
        *(pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels.copy()), torch.tensor(pixels).permute(2, 0, 1)),
        *(pixels / 255, torch.tensor(pixels) / 255, (torch.tensor(pixels) / 255).requires_grad_()),
        {"array": pixels.transpose(2, 0, 1), "layout": "CHW"},
    ]
    for form in forms:
        assert np.array_equal(np.asarray(open_image(form)), pixels)
        assert image_size(form) == (70, 90)


def test_every_mode_of_an_image():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = np.repeat(ramp[..., None], 3, -1)
    deep = ramp.astype(np.uint16) * 257
    modes = [ramp, deep, deep.astype(np.int32), (ramp / 255).astype(np.float32)]
    for image in (*map(PIL.Image.fromarray, modes), ramp[..., None], ramp[None]):
        assert np.array_equal(np.asarray(open_image(image)), grey)
    colour = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
    for mode in ("CMYK", "YCbCr", "HSV", "LAB", "1", "P"):
        assert open_image(colour.convert(mode)).mode == "RGB"
    assert np.abs(np.asarray(open_image(colour.convert("CMYK")), int) - np.asarray(colour)).max() <= 1


def test_refused_images(media, tmp_path):
    data = (media / "i.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "bad.png").write_bytes(b"no image")
    for image, match in (
        (tmp_path / "cut.png", r"image: '.*cut\.png' cannot be read \(.*truncated"),
        (tmp_path / "bad.png", r"bad\.png' cannot be read"),
        (b"no image", "'<bytes>' cannot be read"),
        ((media / "a.mp4").read_bytes(), "got the video '<bytes>'.* pass {'video'"),
        (str(media / "a.mp4"), r"got the video '.*a\.mp4'; accepted is an image"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"got a video, an array of shape \(2, 8, 8, 3\)"),
        (FRAMES, "got Frames"),
        (4, "image: got int"),
        ({"bytes": None, "path": None}, "one of them must be set"),
        ({"frames": 1}, r"got a dict of \['frames'\]"),
        ("data:image/png;base64,&", "data address that cannot be read"),
        ("https://x.org/i.png", "got the address"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\); accepted are 1 or 3 channels"),
        (np.zeros((3, 64, 3), np.uint8), r"reads as HWC and as CHW; .*'layout': 'CHW'"),
        (np.zeros((1, 64, 3), np.uint8), "reads as HWC and as CHW"),
        ({"array": np.zeros((3, 64, 8), np.uint8), "layout": "HWC"}, "1 or 3 channels"),
        ({"array": np.zeros((3, 64, 8), np.uint8), "layout": "WHC"}, "layout: got 'WHC'"),
        (np.zeros((0, 4, 3), np.uint8), "which has no pixels"),
        (np.zeros((8, 8, 3), np.int64), "of type int64"),
        (np.full((8, 8, 3), np.nan), "NaN or infinite"),
        (np.full((8, 8, 3), np.inf), "NaN or infinite"),
        (np.full((8, 8, 3), 255.0), "floats from 255 to 255; .*divide by 255"),
        (np.full((8, 8, 3), -0.5), "floats from -0.5"),
        (PIL.Image.fromarray(np.full((4, 4), 70000, np.int32)), "grey levels from 70000"),
        (np.zeros((1000, 4, 3), np.uint8), "got 4 x 1000 pixels; accepted is a longer side of at most 200"),
    ):
        with pytest.raises(ValueError, match=match):
            open_image(image)
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        open_image(tmp_path / "gone.png")
    assert open_image({"array": np.zeros((3, 64, 3), np.uint8), "layout": "CHW"}).size == (3, 64)
    assert open_image({"array": np.zeros((3, 64, 3), np.uint8), "layout": "HWC"}).size == (64, 3)
