"""/v1/search over an index, with text, picture and video, filters and a second stage."""

import base64
import json
import os

import numpy as np
import pytest
from colour_encoder import COLOURS, ColourEncoder
from index_rows import make_hit
from serving import serving
from square_clips import png_of

from gve.eval.index.building import add
from gve.eval.index.table import Index
from gve.video_writer import encode_mp4


def frames(colour):
    return np.full((4, 32, 32, 3), COLOURS[colour], np.uint8)


class Colours(ColourEncoder):
    """Also says how wide it is: its warm-up text is grey."""

    def _colour(self, item):
        return super()._colour({"image": frames("red")[0]} if item == "warm" else item)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for colour in ("red", "green", "blue"):
        (folder / f"{colour}.mp4").write_bytes(encode_mp4(frames(colour), 4))
    (folder / "green.mp4").rename(folder / os.fsdecode(b"\xff.mp4"))
    where = str(folder.parent / "index")
    add(where, [str(folder)], Colours(), model="colours", fingerprint="none")
    (folder / "blue.mp4").unlink()
    with serving(Colours(), corpus=Index.open(where)) as client:
        yield client


def names(got):
    assert got.status_code == 200, got.text
    return [os.fsencode(hit["path"]).rpartition(b"/")[2] for hit in got.json()["results"]]


def test_texts_pictures_and_videos(client):
    assert names(client.post("/v1/search", json={"query": "red", "top": 1})) == [b"red.mp4"]
    got = client.post("/v1/search", json={"query": "green"})
    assert names(got)[0] == b"\xff.mp4"  # no UTF-8, and still JSON
    assert [hit["rank"] for hit in got.json()["results"]] == [1, 2, 3]
    picture = png_of(frames("green")[0])
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    assert names(client.post("/v1/search", json={"query": {"image": url}}))[0] == b"\xff.mp4"
    clip = encode_mp4(frames("red"), 4)
    assert names(client.post("/v1/search", files={"video": ("a.mp4", clip), "top": (None, "1")})) == [b"red.mp4"]


def test_filters_and_vanished_files(client):
    (hit,) = client.post("/v1/search", json={"query": "blue", "top": 1}).json()["results"]
    assert (hit["missing"], hit["kind"]) == (True, "video")
    assert names(client.post("/v1/search", json={"query": "blue", "where": "path LIKE '%red%'"})) == [b"red.mp4"]
    for body, words in (
        ({"query": "blue", "where": "colour = 3"}, "colour"),
        ({"query": "blue", "where": "DROP TABLE"}, "where"),
        ({"query": "blue", "top": 0}, "top"),
        ({"query": {}}, "query: must hold text"),
        ({"query": {"image": "/etc/passwd"}}, "must not be the path"),
        ({}, "query: Field required"),
    ):
        got = client.post("/v1/search", json=body)
        assert (got.status_code, words in json.dumps(got.json())) == (400, True), got.text


def test_a_second_stage(client, monkeypatch):
    asked = []

    class Corpus:
        def search(self, queries, k, **_):
            return [[make_hit(f"{n}.mp4", score=1.0 - n, columns={"note": float("nan")}) for n in range(3)][:k]]

    class Reranker:
        name, top = "turned", 3

    def turned(reranker, row, hits, **_):
        asked.append((reranker.name, row))
        return list(hits)[::-1]

    monkeypatch.setattr("gve.eval.search.rerank", turned)
    with serving(Colours(), corpus=Corpus(), reranker=Reranker()) as client:
        got = client.post("/v1/search", json={"query": "red"})
        assert names(got) == [b"2.mp4", b"1.mp4", b"0.mp4"]
        assert got.json()["results"][0]["columns"] == {"note": None}
        assert names(client.post("/v1/search", json={"query": "red", "rerank": False}))[0] == b"0.mp4"
    assert asked == [("turned", {"text": "red"})]


def test_without_an_index():
    with serving(Colours()) as client:
        assert client.post("/v1/search", json={"query": "red"}).status_code == 404
