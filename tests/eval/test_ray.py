"""Shards made by a real model, here and on a Ray cluster of this machine: the same bytes."""

import sys

import pytest
from labelled_folder import clip
from PIL import Image

from gve.eval import encode_command
from gve.hub_datasets.ray_pool import RayPool


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Seven files: a video first, and a broken one."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "0.mp4").write_bytes(clip((200, 30, 30)))
    for number in range(1, 7):
        Image.new("RGB", (60, 40), (number * 20, 1, 2)).save(folder / f"{number}.png")
    (folder / "5.png").write_bytes(b"no picture")
    return folder


def encode(*arguments):
    return encode_command.main(list(map(str, arguments)))


def test_without_ray_the_extra_is_named(monkeypatch, media, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"--engine ray needs Ray: pip install 'gve\[ray\]'"):
        RayPool(2)
    monkeypatch.setattr(encode_command, "find_spec", lambda name: None)
    assert encode(media, "--model", "m", "--out", tmp_path / "out", "--engine", "ray") == 2
    assert "--engine: ray is not installed" in capsys.readouterr().err


def test_a_real_model_resumes_in_the_same_bytes(tiny_folder, media, tmp_path, caplog):
    out, found = tmp_path / "out", []
    arguments = [media, "--model", tiny_folder, "--out", out, "--shard-size", "3", "--batch-size", "2"]
    # neither threads nor kept frames are a part of the job: they change no vector
    again = ["--workers", "4", "--frame-cache", tmp_path / "frames"]
    for options in ([], again, again):
        with caplog.at_level("INFO", "gve.eval"):
            assert encode(*arguments, *options) == 3
        found.append(contents(out))
        (out / "shard-00000.safetensors").unlink()
    assert found[0] == found[1] == found[2] and len(found[0]) == 4
    assert "s waiting for inputs" in caplog.text
    assert caplog.text.count("1 videos from the cache") == 1


@pytest.mark.slow
def test_the_bytes_are_those_of_the_local_engine(tiny_folder, media, tmp_path, capsys):
    pytest.importorskip("ray")
    for engine in ("local", "ray"):
        arguments = [media, "--model", tiny_folder, "--out", tmp_path / engine, "--shard-size", "3"]
        assert encode(*arguments, "--batch-size", "2", "--engine", engine) == 3
    local = contents(tmp_path / "local")
    assert len(local) == 4 and contents(tmp_path / "ray") == local
    assert encode(media, "--model", media, "--out", tmp_path / "bad", "--engine", "ray") == 2
    assert "has no modules.json" in capsys.readouterr().err
