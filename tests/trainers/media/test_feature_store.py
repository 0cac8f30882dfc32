import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.frames_gve import Features
from gve.trainers.media import feature_store
from gve.trainers.media.feature_store import FeatureStore


def made(number, tokens=6, width=16):
    features = torch.randn(tokens, width, generator=torch.Generator().manual_seed(number))
    return Features(features, (1, 4, 6), 0.5, [0.0, 0.5 + number])


def equal(first, second):
    return first[1:] == second[1:] and torch.equal(first.features, second.features)


def shards(store):
    return sorted(store.folder.glob("*.safetensors"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_what_was_put_comes_back_from_everywhere(tmp_path, dtype):
    store = FeatureStore(tmp_path, dtype=dtype, parts=2)
    given = {f"k{number}": made(number) for number in range(5)}
    told = {key: store.put(key, value) for key, value in given.items()}
    assert not shards(store) and len(store) == 5
    for source in ("memory", "disk", "another process's copy"):
        assert all(equal(store.get(key), value) for key, value in told.items()), source
        store.flush()
        if source == "disk":
            store = pickle.loads(pickle.dumps(FeatureStore(tmp_path, dtype=dtype, parts=2)))
    assert len(shards(store)) == 1 and len(store) == 5 and store.get("other") is None
    assert store.get("k1").times == [0.0, 1.5]
    error = max((told[key].features.float() - given[key].features).abs().max() for key in given)
    assert error == 0 if dtype == "float32" else 0 < error < 0.05


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(0, 10**6), st.floats(1e-30, 1e30))
def test_eight_bits_err_by_half_a_step_of_their_part(tmp_path_factory, parts, seed, size):
    store = FeatureStore(tmp_path_factory.getbasetemp() / "int8", dtype="int8", parts=parts)
    values = torch.randn(3, 4 * parts, generator=torch.Generator().manual_seed(seed)) * size
    values[0] = 0.0
    read = store.put(f"{seed}", Features(values, (1, 2, 6))).features
    split, back = values.unflatten(1, (parts, 4)), read.unflatten(1, (parts, 4))
    step = split.abs().amax(2, keepdim=True) / 127
    assert ((split - back).abs() <= step * 0.5001).all()
    assert (back[0] == 0).all()


def test_shards_grow_to_a_size_or_an_age(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path)
    monkeypatch.setattr(feature_store, "SHARD_BYTES", 2 * 6 * 16 * 4)
    for number in range(5):
        store.put(f"k{number}", made(number))
    store.join()
    assert len(shards(store)) == 2
    monkeypatch.setattr(feature_store, "SHARD_SECONDS", -1.0)
    store.put("k5", made(5))
    store.join()
    assert len(shards(store)) == 3 and len(FeatureStore(tmp_path)) == 6


def test_readers_see_what_others_write(tmp_path):
    writer, reader = FeatureStore(tmp_path), FeatureStore(tmp_path)
    assert reader.get("a") is None
    writer.put("a", made(1))
    assert reader.get("a") is None
    writer.flush()
    os.utime(tmp_path, ns=(1, 1))  # a coarse clock gives the folder the time it had
    reader._listed = 2
    assert equal(reader.get("a"), made(1))
    assert (reader.hits, reader.misses) == (1, 2)
    assert equal(reader.put("a", made(1)), made(1)) and not reader._pending  # it is there


def test_threads_write_and_read(tmp_path):
    done = threading.Event()

    def read():
        store, wrong = FeatureStore(tmp_path), []
        while not done.is_set():
            found = {number: store.get(f"k{number}") for number in range(20)}
            wrong += [number for number, value in found.items() if value and not equal(value, made(number))]
        return wrong

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        store = FeatureStore(tmp_path)
        for number in range(20):
            store.put(f"k{number}", made(number))
            store.flush()
        done.set()
    assert [reader.result() for reader in readers] == [[], []] and len(FeatureStore(tmp_path)) == 20


KILLED = """
import os, sys, torch
from gve.trainers.media import feature_store
from gve.frames_gve import Features
store, save_file = feature_store.FeatureStore(sys.argv[1]), feature_store.save_file
def half(tensors, path, facts):
    save_file(tensors, path, facts)
    path.write_bytes(path.read_bytes()[:50])
    os.kill(os.getpid(), 9)
for key in "ab":
    store.put(key, Features(torch.ones(2, 4), (1, 2, 4)))
    store.flush()
    feature_store.save_file = half
"""


def test_a_writer_killed_half_way_leaves_whole_shards(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    (partial,) = tmp_path.glob(".*.partial")
    store = FeatureStore(tmp_path)
    assert partial.exists() and len(store) == 1 and store.get("b") is None
    old = time.time() - 2 * feature_store.STALE_SECONDS
    os.utime(partial, (old, old))
    FeatureStore(tmp_path)
    assert not partial.exists()


def test_damaged_and_deleted_shards_are_misses(tmp_path, caplog):
    store = FeatureStore(tmp_path)
    for key in ("a", "b"):
        store.put(key, made(1))
        store.flush()
    first = FeatureStore(tmp_path)
    assert len(first) == 2
    for path in shards(store):
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert FeatureStore(tmp_path).get("a") is None
    assert "is damaged" in caplog.text
    for path in shards(store):
        path.unlink()
    assert FeatureStore(tmp_path).get("a") is None
    again = pickle.loads(pickle.dumps(store))
    again.put("a", made(1))
    again.flush()
    assert equal(again.get("a"), made(1))


def test_the_limit_holds_and_says_so_once(tmp_path, caplog):
    other = FeatureStore(tmp_path / "another tower")
    other.put("z", made(0))
    other.flush()
    held = shards(other)[0].stat().st_size
    store = FeatureStore(tmp_path / "tower", limit=held + 2 * 6 * 16 * 4, root=tmp_path)
    with caplog.at_level(logging.WARNING):
        told = [store.put(f"k{number}", made(number)) for number in range(4)]
    assert all(equal(value, made(number)) for number, value in enumerate(told))
    assert store.refused == 2 and len(store) == 2
    assert caplog.text.count("raise vision_cache_gb") == 1


def test_a_full_disk_ends_the_writing_and_not_the_run(tmp_path, monkeypatch, caplog):
    store = FeatureStore(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_store, "save_file", full)
    store.put("a", made(1))
    store.flush()
    assert "the disk is full" in caplog.text and not list(tmp_path.iterdir())
    assert equal(store.put("b", made(2)), made(2)) and store.get("b") is None


def test_a_thread_writes_and_the_next_shard_fills_meanwhile(tmp_path, monkeypatch):
    save, begun, go = feature_store.save_file, threading.Event(), threading.Event()

    def slow(*args):
        begun.set()
        assert go.wait(20)
        save(*args)

    monkeypatch.setattr(feature_store, "save_file", slow)
    monkeypatch.setattr(feature_store, "SHARD_BYTES", 2 * 6 * 16 * 4)
    store = FeatureStore(tmp_path)
    for number in range(3):
        store.put(f"k{number}", made(number))
    assert begun.wait(20) and not shards(store)
    assert all(equal(store.get(f"k{number}"), made(number)) for number in range(3)) and len(store) == 3
    go.set()
    store.flush()
    assert len(shards(store)) == 2 and len(FeatureStore(tmp_path)) == 3
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("features")]


def test_what_a_thread_could_not_write_is_raised_where_it_is_waited_for(tmp_path, monkeypatch):
    def broken(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(feature_store, "save_file", broken)
    store = FeatureStore(tmp_path)
    store.put("a", made(1))
    with pytest.raises(PermissionError):
        store.flush()
    store.flush()
    assert not store._pending and not store._leaving


def test_features_are_read_by_memory_map_and_written_apart(tmp_path):
    store, whole = FeatureStore(tmp_path), torch.randn(12, 16)
    expected = whole.clone()
    for key, part in zip("ab", whole.split(6), strict=True):  # parts of one tensor, as the tower gives them
        store.put(key, Features(part, (1, 4, 6)))
    whole += 1.0  # which the step may reuse
    store.flush()
    (path,), reader = shards(store), FeatureStore(tmp_path)
    read = [reader.get(key).features for key in "ab"]
    assert torch.equal(torch.cat(read), expected)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    places = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in mapped]
    assert all(any(start <= tensor.data_ptr() < end for start, end in places) for tensor in read)


def test_a_forked_process_reads_only_the_disk(tmp_path):
    store = FeatureStore(tmp_path)
    store.put("a", made(1))
    store._owner += 1  # as it looks from another process, which could not wait for the device
    assert store.get("a") is None
    store._owner -= 1
    assert equal(store.get("a"), made(1))
