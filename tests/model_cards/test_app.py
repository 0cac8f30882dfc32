"""The search page without a browser: what it answers, what it shows, and its export as a Space."""

import html
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from huggingface_hub import RepoCard
from make_videos import SPECS, make
from PIL import Image

from gve.eval.encoders import FunctionEncoder
from gve.hub_datasets.uvrb import SETS
from gve.model_cards.app import main
from gve.model_cards.catalogue import Catalogue, default_instruction, query_row
from gve.model_cards.playing import playable
from gve.model_cards.space.app import answer, open_space
from gve.video_gve import video_info
from gve.video_writer import encode_mp4

COLORS = ("red", "green", "blue")


def encode(inputs, instruction):
    """Texts that name a colour point along its axis; the vector of anything else is even."""
    rows = []
    for given in inputs:
        text = given if isinstance(given, str) else given.get("text", "")
        rows.append([float(color in text) for color in COLORS] if any(c in text for c in COLORS) else [1.0] * 3)
    vectors = np.array(rows)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def catalogue(tmp_path):
    paths = []
    for place, name in enumerate(COLORS):
        frames = np.zeros((8, 32, 32, 3), np.uint8)
        frames[..., place] = 255
        path = tmp_path / f"{name} & more.mp4"
        path.write_bytes(encode_mp4(frames, 8))
        paths.append(path)
    return Catalogue(FunctionEncoder(encode), paths, np.eye(3, dtype=np.float32), "made")


def ask(catalogue, tmp_path, text, files=(), count=2):
    return answer(catalogue, {"text": text, "files": [str(file) for file in files]}, count, None, tmp_path)


def test_the_nearest_come_first_with_their_scores(catalogue, tmp_path):
    page = ask(catalogue, tmp_path, "something green")
    names = re.findall(r'title="([^"]+)"', page)
    assert names[0] == "green &amp; more.mp4"
    assert len(names) == 2
    assert '<span class="gve-score">1.000</span>' in page
    assert page.count("<video ") == 2
    assert SETS["MSRVTT"].instruction in page


