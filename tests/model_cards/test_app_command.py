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
from gve.model_cards.app_command import main
from gve.model_cards.catalogue import Catalogue, default_instruction, query_row
from gve.model_cards.playing import playable
from gve.model_cards.space.app import answer, open_space
from gve.video_gve import video_info
from gve.video_writer import encode_mp4

COLORS = ("red", "green", "blue")


def encode(inputs, instruction):
    """Texts that name a colour point along its axis; the vector of anything else is even."""
    texts = [given if isinstance(given, str) else given.get("text", "") for given in inputs]
    vectors = np.array([[float(color in text) for color in COLORS] for text in texts])
    vectors[~vectors.any(1)] = 1.0
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def catalogue(tmp_path):
    paths = [tmp_path / f"{name} & more.mp4" for name in COLORS]
    for place, path in enumerate(paths):
        frames = np.zeros((8, 32, 32, 3), np.uint8)
        frames[..., place] = 255
        path.write_bytes(encode_mp4(frames, 8))
    return Catalogue(FunctionEncoder(encode), paths, np.eye(3, dtype=np.float32), "made")


def ask(catalogue, tmp_path, text, files=(), count=2):
    return answer(catalogue, {"text": text, "files": [str(file) for file in files]}, count, None, tmp_path)


def test_the_nearest_come_first_by_the_instruction_of_the_querys_parts(catalogue, tmp_path):
    page = ask(catalogue, tmp_path, "something green")
    names = re.findall(r'title="([^"]+)"', page)
    assert names[0] == "green &amp; more.mp4" and len(names) == 2
    assert '<span class="gve-score">1.000</span>' in page and page.count("<video ") == 2
    assert SETS["MSRVTT"].instruction in page
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert "image + text query" in ask(catalogue, tmp_path, "the same in blue", [tmp_path / "a.png"])
    assert default_instruction({"text": "", "video": ""}) == SETS["MS-TV"].instruction
    assert default_instruction({"image": "", "text": "", "video": ""}) is None


def test_a_bad_query_is_answered_on_the_page(catalogue, tmp_path):
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "<b>.mp4").write_bytes(b"")
    for text, files, message in (
        ("  ", [], "it is empty"),
        ("red", ["a.txt"], "suffix"),
        ("red", ["gone.mp4"], "gone.mp4"),
        ("", ["<b>.mp4"], "&lt;b&gt;"),
        ("", [path.name for path in catalogue.paths[:2]], "two files are videos"),
    ):
        page = ask(catalogue, tmp_path, text, [tmp_path / name for name in files])
        assert 'role="alert"' in page and message in page and "<b>" not in page
        assert str(tmp_path) not in page


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


def test_what_browsers_play_is_told_by_content(tmp_path):
    for source, name, kept in (
        ("h264_gop12.mp4", b"a.mp4", True),
        ("h264_10bit.mkv", b"b.mp4", False),
        ("h264_444.mp4", b"c.mp4", False),
        ("vp9.webm", b"d.webm", True),
        ("hevc.mp4", b"e.mp4", False),
        ("h264.ts", b"f", False),
        ("h264.mkv", b"caf\xe9.mkv", False),
    ):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(make(SPECS[source]))
        shown, file = playable(path, tmp_path)
        assert (shown, file == path) == ("video", kept), name
        if not kept:
            assert (video_info(file).codec, file.suffix, file.name.isascii()) == ("h264", ".mp4", True)
            assert playable(file, tmp_path) == ("video", file)


def test_copies_of_pictures_are_upright_on_white_and_made_once(tmp_path):
    clear, exif = Image.new("RGBA", (64, 32), (255, 0, 0, 0)), Image.Exif()
    exif[0x0112] = 6
    clear.save(tmp_path / "a.tiff", exif=exif, compression="tiff_lzw")
    kind, copy = playable(tmp_path / "a.tiff", tmp_path)
    with Image.open(copy) as image:
        assert (kind, image.size, image.getpixel((3, 3))) == ("image", (32, 64), (255, 255, 255))
    before = copy.stat().st_mtime_ns
    assert playable(tmp_path / "a.tiff", tmp_path)[1].stat().st_mtime_ns == before
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


def test_a_demo_becomes_a_space(tmp_path, catalogue, capsys):
    demo, space = tmp_path / "demo", tmp_path / "space"
    for arguments, message in (
        ([tmp_path, "--space", space], "is not a demo"),
        ([tmp_path, "--name", "org/gve"], "--name: given without --space"),
        ([tmp_path / "none"], "does not exist"),
    ):
        assert main([str(one) for one in arguments]) == 2 and message in capsys.readouterr().err
    videos = demo / "data" / "uvrb" / "videos"
    videos.mkdir(parents=True)
    for path in catalogue.paths:
        path.rename(videos / path.name)
    state = {"schema": "gve-demo/1", "minutes": 1, "seed": 0, "stages": {"queries": 1.0}, "facts": {}}
    (demo / "demo.json").write_text(json.dumps(state))
    assert main([str(demo), "--space", str(space), "--name", "me/mine"]) == 0
    assert {path.name for path in space.iterdir()} == {"README.md", "app.py", "assets", "requirements.txt"}
    assert RepoCard.load(space / "README.md").data.to_dict()["models"] == ["me/mine"]
    assert len(list((space / "assets").glob("*.mp4"))) == 3
    (space / "README.md").write_text("---\ntitle: x\nsdk: gradio\n---\n")
    with pytest.raises(ValueError, match="names no model"):
        open_space(space)
    with pytest.raises(ValueError, match="Give a text, an image, a video"):
        query_row("", [])
