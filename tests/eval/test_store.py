"""Vectors on disk: whole or absent, resumed after a kill at any instant in the same bytes, and never mixed."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ColourEncoder
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from gve.eval import encode
from gve.eval.encode import embed_files, embed_shard
from gve.eval.store import (
    INDEX,
    KEY_BYTES,
    EmbeddingStore,
    FileEmbeddings,
    ShardFolder,
    is_sharded,
    load_embeddings,
    save_embeddings,
    shard_name,
)


def keys(*numbers):
    return [bytes([number]) * KEY_BYTES for number in numbers]


def test_vectors_by_content_are_found_again(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    first = EmbeddingStore(tmp_path, {"model": "a"})
    assert first.width is None
    first.add(keys(1, 2, 3), vectors[:3])
    first.add(keys(4, 5), vectors[3:])
    again = EmbeddingStore(tmp_path, {"model": "a"})
    assert (len(again), again.width) == (5, 4)
    np.testing.assert_array_equal(again.take(keys(5, 1, 4, 1)), vectors[[4, 0, 3, 0]])
    assert keys(9)[0] not in again
    assert again.take([]).shape == (0, 0)
    assert len(EmbeddingStore(tmp_path, {"model": "b"})) == 0


def test_broken_files_and_other_widths_are_refused(tmp_path):
    kept = EmbeddingStore(tmp_path, {"model": "a"})
    kept.add(keys(1), np.ones((1, 2), np.float32))
    (whole,) = kept.folder.glob("*.safetensors")
    (kept.folder / "other.safetensors.77.tmp").write_bytes(whole.read_bytes()[:20])
    assert len(EmbeddingStore(tmp_path, {"model": "a"})) == 1
    with pytest.raises(ValueError, match="vectors of width 3; the others of its folder have 2"):
        kept.add(keys(2), np.ones((1, 3), np.float32))
    whole.write_bytes(whole.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"\.safetensors: cannot be read .*; delete it"):
        EmbeddingStore(tmp_path, {"model": "a"})


def test_embeddings_survive_the_file_and_others_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    vectors = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    kept = FileEmbeddings(["a.mp4", "\u00fc.png"], vectors, ["1:2", "3:4"], {"c.mp4": "why"}, "org/model", "f" * 32)
    save_embeddings(kept, path)
    read = load_embeddings(path)
    np.testing.assert_array_equal(read.vectors, vectors)
    assert vars(read) | {"vectors": None} == vars(kept) | {"vectors": None}
    with safe_open(path, framework="numpy") as stored:
        assert list(stored.keys()) == ["embeddings"]
    for write, message in (
        (path.unlink, "not a readable safetensors file"),
        (lambda: path.write_text("hello"), "not a readable safetensors file"),
        (lambda: save_file({"weight": np.zeros(2, np.float32)}, path), r"schema .*got None"),
    ):
        write()
        with pytest.raises(ValueError, match=message):
            load_embeddings(path)


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


def shards_of(out, pictures, **changes):
    options = {"model": "m", "fingerprint": "f", "settings": {"batch_size": 2}, "shard_size": 3} | changes
    return ShardFolder(out, options.pop("paths", pictures.iterdir()), **options)


def make(shards, encoder=None):
    for number in shards.pending():
        embed_shard(encoder or ColourEncoder(), shards.job(number), progress=False)
    return shards.finish()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_what_one_file_would(pictures, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(encode, "embed_files", lambda *a, **k: seen.append(len(a[1])) or embed_files(*a, **k))
    out = tmp_path / "out"
    out.mkdir()
    (out / "shard-00000.safetensors.123.tmp").write_bytes(b"left by a killed writer")
    hidden = out / ".shard-00000.safetensors.123.partial"  # the same of an older version
    hidden.touch()
    index = make(shards_of(out, pictures))
    hidden.unlink()
    assert sorted(contents(out)) == [INDEX, *(shard_name(number) for number in range(4))]
    assert [(entry["files"], entry["embedded"]) for entry in index["shards"]] == [(3, 2), (3, 3), (3, 3), (2, 1)]
    assert seen == [3, 3, 3, 2]  # one shard at a time is held
    found = load_embeddings(out)
    expected = embed_files(ColourEncoder(), sorted(pictures.iterdir()), progress=False)
    assert np.array_equal(found.vectors, expected.vectors)
    assert (found.paths, found.stamps, found.skipped) == (expected.paths, expected.stamps, expected.skipped)
    assert (found.model, found.fingerprint, len(found.skipped)) == ("m", "f", 2)
    assert np.array_equal(load_embeddings(out / shard_name(1)).vectors, expected.vectors[2:5])
    assert is_sharded(out) and not is_sharded(pictures)


def test_shards_follow_from_the_sorted_files(pictures, tmp_path):
    paths = list(pictures.iterdir())
    one = shards_of(tmp_path / "out", pictures)
    for shuffled in (paths[::-1], [*paths, *paths]):
        other = shards_of(tmp_path / "out", pictures, paths=shuffled)
        assert [other.job(number) for number in range(4)] == [one.job(number) for number in range(4)]
    assert len(one) == 4 and one.job(3).files == [str(pictures / "09.png"), str(pictures / "10.png")]


def killed_at(event, shards):
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
        Path.open = lambda path, mode="r", *rest, **options: (write if "w" in mode else read)(
            path, mode, *rest, **options
        )
        try:
            make(shards)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_instant_it_ends_in_the_same_bytes(pictures, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    make(shards_of(whole, pictures))
    kills = 0
    while killed_at(kills % 5, shards_of(out, pictures)):
        assert INDEX not in contents(out)  # it comes last, so it says that the job is complete
        made = {name: content for name, content in contents(out).items() if not name.endswith(".tmp")}
        assert made.items() <= contents(whole).items()  # a file under its name is whole
        kills += 1
        assert kills < 200
    assert contents(out) == contents(whole) and kills >= 5


def test_only_missing_shards_and_changed_files_are_made_again(pictures, tmp_path, caplog):
    out = tmp_path / "out"
    make(shards_of(out, pictures))
    before, encoder = contents(out), ColourEncoder()
    make(shards_of(out, pictures), encoder)
    assert not encoder.documents and contents(out) == before
    (out / shard_name(1)).unlink()
    assert shards_of(out, pictures).pending() == [1] and INDEX not in contents(out)
    with pytest.raises(ValueError, match=r"no index\.json: `gve encode` has not finished"):
        load_embeddings(out)
    make(shards_of(out, pictures), encoder)
    assert contents(out) == before and encoder.documents == 3
    Image.new("RGB", (4, 4), (0, 0, 9)).save(pictures / "04.png")
    os.utime(pictures / "04.png", ns=(1, 1))
    with caplog.at_level("INFO", "gve.eval.store"):
        make(shards_of(out, pictures), encoder)
    assert encoder.documents == 6
    assert "shard-00001.safetensors is made again" in caplog.text
    assert load_embeddings(out).vectors[3].tolist() == [0, 0, 1]


def test_another_job_is_refused(pictures, tmp_path):
    out = tmp_path / "out"
    make(shards_of(out, pictures))
    for changes, match in (
        ({"fingerprint": "g", "model": "n"}, "made by 'm' with other weights than 'n'"),
        ({"settings": {"batch_size": 4}}, r"made of other settings .*choose another folder"),
        ({"paths": [*pictures.iterdir(), pictures / "000.png"]}, "made of other files"),
        ({"shard_size": 4}, "not one of this job's 3 shards"),
        ({"shard_size": 0}, r"shard_size: .*got 0"),
    ):
        with pytest.raises(ValueError, match=match):
            shards_of(out, pictures, **changes).pending()
    with pytest.raises(ValueError, match=r"is a folder that holds '00\.png'"):
        shards_of(pictures, pictures)
    for index, match in (("{}", r"schema .*got None"), ("no", "not JSON")):
        (out / INDEX).write_text(index)
        with pytest.raises(ValueError, match=match):
            load_embeddings(out)


def test_a_shard_without_any_vector(pictures, tmp_path):
    for number in range(3):
        (pictures / f"{number:02d}.png").write_bytes(b"no picture")
    index = make(shards_of(tmp_path / "out", pictures))
    found = load_embeddings(tmp_path / "out")
    assert index["shards"][0]["embedded"] == 0 and found.vectors.shape == (7, 3) and len(found.skipped) == 4
