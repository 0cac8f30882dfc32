"""`gve eval --model http://...` against a local server."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
import uvrb_folder
from PIL import Image
from square_clips import COLOURS, frames_of, mp4_of
from stub_endpoint import StubEndpoint
from uvrb_folder import make_tables, write_uvrb

from gve.eval.endpoint import EndpointEncoder
from gve.eval.eval_command import main
from gve.eval.models import KEY_VARIABLE

CLIPS = [mp4_of(frames_of(colour, speed, speed)) for colour in COLOURS for speed in (1, 2, 3)]


class StubEmbedder(StubEndpoint):
    """Answers embeddings: of images their mean colour, of texts numbers of their own."""

    def completion(self, fault, body):
        if fault.endswith("-object"):
            return super().completion(fault, body)
        if fault == "empty":
            return {"data": []}
        items = body.get("input") or [body["messages"]]
        rows = [self.vector(item)[: 2 if fault == "narrow" else None] for item in items]
        data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
        return {"object": "list", "data": data[::-1]}

    def vector(self, item):
        for part in () if isinstance(item, str) else item[-1]["content"]:
            if part["type"] == "image_url":
                data = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
                return (np.asarray(Image.open(io.BytesIO(data))).reshape(-1, 3).mean(0) + 1).tolist()
        return np.random.default_rng(zlib.crc32(json.dumps(item).encode())).random(3).tolist()


def test_texts_in_batches_under_a_key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with StubEmbedder() as stub:
        encoder = EndpointEncoder(f"{stub.url}/embeddings")
        vectors = encoder.encode_query(["a", "b", {"text": "c.mp4"}], prompt="find\n", batch_size=2)
        assert np.allclose(vectors, [stub.vector(f"find\n{text}") for text in ("a", "b", "c.mp4")])
        sizes = sorted(len(body["input"]) for _, _, body in stub.calls)
        assert (encoder.name, sizes) == ("stub", [1, 2])
        assert {headers["Authorization"] for headers in stub.headers} == {"Bearer secret"}


def test_busy_servers_are_asked_again_up_to_a_limit():
    with StubEmbedder(["429", "503", "drop"], shared=True) as stub:
        assert EndpointEncoder(stub.url, "stub", pause=0.01).encode_query(["a"]).shape == (1, 3)
        assert [fault for _, fault, _ in stub.calls] == ["429", "503", "drop", "ok"]
    with StubEmbedder(["500"] * 9, shared=True) as stub:
        with pytest.raises(ValueError, match=r"failed 3 times .*injected"):
            EndpointEncoder(stub.url, "stub", retries=2, pause=0.01).encode_query(["a"])
        assert len(stub.calls) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("narrow", r"vectors of widths \[2, 3\]; all must have one"),
        ("empty", "0 vectors for 1 inputs"),
        ("401", "answered http-401: injected. Check the address, name and key"),
        ("error-object", r"answered no embeddings \(KeyError\('data'\)\)"),
    ],
)
def test_wrong_answers_stop(fault, message):
    with StubEmbedder(["ok", fault], shared=True) as stub:
        encoder = EndpointEncoder(stub.url, "stub")
        encoder.encode_query(["a"])
        with pytest.raises(ValueError, match=message):
            encoder.encode_document(["b"])


def test_which_model_is_asked():
    with StubEmbedder() as stub:
        stub.served = ["one", "two"]
        with pytest.raises(ValueError, match=r"serves one, two\. Name one by --served-name"):
            EndpointEncoder(stub.url)


def test_images_as_data_urls_and_videos_as_averaged_frames(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(uvrb_folder, "clip_bytes", CLIPS.__getitem__)
    data = write_uvrb(tmp_path / "data", {name: make_tables(name) for name in ("MSRVTT", "MS-TI")})
    with StubEmbedder() as stub:
        arguments = ["--model", stub.url, "--data", str(data), "--sets", "msrvtt", "ms-ti", "--frames", "2", "--json"]
        assert main(arguments) == 2
        assert "'stub' takes none of the sets" in capsys.readouterr().err
        assert not stub.calls
        assert main([*arguments, "--served-images", "--instructions", "none", "--out", str(tmp_path / "out")]) == 0
        report = json.loads(capsys.readouterr().out)
        assert list(report["sets"]) == ["MSRVTT", "MS-TI"] and report["model"] == "stub"
        assert report["settings"]["videos"] == "frames averaged"
        kinds = [[part["type"] for part in body["messages"][-1]["content"]] for _, _, body in stub.calls]
        assert kinds.count(["image_url"]) == 2 * len(CLIPS) and ["image_url", "text"] in kinds