def test_a_composed_query_uses_the_instruction_of_its_parts(catalogue, tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    page = ask(catalogue, tmp_path, "the same in blue", [picture])
    assert "image + text query" in page
    assert default_instruction({"text": "", "video": ""}) == SETS["MS-TV"].instruction
    assert default_instruction({"image": "", "text": "", "video": ""}) is None


@pytest.mark.parametrize(
    ("text", "files", "message"),
    [
        ("  ", [], "it is empty"),
        ("red", ["a.txt"], "suffix"),
        ("red", ["gone.mp4"], "gone.mp4"),
    ],
)
def test_a_bad_query_is_told_on_the_page(text, files, message, catalogue, tmp_path):
    (tmp_path / "a.txt").write_text("words")
    page = ask(catalogue, tmp_path, text, [tmp_path / name for name in files])
    assert 'role="alert"' in page
    assert message in page
    assert str(tmp_path) not in page


def test_two_files_of_one_kind_are_refused(catalogue):
    with pytest.raises(ValueError, match="two files are videos"):
        query_row("", catalogue.paths[:2])


def test_text_of_a_query_is_never_markup(catalogue, tmp_path):
    bad = tmp_path / "<b>.mp4"
    bad.write_bytes(b"")
    page = ask(catalogue, tmp_path, "", [bad])
    assert "<b>" not in page


def test_a_name_of_any_bytes_is_shown_escaped_and_its_file_is_served(catalogue, tmp_path):
    clip = catalogue.paths[0].read_bytes()
    for place, name in enumerate((b"caf\xe9\n.mp4", b"caf\xe9.mp\xe9", "\u00fcber %41 #.mp4".encode())):
        catalogue.paths[place] = tmp_path / os.fsdecode(name)
        try:
            catalogue.paths[place].write_bytes(clip)
        except OSError:
            pytest.skip("the file system takes UTF-8 alone")
    page = ask(catalogue, tmp_path, "red", count=3)
    assert page.count("<video ") == 3
    assert re.findall(r'title="([^"]+)"', page) == [r"caf\udce9\n.mp4", r"caf\udce9.mp\udce9", "\u00fcber %41 #.mp4"]
    for address in re.findall(r'src="gradio_api/file=([^"]+)"', page):
        served = Path(unquote(html.unescape(address), errors="strict"))  # as a server reads it
        assert served.name.encode() and served.read_bytes()[4:8] == b"ftyp"
    again = ask(catalogue, tmp_path, "no \udcff text", count=3)
    assert again.encode() and "cannot" not in again


def test_what_browsers_do_not_play_is_copied_once(tmp_path):
    picture = tmp_path / "a.tiff"
    Image.new("RGB", (64, 32), "red").save(picture)
    kind, copy = playable(picture, tmp_path)
    assert (kind, copy.suffix) == ("image", ".png")
    before = copy.stat().st_mtime_ns
    assert playable(picture, tmp_path)[1].stat().st_mtime_ns == before


def test_what_browsers_play_is_told_by_content(tmp_path):
    """By its container, codec and pixels, and by the type under which a server sends a file of that name."""
    files = {
        "h264_gop12.mp4": ("video", "a.mp4", True),
        "h264_10bit.mkv": ("video", "b.mp4", False),
        "h264_444.mp4": ("video", "c.mp4", False),
        "vp9.webm": ("video", "d.webm", True),
        "hevc.mp4": ("video", "e.mp4", False),
        "h264.ts": ("video", "f", False),
    }
    for source, (kind, name, kept) in files.items():
        path = tmp_path / name
        path.write_bytes(make(SPECS[source]))
        shown, file = playable(path, tmp_path)
        assert (shown, file == path) == (kind, kept), name
        if not kept:
            info = video_info(file)
            assert (info.codec, file.suffix) == ("h264", ".mp4") and playable(file, tmp_path) == ("video", file)


def test_copies_of_pictures_are_upright_and_on_white(tmp_path):
    clear = Image.new("RGBA", (64, 32), (255, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    clear.save(tmp_path / "a.tiff", exif=exif, compression="tiff_lzw")
    kind, copy = playable(tmp_path / "a.tiff", tmp_path)
    with Image.open(copy) as image:
        assert (kind, image.size, image.getpixel((3, 3))) == ("image", (32, 64), (255, 255, 255))
    clear.convert("RGB").save(tmp_path / "b.png", format="TIFF")
    assert playable(tmp_path / "b.png", tmp_path)[1] != tmp_path / "b.png", "called a PNG, which a browser believes"
    frames = [clear.convert("RGB"), Image.new("RGB", (64, 32), "blue")]
    for name in ("c.gif", "d.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=200)
        assert playable(tmp_path / name, tmp_path) == ("image", tmp_path / name)
    (tmp_path / "e.txt").write_text("words")
    with pytest.raises(ValueError, match="neither a video nor an image"):
        playable(tmp_path / "e.txt", tmp_path)
    with pytest.raises(FileNotFoundError):
        playable(tmp_path / "gone.mp4", tmp_path)


def test_a_copy_of_a_file_whose_name_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mkv")
    path.write_bytes(make(SPECS["h264.mkv"]))
    kind, copy = playable(path, tmp_path)
    assert (kind, copy.suffix, copy.name.isascii()) == ("video", ".mp4", True)


def test_export_needs_a_demo_and_a_name(tmp_path, capsys):
    assert main([str(tmp_path), "--space", str(tmp_path / "space")]) == 2
    assert "is not a demo" in capsys.readouterr().err
    assert main([str(tmp_path), "--name", "org/gve"]) == 2
    assert "--name: given without --space" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_demo_becomes_a_space(tmp_path, catalogue):
    demo = tmp_path / "demo"
    videos = demo / "data" / "uvrb" / "videos"
    videos.mkdir(parents=True)
    for path in catalogue.paths:
        path.rename(videos / path.name)
    state = {"schema": "gve-demo/1", "minutes": 1, "seed": 0, "stages": {"queries": 1.0}, "facts": {}}
    (demo / "demo.json").write_text(json.dumps(state))
    assert main([str(demo), "--space", str(tmp_path / "space"), "--name", "me/mine"]) == 0
    assert sorted(path.name for path in (tmp_path / "space").iterdir()) == [
        "README.md",
        "app.py",
        "assets",
        "requirements.txt",
    ]
    card = RepoCard.load(tmp_path / "space" / "README.md")
    assert card.data.to_dict()["models"] == ["me/mine"]
    assert len(list((tmp_path / "space" / "assets").glob("*.mp4"))) == 3


def test_a_space_without_a_model_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("---\ntitle: x\nsdk: gradio\n---\n")
    with pytest.raises(ValueError, match="names no model"):
        open_space(tmp_path)
