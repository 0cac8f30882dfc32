import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import RepoCard
from make_videos import SPECS, make
from PIL import Image

from gve.eval.encoders import FunctionEncoder
from gve.eval.index.rows import Levels, Segment
from gve.eval.index.table import Index
from gve.eval.index.writing import Writer
from gve.eval.inputs import default_instruction
from gve.eval.search import MemoryCorpus
from gve.eval.store import FileEmbeddings
from gve.hub_datasets.uvrb import SETS
from gve.model_cards.app_command import main
from gve.model_cards.catalogue import Catalogue, query_row
from gve.model_cards.hits import Shelf
from gve.model_cards.playing import copy_for_browsers, view_of
from gve.model_cards.space.app import alike, answer, open_space
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
    vectors = np.eye(3, dtype=np.float32)
    return Catalogue(
        FunctionEncoder(encode), MemoryCorpus(FileEmbeddings(list(map(str, paths)), vectors, model="made"))
    )


def ask(catalogue, tmp_path, text, files=(), count=2, **options):
    asked = {"text": text, "files": [str(file) for file in files]}
    return answer(catalogue, options.pop("shelf", Shelf(tmp_path)), asked, count, None, **options)


def sent(shelf):
    """A client of the route that sends files."""
    client = pytest.importorskip("starlette.testclient").TestClient
    return client(pytest.importorskip("starlette.applications").Starlette(routes=[shelf.route()]))


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
        ("", [Path(path).name for path in catalogue.corpus.embeddings.paths[:2]], "two files are videos"),
    ):
        page = ask(catalogue, tmp_path, text, [tmp_path / name for name in files])
        assert 'role="alert"' in page and message in page and "<b>" not in page
        assert str(tmp_path) not in page


