"""Published weights by name from a Hub on this machine: the commands, a second time offline, and what can go wrong."""

import json
import shlex

import numpy as np
import pytest
from conversion import build, samples
from hub_server import Fault, HubServer, ask_here
from PIL import Image
from snippets import ROOT
from stock_twin import publish

import gve
from gve.eval import encode_command, search_command
from gve.eval.models import load_encoder
from gve.eval.store import load_embeddings

NAME = "Alibaba-NLP/GVE-3B"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """As the publisher's: foreign code beside the weights, which the configuration names."""
    folder = publish(tmp_path_factory.mktemp("published"), *build())
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "theirs.Theirs"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text("raise SystemExit('foreign code ran')")
    return folder


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    with HubServer() as hub:
        ask_here(monkeypatch, hub)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        files = {path.name: path.read_bytes() for path in published.iterdir()}
        put(hub, NAME, files)
        yield hub


def put(hub, name, files):
    hub.store.create("models", name, private=False)
    operations = [("file", {"path": path, "content": content}) for path, content in files.items()]
    hub.store.repo("models", name).commit("main", operations)


def test_by_name_then_offline(hub, published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "VIDEOS").mkdir()
    for name, colour in (("a.png", (200, 40, 40)), ("b.png", (20, 40, 200))):
        Image.new("RGB", (64, 48), colour).save(tmp_path / "VIDEOS" / name)
    command = ["VIDEOS", "--model", NAME, "--out"]
    assert encode_command.main([*command, str(tmp_path / "first.safetensors")]) == 0
    assert json.loads(capsys.readouterr().out)["embedded"] == 2
    assert hub.requests("safetensors") and not hub.requests("theirs")
    before = len(hub.requests())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert encode_command.main([*command, str(tmp_path / "second.safetensors")]) == 0
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(line for line in readme.splitlines() if line.startswith("gve search") and NAME in line)
    assert search_command.main(shlex.split(line)[2:]) == 0 and (tmp_path / "videos.safetensors").is_file()
    assert len(hub.requests()) == before
    first, second = (load_embeddings(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    assert np.array_equal(first.vectors, second.vectors) and first.model == NAME
    expected = gve.GVESentenceTransformer(str(published), device="cpu").encode(samples())
    assert np.array_equal(load_encoder(NAME).encode(samples()), expected)


def refused(name, message):
    with pytest.raises(ValueError, match=f"(?s)--model: cannot load '{name}' .*{message}"):
        load_encoder(name)


def test_what_the_hub_does_not_give(hub, tmp_path, monkeypatch):
    refused("org/nope", "no such repository, or it is private")
    hub.faults.append(Fault("GVE-3B/resolve", 403, None, "GatedRepo"))
    refused(NAME, "it is gated: ask for access on its page, then run `hf auth login`")
    hub.faults[:] = [Fault("", 500, None)]
    refused(NAME, "the Hub does not give it")
    hub.faults.clear()
    config = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.TheirConfig"}}
    put(hub, "org/foreign", {"config.json": json.dumps(config).encode(), "theirs.py": b"raise SystemExit('ran')"})
    refused("org/foreign", "contains custom code which must be executed")
    lora = {"peft_type": "LORA", "base_model_name_or_path": "org/gone"}
    put(hub, "org/lora", {"adapter_config.json": json.dumps(lora).encode()})
    refused("org/lora", "holds a LoRA adapter alone; open its base model 'org/gone' .*no such repository")
    other = json.dumps({"model_type": "llava"}).encode()
    put(hub, "org/llava", {"config.json": other, "model.safetensors": b"large"})
    with pytest.raises(ValueError, match=r"model: model_type in config.json must be one of .*, got 'llava'"):
        gve.GVESentenceTransformer("org/llava")
    assert not hub.requests("safetensors"), "weights were fetched before the family was known"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    refused(NAME, "it is not in the cache and the Hub cannot be reached")
    refused(str(tmp_path / "nowhere"), "check the path")
