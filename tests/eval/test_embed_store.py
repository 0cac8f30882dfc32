"""Shards of vectors: resumed after a kill at any instant in the same bytes, and never mixed."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gve.eval import encode_command, search, search_command, store
from gve.eval.encode import embed_files, embed_shard
from gve.eval.store import INDEX, ShardFolder, is_sharded, load_embeddings, shard_name


class ColourEncoder:
    """The mean colour of a picture, and of what it has read; it counts."""

    def __init__(self):
        self.read = []

    def encode_document(self, inputs, **options):
        self.read += [item["image"].getpixel((0, 0)) for item in inputs]
        return np.stack([np.asarray(item["image"]).reshape(-1, 3).mean(0) for item in inputs]).astype(np.float32)

    encode_query = encode_document


@pytest.fixture
def pictures(tmp_path):
    """Eleven pictures, the third and the last broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(11):
        Image.new("RGB", (4, 4), (number * 20, 1, 2)).save(folder / f"{number:02d}.png")
    for number in (2, 10):
        (folder / f"{number:02d}.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def encoder(monkeypatch):
    stub = ColourEncoder()
    monkeypatch.setattr(encode_command, "load_encoder", lambda model: stub)
    monkeypatch.setattr(search, "load_encoder", lambda model: stub)
    return stub


def store_of(out, pictures, **changes):
    options = {"model": "m", "fingerprint": "f", "settings": {"batch_size": 2}, "shard_size": 3} | changes
    return ShardFolder(out, pictures.iterdir(), **options)


def make(store, encoder=None):
    for number in store.pending():
        embed_shard(encoder or ColourEncoder(), store.job(number), progress=False)
    return store.finish()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_what_one_file_would(pictures, tmp_path):
    index = make(store_of(tmp_path / "out", pictures))
    assert sorted(contents(tmp_path / "out")) == [INDEX, *(shard_name(number) for number in range(4))]
    assert [(entry["files"], entry["embedded"]) for entry in index["shards"]] == [(3, 2), (3, 3), (3, 3), (2, 1)]
    found = load_embeddings(tmp_path / "out")
    expected = embed_files(ColourEncoder(), sorted(pictures.iterdir()), progress=False)
    assert np.array_equal(found.vectors, expected.vectors)
    assert (found.paths, found.stamps, found.skipped) == (expected.paths, expected.stamps, expected.skipped)
    assert (found.model, found.fingerprint, len(found.skipped)) == ("m", "f", 2)
    part = load_embeddings(tmp_path / "out" / shard_name(1))
    assert np.array_equal(part.vectors, expected.vectors[2:5])
    assert is_sharded(tmp_path / "out") and not is_sharded(pictures)


def test_shards_follow_from_the_sorted_files(pictures, tmp_path):
    paths = list(pictures.iterdir())
    one = store_of(tmp_path / "out", pictures)
    for shuffled in (paths[::-1], [*paths, *paths]):
        other = ShardFolder(
            tmp_path / "out", shuffled, model="m", fingerprint="f", settings={"batch_size": 2}, shard_size=3
        )
        assert [other.job(number) for number in range(4)] == [one.job(number) for number in range(4)]
    assert len(one) == 4 and one.job(3).files == [str(pictures / "09.png"), str(pictures / "10.png")]


def killed_at(event, store):
    """Run the job in a process that is killed, as by kill -9, at the given one of its writes; whether it was."""
    child = os.fork()
    if not child:
        count = 0

        def watched(function):
            def call(*args, **kwargs):
                nonlocal count
                if count == event:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return function(*args, **kwargs)

            return call

        read, write = Path.open, watched(Path.open)
        os.fsync, os.replace, Path.replace = watched(os.fsync), watched(os.replace), watched(Path.replace)
        Path.open = lambda path, mode="r", **options: (write if "w" in mode else read)(path, mode, **options)
        try:
            make(store)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_instant_it_ends_in_the_same_bytes(pictures, tmp_path):
    whole = tmp_path / "whole"
    make(store_of(whole, pictures))
    out = tmp_path / "out"
    event, kills = 0, 0
    while killed_at(event, store_of(out, pictures)):
        assert INDEX not in contents(out)  # it comes last, so it says that the job is complete
        made = {name: content for name, content in contents(out).items() if not name.endswith(".tmp")}
        assert made.items() <= contents(whole).items()  # what is there under its name is whole
        event, kills = (event + 1) % 5, kills + 1
        assert kills < 200
    assert contents(out) == contents(whole) and kills >= 5


def test_finished_shards_are_not_made_again(pictures, tmp_path):
    out = tmp_path / "out"
    make(store_of(out, pictures))
    before, encoder = contents(out), ColourEncoder()
    make(store_of(out, pictures), encoder)
    assert not encoder.read and contents(out) == before
    (out / shard_name(1)).unlink()
    assert store_of(out, pictures).pending() == [1] and INDEX not in contents(out)
    with pytest.raises(ValueError, match=r"no index\.json: `gve encode` has not finished"):
        load_embeddings(out)
    make(store_of(out, pictures), encoder)
    assert contents(out) == before and len(encoder.read) == 3


def test_a_changed_file_is_embedded_again(pictures, tmp_path, caplog):
    out = tmp_path / "out"
    make(store_of(out, pictures))
    Image.new("RGB", (4, 4), (9, 9, 9)).save(pictures / "04.png")
    os.utime(pictures / "04.png", ns=(1, 1))
    encoder = ColourEncoder()
    with caplog.at_level("INFO", "gve.eval.store"):
        make(store_of(out, pictures), encoder)
    assert len(encoder.read) == 3 and (9, 9, 9) in encoder.read
    assert "shard-00001.safetensors is made again" in caplog.text
    assert load_embeddings(out).vectors[3].tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"fingerprint": "g", "model": "n"}, "made by 'm' with other weights than 'n'"),
        ({"settings": {"batch_size": 4}}, r"made of other settings .*choose another folder"),
        ({"shard_size": 4}, "not one of this job's 3 shards"),
        ({"shard_size": 0}, "shard_size: .*got 0"),
    ],
)
def test_another_job_is_refused(pictures, tmp_path, changes, match):
    out = tmp_path / "out"
    make(store_of(out, pictures))
    with pytest.raises(ValueError, match=match):
        store_of(out, pictures, **changes).pending()


