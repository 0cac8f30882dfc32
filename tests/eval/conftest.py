"""A tiny model for all tests, and what `datasets` caches inside each test's own folder."""

import pytest

import gve


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """An untrained embedder as saved."""
    folder = tmp_path_factory.mktemp("tiny")
    gve.save_embedder(folder, *gve.build_tiny(["a red circle moves left", "a blue box"]))
    return folder
