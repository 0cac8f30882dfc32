"""Everything that the cards promise of the Hub: pushed by `gve push`, loaded by name as a stranger, against a Hub on
this machine. The libraries know of it by HF_ENDPOINT alone."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hub_process import PushProcess
from hub_server import HubServer
from peft import get_peft_model
from PIL import Image
from snippets import ROOT, clip_bytes, python_of

import gve
from gve.hub_datasets.uvrb import instructions
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import Sizes
from gve.model_cards.card_command import render_model_card

SMALL = Sizes(base=3, groups=1, programs=2, themes=2, longs=2, composed=2)
PAIRS = {"t2v": 3, "i2v": 2}
TEXTS = ("a square moves to the right", "find the video")

STRANGER = r"""
import json, sys
sys.modules["gve"] = None  # the package is not there
import evaluate
import numpy as np
import torch
from datasets import get_dataset_config_names, load_dataset
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoProcessor

first, out, offline = sys.argv[1], sys.argv[2], sys.argv[3] == "offline"
torch.set_num_threads(1)
code = {"trust_remote_code": True}
rows = ["a.mp4", {"text": "a red circle", "image": "a.png"}, "a blue box"]

def vectors(model, processor):
    with torch.inference_mode():
        return model.eval()(**processor.prepare(rows)).embeddings.numpy()

assert AutoConfig.from_pretrained("org/gve", **code).model_type == "gve"
processor = AutoProcessor.from_pretrained("org/gve", **code)
model = AutoModel.from_pretrained("org/gve", **code)
assert type(model).__module__.startswith("transformers_modules.")
sentence = SentenceTransformer("org/gve", device="cpu", **code)
found = {
    "auto": vectors(model, processor),
    "encode": sentence.encode(rows),
    "query": sentence.encode_query(rows, prompt_name="msrvtt"),
    "old": vectors(AutoModel.from_pretrained("org/gve", revision=first, **code), processor),
    "old_encode": SentenceTransformer("org/gve", revision=first, device="cpu", **code).encode(rows),
    "adapted": vectors(PeftModel.from_pretrained(model, "org/adapter"), processor),
}
# with several configurations in the cache, datasets asks for a name when it is offline
whole = load_dataset("org/uvrb", "default") if offline else load_dataset("org/uvrb")
one = load_dataset("org/uvrb", "msrvtt", split="unseen")
videos = load_dataset("org/uvrb", "msrvtt-corpus", split="unseen")
pairs = load_dataset("org/uvrd", "t2v", split="train")
facts = {
    "splits": {split: len(rows) for split, rows in whole.items()},
    "sets": sorted(set(whole["unseen"]["set"])),
    "one": [len(one), one[0]["text"], one[0]["instruction"], one[0]["positives"]],
    "videos": [videos[0]["id"], videos[0]["video"]["bytes"][4:8].decode()],
    "pairs": [len(pairs), pairs[0]["query"]["text"], pairs[0]["target"]["video"]["bytes"][4:8].decode()],
}
if not offline:
    facts["configs"] = get_dataset_config_names("org/uvrb")
    for name, config, split, known in (
        ("org/uvrb", "msrvtt", "unseen", one), ("org/uvrb", "msrvtt-corpus", "unseen", videos), ("org/uvrd", "t2v", "train", pairs)
    ):
        streamed = list(load_dataset(name, config, split=split, streaming=True))
        assert [row["id"] for row in streamed] == known["id"], name
        assert str(streamed[0]) == str(known[0]), name
    pinned = load_dataset("org/uvrb", "msrvtt", split="unseen", revision="main", streaming=True)
    assert next(iter(pinned)) == one[0]
metric = evaluate.load("org/video_retrieval")
result = metric.compute(
    predictions=[0, 1, 2], references=[[1], [0], [0]], query_embeddings=np.eye(3), corpus_embeddings=np.eye(4, 3)[[1, 0, 2, 3]])
facts["recall"] = result["recall@1"]
np.savez(out + ".npz", **found)
open(out + ".json", "w").write(json.dumps(facts))
"""

AFTER_README = r"""
assert type(SentenceTransformer("org/gve")[0].auto_model).__module__ == "gve.modeling_gve"
from gve.eval.models import load_encoder
from gve.hub_datasets.uvrb import load_set
loaded = load_set("org/uvrb", "ms-ti", split="seen")
assert len(loaded.queries) == 2 and loaded.pools is not None
import json
assert type(load_encoder("org/gve")).__name__ == "GVESentenceTransformer"
said = {}
for name in ("org/nope", "org/secret"):
    try:
        load_encoder(name)
    except ValueError as error:
        said[name] = str(error)
    try:
        load_set(name, "msrvtt")
    except ValueError as error:
        said[name + " set"] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder as `gve demo` leaves one, an adapter, and a second state of the model."""
    root = tmp_path_factory.mktemp("demo")
    model, processor = gve.build_tiny(TEXTS, seed=0)
    options = {"name": "org/gve", "license": "apache-2.0", "draft": True}
    gve.save_embedder(root / "model", model, processor, prompts=instructions(), max_shard_size="2MB")
    (root / "model" / "README.md").write_text(render_model_card(root / "model", **options))
    (root / "model" / "optimizer.pt").write_bytes(b"not for others")
    later, _ = gve.build_tiny(TEXTS, seed=1)
    gve.save_embedder(root / "later", later, processor, prompts=instructions())
    (root / "later" / "README.md").write_text(render_model_card(root / "later", **options))
    adapted = get_peft_model(later, gve.lora_config(later))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    adapted.peft_config["default"].base_model_name_or_path = "org/gve"
    adapted.save_pretrained(root / "adapter", save_embedding_layers=False)  # else it asks the Hub for the base
    (root / "adapter" / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: org/gve\n---\n# An adapter\n")
    build_world(root / "data", seed=5, pairs=PAIRS, raw=0, workers=1, progress=False, sizes=SMALL)
    return root


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(clip_bytes())
    for name in ("a.png", "i.png"):
        Image.new("RGB", (64, 48), (200, 40, 40)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="module")
def pushed(hub, root, tmp_path_factory):
    """What the command said: of everything, of the model's second state, of the adapter."""
    with PushProcess(hub.environment(tmp_path_factory.mktemp("pusher"))) as process:
        said = [
            process.push("all", root, "--repo", "org/gve", "--yes"),
            process.push("model", root / "later", "--repo", "org/gve", "--yes"),
            process.push("model", root / "adapter", "--repo", "org/adapter", "--yes"),
        ]
    for one in said:
        assert one.code == 0, one.err
    for kind in ("models", "datasets"):
        hub.store.create(kind, "org/secret", private=True)
    return [[json.loads(line) for line in one.out.splitlines()] for one in said]


