"""How often a file is opened on its way to a vector: once to plan and once to read."""

import sys
from pathlib import Path

import av
import pytest
import torch
from sentence_transformers import SentenceTransformer

import gve
from gve.eval.encode import embed_files, encode_rows

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


@torch.no_grad()
def test_twice_from_a_path_to_a_vector(folder, media, opened):
    ours, plain = (kind(str(folder), device="cpu") for kind in (gve.GVESentenceTransformer, SentenceTransformer))
    model = ours.transformers_model
    ways = {
        "a bare path": lambda path, kind: ours.encode([path]),
        "a dict": lambda path, kind: ours.encode([{kind: path}]),
        "sentence-transformers": lambda path, kind: plain.encode([path]),
        "the processor": lambda path, kind: model(**ours.processor.prepare([Path(path)])),
        "gve encode": lambda path, kind: embed_files(ours, [Path(path)], progress=False),
        "gve eval": lambda path, kind: encode_rows(ours, [{kind: path}], role="document", progress=False),
    }
    for name, kind in (("a.mp4", "video"), ("b.webm", "video"), ("i.png", "image")):
        for way, encode in ways.items():
            opened.clear()
            encode(str(media / name), kind)
            assert 1 <= opened.count(str(media / name)) <= 2, (name, way)


def test_planned_inputs_are_opened_once_more(processor, media, opened):
    path = str(media / "a.mp4")
    (plan,) = processor.plan([path])
    assert opened.count(path) == 1
    processor.prepare([plan.row])
    assert opened.count(path) == 2


@pytest.mark.parametrize("plan", [{}, {"fps": 2.0}])
def test_a_path_is_read_in_one_opening(media, opened, plan):
    gve.read_video(media / "a.mp4", **plan)
    assert opened.count(str(media / "a.mp4")) == 1