def test_a_name_of_any_bytes_is_shown_escaped_and_its_file_is_sent(catalogue, tmp_path):
    paths, shelf = catalogue.corpus.embeddings.paths, Shelf(tmp_path)
    clip = Path(paths[0]).read_bytes()
    for place, name in enumerate((b"caf\xe9\n.mp4", b"caf\xe9.mp\xe9", "\u00fcber %41 #.mp4".encode())):
        paths[place] = str(tmp_path / os.fsdecode(name))
        try:
            Path(paths[place]).write_bytes(clip)
        except OSError:
            pytest.skip("the file system takes UTF-8 alone")
    page = ask(catalogue, tmp_path, "red", count=3, shelf=shelf)
    assert re.findall(r'title="([^"]+)"', page) == [r"caf\udce9\n.mp4", r"caf\udce9.mp\udce9", "\u00fcber %41 #.mp4"]
    addresses = re.findall(r'<video src="([^"]+)"', page)
    assert [sent(shelf).get(address).content[4:8] for address in addresses] == [b"ftyp"] * 3
    part = sent(shelf).get(addresses[0], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp"), "else no browser jumps to a moment"
    assert sent(Shelf(tmp_path)).get(addresses[0]).status_code == 404, "only what was shown is sent"
    again = ask(catalogue, tmp_path, "no \udcff text", count=3)
    assert again.encode() and "cannot" not in again


def test_a_file_that_is_gone_or_broken_is_shown_as_such(catalogue, tmp_path):
    first, second, _ = map(Path, catalogue.corpus.embeddings.paths)
    shelf = Shelf(tmp_path)
    address = re.search(r'<video src="([^"]+)"', ask(catalogue, tmp_path, "red", count=1, shelf=shelf))[1]
    first.unlink()
    second.write_bytes(b"words")
    page = ask(catalogue, tmp_path, "red", count=3)
    assert page.count("the file is gone") == page.count("cannot be shown") == page.count("<video ") == 1
    assert sent(shelf).get(address).status_code == 404


@pytest.fixture
def index(tmp_path):
    """Two windows of a long file that overlap, one apart from them, and a copy of the file under another name."""
    pytest.importorskip("lancedb")
    for name in ("long.mkv", "copy.mp4"):
        (tmp_path / name).write_bytes(make(SPECS["h264.mkv" if name == "long.mkv" else "h264_gop12.mp4"]))
    levels = Levels(files=False, window=1.0, stride=0.5)
    made = {"model": "made", "fingerprint": "made", "width": 3, "levels": levels, "settings": {}}
    index = Index.create(str(tmp_path / "index"), **made)
    Writer(index).widen({"place": pa.string()})
    rows = []
    for name, start, vector in (
        ("long.mkv", 0.0, (1.0, 0.0, 0.0)),
        ("long.mkv", 0.5, (0.96, 0.28, 0.0)),
        ("long.mkv", 2.0, (0.0, 0.0, 1.0)),
        ("copy.mp4", 0.5, (0.9, 0.3, (1 - 0.9) ** 0.5)),
    ):
        segment, path = Segment("window", start, start + 1), str(tmp_path / name)
        row = {"id": segment.key(path), "path": path, "folder": tmp_path.name, "kind": "video", **segment._asdict()}
        rows.append(row | {"duration": 3.0, "place": "<sea>", "vector": np.float32(vector)})
    index.segments.add(pa.Table.from_pylist(rows, schema=index.segments.schema))
    return Catalogue(FunctionEncoder(encode), index)


def test_moments_of_an_index_are_merged_filtered_and_played_from_their_start(index, tmp_path):
    shelf = Shelf(tmp_path)
    page = ask(index, tmp_path, "red", count=8, shelf=shelf)
    assert re.findall(r'gve-time">([^<]+)<', page) == ["0:00.0 to 0:01.5", "0:00.5 to 0:01.5", "0:02.0 to 0:03.0"]
    assert 'data-start="0.500" data-end="1.500"' in page and "&lt;sea&gt;" in page and "4 files and moments" in page
    copy = sent(shelf).get(re.search(r'<video src="([^"#]+)"', page)[1]).content
    (tmp_path / "sent.mp4").write_bytes(copy)
    assert video_info(tmp_path / "sent.mp4").duration == pytest.approx(1.5, abs=0.1), "the copy holds the moment alone"
    assert ask(index, tmp_path, "red", filters="start > 1").count("<video ") == 1
    assert "filter: there is no column" in ask(index, tmp_path, "red", filters="length > 1")
    key = re.search('data-like="([^"]+)"', page)[1]
    assert re.findall(r'title="(\w+)', alike(index, shelf, key, 8)) == ["copy"]
    assert alike(index, shelf, key, 8, filters="start > 1").count("<video ") == 0
    assert "Search again" in alike(index, Shelf(tmp_path), key, 8)


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
        assert view_of(path) == ("video", not kept), name
        if not kept:
            file = copy_for_browsers(path, tmp_path)
            assert (video_info(file).codec, file.suffix, file.name.isascii()) == ("h264", ".mp4", True)
            assert view_of(file) == ("video", False)


def test_copies_of_pictures_are_upright_on_white_and_made_once(tmp_path):
    clear, exif = Image.new("RGBA", (64, 32), (255, 0, 0, 0)), Image.Exif()
    exif[0x0112] = 6
    clear.save(tmp_path / "a.tiff", exif=exif, compression="tiff_lzw")
    copy = copy_for_browsers(tmp_path / "a.tiff", tmp_path)
    with Image.open(copy) as image:
        assert (image.size, image.getpixel((3, 3))) == ((32, 64), (255, 255, 255))
    before = copy.stat().st_mtime_ns
    assert copy_for_browsers(tmp_path / "a.tiff", tmp_path).stat().st_mtime_ns == before
    clear.convert("RGB").save(tmp_path / "b.png", format="TIFF")
    assert view_of(tmp_path / "b.png") == ("image", True), "called a PNG, which a browser believes"
    frames = [clear.convert("RGB"), Image.new("RGB", (64, 32), "blue")]
    for name in ("c.gif", "d.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=200)
        assert view_of(tmp_path / name) == ("image", False)
    (tmp_path / "e.txt").write_text("words")
    with pytest.raises(ValueError, match="neither a video nor an image"):
        view_of(tmp_path / "e.txt")
    with pytest.raises(FileNotFoundError):
        view_of(tmp_path / "gone.mp4")


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
    for path in map(Path, catalogue.corpus.embeddings.paths):
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