def run(hub, home, folder, *arguments, **environment):
    """A fresh process in a folder, without a token: everything that it loads is public."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = kept | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-c", *map(str, arguments)]
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def strangers(hub, pushed, media, tmp_path_factory):
    """Vectors and facts of a process without the package, online and then offline, and the requests of the second."""
    home, out, found = tmp_path_factory.mktemp("stranger"), tmp_path_factory.mktemp("out"), []
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    for name, environment in (("online", {}), ("offline", offline)):
        before = len(hub.requests())
        run(hub, home, media, STRANGER, pushed[0][0]["commit"], out / name, name, **environment)
        with np.load(out / f"{name}.npz") as vectors:
            found.append((dict(vectors), json.loads((out / f"{name}.json").read_text())))
    return *found, hub.requests()[before:]


@pytest.fixture(scope="module")
def expected(root, media):
    """Vectors by the folders themselves."""
    rows = [str(media / "a.mp4"), {"text": "a red circle", "image": str(media / "a.png")}, "a blue box"]
    processor = gve.GVEProcessor.from_pretrained(root / "later")

    def vectors(model, **options):
        with torch.inference_mode():
            return model.eval()(**processor.prepare(rows, **options)).embeddings.numpy()

    first, later = (gve.GVEModel.from_pretrained(root / name) for name in ("model", "later"))
    out = {"auto": vectors(later), "encode": vectors(later), "old": vectors(first), "old_encode": vectors(first)}
    out["query"] = vectors(later, instruction=instructions()["msrvtt"])
    return out | {"adapted": vectors(gve.load_adapter(later, root / "adapter"))}


def test_what_was_pushed(hub, pushed):
    everything, (later,), (adapter,) = pushed
    assert [(one["kind"], one["repo"], one["repo_type"]) for one in everything] == [
        ("model", "org/gve", "model"),
        ("uvrb", "org/uvrb", "dataset"),
        ("uvrd", "org/uvrd", "dataset"),
        ("metric", "org/video_retrieval", "space"),
    ]
    assert later["commit"] != everything[0]["commit"] and adapter["files"] == 3
    repo, data = hub.store.repo("models", "org/gve"), hub.store.repo("datasets", "org/uvrb")
    first, later = (set(repo.tree(repo.resolve(revision))) for revision in (pushed[0][0]["commit"], "main"))
    assert "model-00001-of-00003.safetensors" in first and "model.safetensors" not in first
    assert "model.safetensors" in later and not [name for name in later if name.startswith("model-")], "one state only"
    assert not [name for name in first | later if "optimizer" in name]
    assert not [name for name in data.tree(data.resolve("main")) if name.startswith("videos/")]


def test_vectors_by_name(strangers, expected):
    for found, _ in strangers[:2]:
        assert found.keys() == expected.keys()
        for name, vectors in expected.items():
            np.testing.assert_allclose(found[name], vectors, atol=1e-5, err_msg=name)
    for other in ("old", "adapted"):
        assert np.abs(expected[other] - expected["auto"]).max() > 0.01, other


def test_data_by_name_then_offline(strangers):
    (_, facts), (_, offline), requests = strangers
    assert not requests and offline == {key: value for key, value in facts.items() if key != "configs"}
    assert facts["splits"]["seen"] == facts["splits"]["unseen"] > 16 and len(facts["sets"]) == 16
    assert facts["one"][0] == SMALL.base and facts["one"][2] == instructions()["msrvtt"] and facts["one"][3]
    assert facts["videos"][1] == "ftyp" and facts["pairs"][0] == 3 and facts["pairs"][2] == "ftyp"
    assert {"default", "msrvtt", "msrvtt-queries", "ms-ti-top_ranked"} <= set(facts["configs"])
    assert round(facts["recall"], 3) == 0.667


def test_the_readmes_lines_as_written(hub, pushed, media, tmp_path):
    """Both pages' code, with the endpoint set and nothing else; then what our own loaders make of the same names."""
    code = python_of(ROOT / "README.md", heading="Use") + python_of(ROOT / "modeling_gve" / "README.md")
    for line in ('AutoModel.from_pretrained("org/gve")', 'SentenceTransformer("org/gve")', 'load_dataset("org/uvrb"'):
        assert line in code
    *shown, last = run(hub, tmp_path, media, code + AFTER_README).splitlines()
    assert len(shown) >= 3
    said = json.loads(last)
    assert len(said) == 4
    for name in ("org/nope", "org/secret"):
        assert f"--model: cannot load '{name}'" in said[name]
        assert f"'{name}'" in said[f"{name} set"] and "UVRB" in said[f"{name} set"]
