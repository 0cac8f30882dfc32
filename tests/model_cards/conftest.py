import pytest
from conversion import build, run
from hub_server import HubServer
from stock_twin import publish


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="session")
def tiny():
    return build()


@pytest.fixture(scope="session")
def published(tiny, tmp_path_factory):
    """A folder in the layout of the published GVE and Qwen2.5-VL."""
    return publish(tmp_path_factory.mktemp("published"), *tiny)


@pytest.fixture(scope="session")
def ours(published, tmp_path_factory):
    target = tmp_path_factory.mktemp("converted") / "ours"
    return target, run([published, target])


@pytest.fixture(scope="session")
def stock(ours, tmp_path_factory):
    target = tmp_path_factory.mktemp("converted") / "stock"
    return target, run([ours[0], target, "--to", "stock"])
