"""How often a file is opened on its way to a vector: once to plan and once to read."""

import sys

import av
import pytest
import torch
from sentence_transformers import SentenceTransformer

import gve
from gve.eval.encode import embed_files, encode_rows
from gve.frames_gve import look

WATCHED = []


def _watch(event, arguments):
    if event == "open" and WATCHED:
        WATCHED[-1].append(str(arguments[0]))


sys.addaudithook(_watch)  # sees every file that Python opens; it cannot be taken off again


@pytest.fixture
def opened(monkeypatch):
    """Names of the files opened while the test runs; FFmpeg opens none by itself."""
    real = av.open

    def checked(file, *args, **kwargs):
        assert not isinstance(file, str) or file == "fd:", file
        return real(file, *args, **kwargs)

    monkeypatch.setattr(av, "open", checked)
    WATCHED.append([])
    yield WATCHED[-1]
    WATCHED.clear()


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    gve.save_embedder(folder, *tiny)
    return str(folder)


@pytest.mark.parametrize("name", ["a.mp4", "b.webm", "i.png"])
def test_twice_from_a_path_to_a_vector(folder, media, opened, name):
    path = media / name
    kind = "image" if name == "i.png" else "video"
    ours, plain = gve.GVESentenceTransformer(folder, device="cpu"), SentenceTransformer(folder, device="cpu")
    model = ours.transformers_model
    with torch.no_grad():
        ways = {
            "a bare path": lambda: ours.encode([str(path)]),
            "a dict": lambda: ours.encode([{kind: str(path)}]),
            "sentence-transformers": lambda: plain.encode([str(path)]),
            "the processor": lambda: model(**ours.processor.prepare([path])),
            "gve encode": lambda: embed_files(ours, [path], progress=False),
            "gve eval": lambda: encode_rows(ours, [{kind: str(path)}], role="document", progress=False),
        }
        for way, encode in ways.items():
            opened.clear()
            encode()
            assert opened.count(str(path)) <= 2, way


def test_planned_inputs_are_opened_once_more(tiny, media, opened):
    processor = tiny[1]
    plan = processor.plan([str(media / "a.mp4")])[0]
    assert opened.count(str(media / "a.mp4")) == 1
    processor.prepare([plan.row])
    assert opened.count(str(media / "a.mp4")) == 2
    assert look(media / "a.mp4").size == (48, 64)