def test_other_files_and_folders_are_refused(pictures, tmp_path):
    out = tmp_path / "out"
    make(store_of(out, pictures))
    (pictures / "00.png").rename(pictures / "000.png")
    with pytest.raises(ValueError, match="made of other files"):
        store_of(out, pictures).pending()
    with pytest.raises(ValueError, match=r"is a folder that holds '00\d*\.png'"):
        store_of(pictures, pictures)
    (out / INDEX).write_text("{}")
    with pytest.raises(ValueError, match=r"schema .*got None"):
        load_embeddings(out)
    (out / INDEX).write_text("no")
    with pytest.raises(ValueError, match="not JSON"):
        load_embeddings(out)


def test_left_over_parts_are_removed(pictures, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shard-00000.safetensors.123.tmp").write_bytes(b"half")
    make(store_of(out, pictures))
    assert not [name for name in contents(out) if "tmp" in name]


def test_a_shard_without_any_vector(pictures, tmp_path):
    for path in pictures.iterdir():
        if path.name < "03":
            path.write_bytes(b"no picture")
    index = make(store_of(tmp_path / "out", pictures))
    found = load_embeddings(tmp_path / "out")
    assert index["shards"][0]["embedded"] == 0 and found.vectors.shape == (7, 3) and len(found.skipped) == 4


def test_one_shard_at_a_time_is_held(pictures, tmp_path, monkeypatch):
    seen, embed = [], embed_files
    monkeypatch.setattr("gve.eval.encode.embed_files", lambda *a, **k: seen.append(len(a[1])) or embed(*a, **k))
    make(store_of(tmp_path / "out", pictures))
    assert seen == [3, 3, 3, 2]


def test_bytes_do_not_depend_on_the_process():
    """safetensors orders the names in its header anew each time; ours are sorted."""
    from safetensors.numpy import load, save

    tensors = {"embeddings": np.arange(6, dtype=np.float32).reshape(2, 3)}
    made = {store._canonical(save(tensors, {name: name for name in "abcdefghij"})) for _ in range(8)}
    assert len(made) == 1
    assert np.array_equal(load(made.pop())["embeddings"], tensors["embeddings"])


def command(*arguments):
    return encode_command.main([*map(str, arguments), "--model", "stub"])


def test_the_command_makes_shards_and_search_reads_them(encoder, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(pictures, "--out", out, "--shard-size", "4", "--batch-size", "2") == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["out"], summary["embedded"], summary["width"], len(summary["skipped"])) == (str(out), 9, 3, 2)
    before = contents(out)
    encoder.read.clear()
    assert command(pictures, "--out", out, "--shard-size", "4", "--batch-size", "2") == 3
    assert json.loads(capsys.readouterr().out) == summary and contents(out) == before and not encoder.read
    assert search_command.main([str(out), "--image", str(pictures / "09.png"), "--top", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["path"] == str(pictures / "09.png")


def test_an_interrupted_command_goes_on(encoder, pictures, tmp_path, capsys, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert command(pictures, "--out", whole, "--shard-size", "4") == 3
    encode = encoder.encode_document

    def interrupt(inputs, **options):
        if len(contents(out)) == 2:
            raise KeyboardInterrupt
        return encode(inputs, **options)

    monkeypatch.setattr(encoder, "encode_document", interrupt)
    assert command(pictures, "--out", out, "--shard-size", "4") == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(encoder, "encode_document", encode)
    assert command(pictures, "--out", out, "--shard-size", "4") == 3
    assert contents(out) == contents(whole)


def test_the_command_refuses(encoder, pictures, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    single = tmp_path / "e.safetensors"
    for arguments, message in (
        (["--out", tmp_path / "file"], "is a file; a name that ends in .safetensors"),
        (["--out", single, "--engine", "ray"], "--engine: ray for the file"),
        (["--out", tmp_path / "o", "--ray-address", "auto"], "--ray-address: got one for the local engine"),
        (["--out", tmp_path / "o", "--shard-size", "0"], "--shard-size: 0"),
        (["--out", tmp_path / "o", "--workers", "-1"], "--workers: -1"),
        (["--out", single, "--workers", "2"], "--workers, --frame-cache: got one for a ColourEncoder"),
        (["--out", pictures], "is a folder that holds"),
    ):
        assert command(pictures, *arguments) == 2
        assert message in capsys.readouterr().err
