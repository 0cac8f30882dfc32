"""Rows and files as encoder inputs, and the search for files."""

import io
from pathlib import Path

import numpy as np
import pytest
from labelled_folder import clip
from PIL import Image
from sentence_transformers.base.modality import infer_modality
from uvrb_folder import png

from gve.eval.inputs import encoder_input, file_row, find_files


def stored(content=None, path=None):
    return {"bytes": content, "path": path}


@pytest.mark.parametrize(
    "text", ["clip.mp4", "See photo.JPG", "https://a.b/c.webm", "data:image/png;base64,xx", "x.m4v"]
)
def test_text_that_names_a_medium_stays_text(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").touch()
    assert encoder_input({"text": text}) == {"text": text}
    assert infer_modality(encoder_input({"text": text})) == "text"


def test_parts_come_in_one_order_without_none():
    item = encoder_input({"text": "and then", "image": stored(png(7)), "video": stored(b"clip 1"), "id": "q"})
    assert list(item) == ["video", "image", "text"]
    assert infer_modality(item) == ("image", "text", "video")
    assert isinstance(item["video"], io.BytesIO)
    assert item["video"].read() == b"clip 1"
    assert (item["image"].mode, item["image"].getpixel((0, 0))) == ("RGB", (7, 0, 0))
    assert list(encoder_input({"text": "x", "image": None, "video": stored(b"v")})) == ["video", "text"]
    assert encoder_input({"id": "q0", "text": "a dog", "image": None, "video": None}) == "a dog"


def test_paths_and_decoded_objects(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(9))
    for image in (stored(path=str(path)), path):
        assert encoder_input({"image": image})["image"].getpixel((0, 0)) == (9, 0, 0)
    for video in (stored(path="b.mp4"), Path("b.mp4")):
        assert encoder_input({"video": video}) == {"video": "b.mp4"}
    frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    assert encoder_input({"video": frames})["video"] is frames
    image = Image.new("RGB", (8, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    assert encoder_input({"image": tmp_path / "a.jpg"})["image"].size == (2, 8)


def test_empty_rows_are_refused():
    with pytest.raises(ValueError, match=r"row: keys \['id', 'text'\] hold no text, image or video"):
        encoder_input({"id": "q0", "text": None})
    with pytest.raises(ValueError, match=r"video: got .* one of them must be set"):
        encoder_input({"video": stored()})


def test_file_row(tmp_path):
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 200)]
    for name in ("a.MP4", "b.jpeg", "c.txt", "e.MTS", "f.avif"):
        (tmp_path / name).write_bytes(b"x")
    for name, form in (("g.txt", "PNG"), ("h.mp4", "JPEG"), ("i", "WEBP"), ("still.gif", "GIF")):
        frames[0].save(tmp_path / name, form)
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    videos = ("a.MP4", "e.MTS", "moving.gif")
    for name in (*videos, "b.jpeg", "f.avif", "g.txt", "h.mp4", "i", "still.gif"):  # content before suffix
        assert file_row(tmp_path / name) == {"video" if name in videos else "image": str(tmp_path / name)}
    (tmp_path / "empty.mp4").touch()
    for name, message in (("c.txt", "its suffix '.txt'"), ("none.mp4", "no such file"), ("empty.mp4", "empty")):
        with pytest.raises(ValueError, match=message):
            file_row(tmp_path / name)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def relative(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_find_files_is_sorted_deep_and_once(tmp_path):
    touch(tmp_path, "b/2.MP4", "b/1.webm", "a.gif", "c/deep/3.jpg", "b/notes.txt", "b/README")
    touch(tmp_path, ".hidden/x.mp4", "b/.x.mp4")
    paths, others = find_files([tmp_path / "b" / "2.MP4", tmp_path])
    assert relative(paths, tmp_path) == ["b/2.MP4", "a.gif", "b/1.webm", "c/deep/3.jpg"]
    assert others == {".txt": 1, "": 1}
    with pytest.raises(ValueError, match="'nowhere' does not exist"):
        find_files(["nowhere"])


def test_a_file_of_unknown_suffix_is_judged_by_its_content(tmp_path):
    videos = ["clip", "clip.MTS", "clip.backup", "download.mp4?w=100"]
    for name in videos:
        (tmp_path / name).write_bytes(clip((200, 30, 30)))
    Image.new("RGB", (4, 4), "red").save(tmp_path / "picture.dat", format="PNG")
    (tmp_path / "words.dat").write_text("no medium at all")
    touch(tmp_path, "empty")
    paths, others = find_files([tmp_path])
    assert relative(paths, tmp_path) == [*videos, "picture.dat"]
    assert others == {".dat": 1, "": 1}


def test_nothing_found_says_what_was_passed_over(tmp_path):
    touch(tmp_path, "a.txt", "b.txt", "README", ".hidden.mp4")
    with pytest.raises(ValueError, match=r"no video or image in '.*passed over 3 files \(no suffix 1, \.txt 2\)"):
        find_files([tmp_path])
    with pytest.raises(ValueError, match="no video or image in ''"):
        find_files([])
    many = [tmp_path / f"{number:0200d}" for number in range(9)]
    for folder in many:
        folder.mkdir()
    for arguments in (many, ["x" * 5000]):
        with pytest.raises(ValueError) as told:
            find_files(arguments)
        assert len(str(told.value)) < 450
