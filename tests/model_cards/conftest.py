import pytest
from conversion import build, run
from stock_twin import publish


@pytest.fixture(scope="session")
def tiny():
    return build()


@pytest.fixture(scope="session")
def published(tiny, tmp_path_factory):
    """A folder in the layout of the published GVE and Qwen2.5-VL."""
    return publish(tmp_path_factory.mktemp("published"), *tiny)


@pytest.fixture(scope="session")
def ours(published, tmp_path_factory):
    """The published folder, converted, and what the command said."""
    target = tmp_path_factory.mktemp("converted") / "ours"
    return target, run([published, target])


@pytest.fixture(scope="session")
def stock(ours, tmp_path_factory):
    """Ours, exported."""
    target = tmp_path_factory.mktemp("converted") / "stock"
    return target, run([ours[0], target, "--to", "stock"])
