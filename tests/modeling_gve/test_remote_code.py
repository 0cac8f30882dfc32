"""Saved folders in a process that does not have this package."""

import os
import subprocess
import sys

import numpy as np
import pytest
from chats import far, vectors
from sentence_transformers import SentenceTransformer

import gve
from gve.hub_datasets.uvrb import instructions
from gve.sentence_gve import code_files

CHILD = """
import sys
sys.modules["gve"] = None  # the package is not there
import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

folder, media, out = sys.argv[1:]
rows = [media + "/a.mp4", {"text": "a red circle", "image": media + "/i.png"}, "a blue box"]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
sentence = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
found = {
    "auto": model(**processor.prepare(rows)).embeddings.detach().numpy(),
    "encode": sentence.encode(rows),
    "query": sentence.encode_query(rows, prompt_name="msrvtt"),
    "document": sentence.encode_document(rows),
    "short": sentence.encode(rows, truncate_dim=16, normalize_embeddings=True),
    "ubinary": sentence.encode(rows, precision="ubinary"),
}
try:
    sentence.encode([media + "/nope.mp4"])
except FileNotFoundError as error:
    found["missing"] = np.array(str(error))
sentence.save_pretrained(out + "/again")
np.savez(out + "/vectors.npz", **found)
"""


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def pair(request, tiny):
    return tiny if request.param == "qwen2_5_vl" else gve.build_tiny(["a red circle"], family="qwen3_vl")


@pytest.fixture(scope="module")
def child(pair, media, tmp_path_factory):
    """What a process without the package computes, its rows, and the folder that it saves."""
    out, folder = tmp_path_factory.mktemp("child"), tmp_path_factory.mktemp("shipped")
    gve.save_embedder(folder, *pair, prompts=instructions())
    environment = os.environ | {"HF_MODULES_CACHE": str(out / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), str(media), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Do you wish to run" not in done.stdout
    rows = [str(media / "a.mp4"), {"text": "a red circle", "image": str(media / "i.png")}, "a blue box"]
    with np.load(out / "vectors.npz") as found:
        return dict(found), rows, out / "again"


def test_vectors(child, pair):
    found, rows, _ = child
    for name in ("auto", "encode", "document"):
        assert far(found[name], vectors(*pair, rows)) <= 1e-6, name
    assert far(found["query"], vectors(*pair, rows, instruction=instructions()["msrvtt"])) <= 1e-6
    assert far(found["short"], vectors(*pair, rows, dim=16)) <= 1e-6
    bits = np.packbits(vectors(*pair, rows) > 0, axis=1)
    assert (np.unpackbits(found["ubinary"] ^ bits).sum()) <= 1  # a component of about 1e-8 may change its sign
    assert "nope.mp4" in str(found["missing"]) and "accepted is a path that exists" in str(found["missing"])


def test_what_it_saves_carries_the_code_on(child, pair):
    _, rows, again = child
    assert {path.name for path in again.glob("*.py")} == {path.name for path in code_files(*pair)}
    loaded = SentenceTransformer(str(again), device="cpu")
    assert loaded.prompts["crb-s"] == instructions()["crb-s"]
    assert far(loaded.encode(rows), vectors(*pair, rows)) <= 1e-6
