"""What the tests of this folder share, made once: a tiny model, a small copy of UVRB, a cache for `datasets`."""

import pytest
from colour_encoder import COLOURS
from PIL import Image
from uvrb_folder import make_tables, write_uvrb

import gve
from gve.hub_datasets.uvrb import SETS


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """An untrained embedder as saved."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    gve.save_embedder(folder, *gve.build_tiny(["a red ball moves left", "find it"], frame_size=32, num_frames=2))
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A folder of four pictures, each of one colour."""
    folder = tmp_path / "media"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (4, 4), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def uvrb(tmp_path_factory):
    """All sixteen sets, with stand-ins for videos that need no decoder."""
    return write_uvrb(tmp_path_factory.mktemp("uvrb"), {name: make_tables(name) for name in SETS})
