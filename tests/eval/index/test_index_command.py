"""`gve index`, and `gve search` on what it makes, with the model that ships."""

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusing import refused
from safetensors.numpy import load_file

import gve
from gve.eval import search_command
from gve.eval.index import index_command
from gve.eval.models import load_encoder
from gve.video_writer import encode_mp4

MODEL = Path(gve.__file__).parent / "tiny" / "checkpoint"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of a picture, a video of eight seconds and a broken file, and an index of it."""
    root = tmp_path_factory.mktemp("place")
    (root / "media").mkdir()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(root / "media" / "red.png")
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    frames = [np.full((64, 64, 3), colour, np.uint8) for colour in colours for _ in range(20)]
    (root / "media" / "long.mp4").write_bytes(encode_mp4(frames, 10))
    (root / "media" / "broken.mp4").write_text("no video")
    command = [str(root / "media"), "--model", str(MODEL), "--window", "2", "--stride", "1", "--frames", "4"]
    assert index_command.main(["add", str(root / "index"), *command]) == 3
    return root


def run(capsys, *arguments, command=index_command):
    code = command.main(list(map(str, arguments)))
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return code, told.out, told.err


def test_info_and_an_update_that_changes_nothing(place, capsys):
    code, out, _ = run(capsys, "info", place / "index")
    facts = json.loads(out)
    assert (code, facts["files"], facts["failed"], facts["levels"]) == (0, 2, 1, {"file": 2, "window": 7})
    assert (facts["settings"]["num_frames"], facts["settings"]["window"], facts["search"]) == (4, 2.0, "exact")
    code, out, _ = run(capsys, "update", place / "index")
    report = json.loads(out)
    assert (code, report["kept"], list(report["failed"])) == (3, 2, [str(place / "media" / "broken.mp4")])


def test_both_searches_give_moments_and_clips(place, tmp_path, capsys):
    query = [place / "index", "--image", place / "media" / "red.png", "--top", "2", "--where", "level = 'window'"]
    code, out, _ = run(capsys, "search", *query, "--json", "--clip", tmp_path)
    results = json.loads(out)["results"]
    assert code == 0 and {hit["level"] for hit in results} == {"window"}
    assert results[0]["path"] == str(place / "media" / "long.mp4") and not results[0]["missing"]
    assert [Path(hit["clip"]).is_file() for hit in results] == [True] * len(results)
    assert run(capsys, *query, "--json", "--clip", tmp_path, command=search_command)[1] == out
    _, table, _ = run(capsys, *query, command=search_command)
    lines = table.splitlines()
    assert lines[0].split() == ["rank", "score", "seconds", "path"]
    assert lines[1].split()[2:] == [f"{results[0]['start']:.1f}-{results[0]['end']:.1f}", results[0]["path"]]


def test_vectors_of_whole_files_are_those_of_encode(place, capsys, tmp_path):
    code, out, _ = run(capsys, "export", place / "index", tmp_path / "rows.parquet", "--where", "level = 'file'")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert (code, json.loads(out)["rows"], len(table)) == (0, 2, 2)
    wanted = load_encoder(str(MODEL)).encode_document(table["path"].to_pylist(), num_frames=4)
    np.testing.assert_allclose(np.stack(table["vector"].to_numpy()), wanted, atol=1e-6)
    for form in ("npy", "safetensors"):
        target = tmp_path / f"vectors.{form}"
        assert run(capsys, "export", place / "index", target, "--to", form)[0] == 0
        vectors = np.load(target) if form == "npy" else load_file(target)["embeddings"]
        beside = pq.read_table(target.with_suffix(".parquet"))
        assert vectors.shape == (9, 128) and len(beside) == 9 and "vector" not in beside.column_names


def test_a_vanished_file_is_shown_as_such_and_update_takes_it_out(place, capsys, tmp_path):
    (tmp_path / "gone").mkdir()
    target = tmp_path / "gone" / "blue.png"
    Image.new("RGB", (64, 64), (0, 0, 255)).save(target)
    kept = tmp_path / "gone" / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(kept)
    fixed = ["--model", MODEL]
    assert run(capsys, "add", tmp_path / "index", tmp_path / "gone", *fixed)[0] == 0
    image = ["--image", place / "media" / "red.png"]
    target.unlink()
    _, out, _ = run(capsys, "search", tmp_path / "index", *image, "--json")
    assert {Path(hit["path"]).name: hit["missing"] for hit in json.loads(out)["results"]} == {
        "red.png": False,
        "blue.png": True,
    }
    assert f"{target}  (missing)\n" in run(capsys, "search", tmp_path / "index", *image)[1]
    assert json.loads(run(capsys, "update", tmp_path / "index")[1])["removed"] == 1
    assert json.loads(run(capsys, "remove", tmp_path / "index", kept)[1]) == {"removed_rows": 1}
    assert run(capsys, "search", tmp_path / "index", *image, "--json")[1].endswith('"results": []}\n')


def test_what_is_refused_in_one_line(place, tmp_path, capsys):
    index, media = place / "index", place / "media"
    for arguments, message in (
        (["add", tmp_path / "new", media], "--model: missing; a new index needs one"),
        (["add", tmp_path / "new", tmp_path / "no", "--model", MODEL], "does not exist"),
        (["add", tmp_path / "new", media, "--model", MODEL, "--window", "-1"], "--window: must be seconds above 0"),
        (["add", tmp_path / "new", media, "--model", MODEL, "--no-files"], "--no-files: leaves nothing"),
        (["add", tmp_path / "new", media, "--model", MODEL, "--frames", "0"], "--frames: must be at least 1"),
        (["add", index, media, "--window", "5"], "--window, --stride, --shots, --no-files: the index has"),
        (["add", index, media, "--model", "other"], "'other' is not the model of"),
        (["add", index, media, "--workers", "-1"], "--workers: -1"),
        (["add", media, media, "--model", MODEL], "INDEX: "),
        (["update", tmp_path / "new"], "is no index. Make one"),
        (["info", media], "is no index. Make one"),
        (["remove", index], "FILES: nothing to remove"),
        (["remove", index, "--where", "lenght > 3"], "no column 'lenght'. The columns are id, path"),
        (["export", index, tmp_path / "x", "--where", "duration > 1e9"], "INDEX: no rows to export"),
        (["build", index], "an ANN index needs"),
        (["search", index, "red", "--model", "other"], "'other' is not the model that made"),
    ):
        assert message in refused(index_command.main, arguments, capsys)
    assert not (tmp_path / "new").exists()


def test_a_missing_extra_is_named(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ImportError, match=r'pip install "gve\[index\]"'):
        index_command.main(["info", str(place / "index")])


def test_interrupted(place, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(index_command, "add", Mock(side_effect=KeyboardInterrupt))
    code, _, err = run(capsys, "add", place / "index", place / "media")
    assert code == 130 and "the same command goes on from there" in err
