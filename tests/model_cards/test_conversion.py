import json
import shutil

import pytest
import torch
from conversion import read, refused, run
from safetensors.torch import load_file, save_file
from stock_twin import publish

from gve.encoding.checkpoints import open_checkpoint
from gve.model_cards import conversion
from gve.model_cards import convert_command as convert

NEW_LAYOUT = {"model.language_model.": "model.language_model."}


@pytest.mark.parametrize("drop_head", [False, True])
@pytest.mark.parametrize("prefixes", [None, NEW_LAYOUT], ids=["old", "new"])
def test_published_layouts(tiny, tmp_path, prefixes, drop_head):
    source = publish(tmp_path, *tiny, prefixes=prefixes, drop_head=drop_head)
    arguments = convert._parser().parse_args([str(source), "unused"])
    model, _ = conversion._load(open_checkpoint(str(source)), arguments)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tiny[0].state_dict().items())


def test_incomplete_sources(published, tmp_path, capsys):
    for gone, named in (
        (["config.json"], "has no config.json"),
        (["model.safetensors"], "has no model.safetensors"),
        (["tokenizer.json"], "has no vocab.json, no merges.txt"),
        (["tokenizer_config.json", "model.safetensors"], "has no model.safetensors, no tokenizer_config.json"),
    ):
        source = shutil.copytree(published, tmp_path / "-".join(gone))
        for name in gone:
            (source / name).unlink()
        assert named in refused([source, tmp_path / "ours"], capsys)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    assert "open its base model None" in refused([tmp_path / "lora", tmp_path / "ours"], capsys)
    run([published, tmp_path / "parts", "--max-shard-size", "1MB"], check=False)
    lost = sorted((tmp_path / "parts").glob("model-*.safetensors"))[1]
    lost.unlink()
    assert f"has no {lost.name}" in refused([tmp_path / "parts", tmp_path / "ours"], capsys)
    assert not (tmp_path / "ours").exists()


def test_sources_that_cannot_be_converted(published, tmp_path, capsys, monkeypatch):
    source, target = shutil.copytree(published, tmp_path / "source"), tmp_path / "ours"
    config = read(source, "config.json")
    for text, message in (
        (json.dumps(config | {"model_type": "llava"}), "gve_qwen3_vl, got 'llava'"),
        (json.dumps(config | {"quantization_config": {}}), "are quantised"),
        ("{", "is not JSON"),
    ):
        (source / "config.json").write_text(text)
        assert message in refused([source, target], capsys)
    (source / "config.json").write_text(json.dumps(config))
    (source / "model.safetensors").write_bytes(b"no weights at all")
    assert "cannot be read" in refused([source, target], capsys)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "is not a folder, and the Hub does not give it" in refused([tmp_path / "nothing", target], capsys)
    tensors = load_file(published / "model.safetensors")
    del tensors["model.norm.weight"], tensors["visual.merger.ln_q.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    message = refused([source, target], capsys)
    assert "2 missing keys (language_model.norm.weight, visual.merger.ln_q.weight)" in message
    assert not target.exists()
