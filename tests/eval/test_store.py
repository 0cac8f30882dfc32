"""Vectors on disk: found again by another process, whole or not at all."""

import numpy as np
import pytest

from gve.eval.store import KEY_BYTES, EmbeddingStore


def keys(*numbers):
    return [bytes([number]) * KEY_BYTES for number in numbers]


def test_what_is_added_is_found_again(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 4)).astype(np.float32)
    store = EmbeddingStore(tmp_path, {"model": "a"})
    assert store.width is None
    store.add(keys(1, 2, 3), vectors[:3])
    store.add(keys(4, 5), vectors[3:])
    again = EmbeddingStore(tmp_path, {"model": "a"})
    assert (len(again), again.width) == (5, 4)
    np.testing.assert_array_equal(again.take(keys(5, 1, 4, 1)), vectors[[4, 0, 3, 0]])
    assert keys(9)[0] not in again
    assert again.take([]).shape == (0, 0)


def test_other_models_see_nothing(tmp_path):
    EmbeddingStore(tmp_path, {"model": "a"}).add(keys(1), np.ones((1, 2), np.float32))
    assert len(EmbeddingStore(tmp_path, {"model": "b"})) == 0
    assert len(EmbeddingStore(tmp_path, {"model": "a"})) == 1


def test_half_written_files_are_not_read(tmp_path):
    store = EmbeddingStore(tmp_path, {"model": "a"})
    store.add(keys(1), np.ones((1, 2), np.float32))
    (whole,) = store.folder.glob("*.safetensors")
    (store.folder / ".other.safetensors.77.partial").write_bytes(whole.read_bytes()[:20])
    assert len(EmbeddingStore(tmp_path, {"model": "a"})) == 1
    whole.write_bytes(whole.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"\.safetensors: cannot be read .*; delete it"):
        EmbeddingStore(tmp_path, {"model": "a"})


def test_one_width(tmp_path):
    store = EmbeddingStore(tmp_path, {"model": "a"})
    store.add(keys(1), np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="vectors of width 3; the others of its folder have 2"):
        store.add(keys(2), np.ones((1, 3), np.float32))
