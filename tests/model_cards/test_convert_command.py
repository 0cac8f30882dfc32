import json
import shutil
import types

import torch
import torch.nn.functional as F
from conversion import build, read, refused, run, samples, vectors
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from stock_twin import stock_twin
from transformers import AutoModel, AutoProcessor

import gve
from gve.encoding.adapters import LORA_TARGETS
from gve.hub_datasets.uvrb import instructions
from gve.model_cards import conversion
from gve.model_cards import convert_command as convert


def test_published_to_ours(tiny, ours):
    folder, summary = ours
    model, _ = tiny
    converted, loaded = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(converted) is gve.GVEModel and type(loaded) is gve.GVEProcessor
    for name, tensor in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], tensor), name
    assert summary["layout"] == "gve" and summary["model_type"] == "gve" and summary["source_type"] == "qwen2_5_vl"
    assert summary["parameters"] == sum(one.numel() for one in model.parameters())
    assert summary["tensors"] == len(model.state_dict()) and summary["dtype"] == "float32"
    assert summary["position_mode"] == "mrope" and summary["adapter"] is None
    assert set(summary["difference"]) == {"text", "image", "video"} and max(summary["difference"].values()) <= 1e-6
    assert summary["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_files_of_ours(ours, published):
    folder, _ = ours
    assert read(folder, "config.json")["model_type"] == "gve"
    assert read(folder, "config.json")["auto_map"]["AutoModel"] == "modeling_gve.GVEModel"
    assert read(folder, "tokenizer_config.json")["padding_side"] == "left"
    prompts = read(folder, "config_sentence_transformers.json")["prompts"]
    assert instructions().items() <= prompts.items() and {"query", "document"} <= set(prompts) and len(prompts) == 18
    assert (folder / "modeling_gve.py").is_file() and (folder / "processing_gve.py").is_file()
    assert not list(folder.parent.glob(".*"))
    processor = gve.GVEProcessor.from_pretrained(folder)
    tokens = (processor.video_processor.patch_size * 2) ** 2
    assert processor.video_processor.num_frames == 8
    assert processor.video_processor.size == {"shortest_edge": 4 * tokens, "longest_edge": 200 * tokens}
    assert dict(processor.image_processor.size) == {"shortest_edge": 4 * tokens, "longest_edge": 256 * tokens}
    assert str(published) not in (folder / "config.json").read_text()


def test_foreign_code_and_flat_configurations(tiny, published, tmp_path):
    """As the published GVE: fields at the top, and an auto_map to a file that no present release can run."""
    source = shutil.copytree(published, tmp_path / "source")
    config = read(source, "config.json")
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    flat = {**text, "rope_theta": rope.pop("rope_theta"), "rope_scaling": {"type": "mrope", **rope}, **config}
    flat |= {"auto_map": {"AutoModel": "modeling_x.X"}, "architectures": ["X"], "torch_dtype": "float32"}
    del flat["rope_scaling"]["rope_type"]
    (source / "config.json").write_text(json.dumps(flat))
    (source / "modeling_x.py").write_text("raise RuntimeError('foreign code ran')\n")
    run([source, tmp_path / "ours"], check=False)
    assert "modeling_x" not in (tmp_path / "ours" / "config.json").read_text()
    assert not (tmp_path / "ours" / "modeling_x.py").exists()
    rope = gve.GVEConfig.from_pretrained(tmp_path / "ours").text_config.rope_parameters
    assert {"rope_theta": 2.0, "rope_type": "default", "mrope_section": [6, 5, 5]}.items() <= rope.items()


def test_options(published, tiny, tmp_path):
    flags = ["--dtype", "bfloat16", "--position-mode", "sequential", "--max-shard-size", "500KB"]
    summary = run([published, tmp_path / "ours", *flags])
    assert summary["dtype"] == "bfloat16" and summary["position_mode"] == "sequential"
    assert max(summary["difference"].values()) <= 1e-6
    config = gve.GVEConfig.from_pretrained(tmp_path / "ours")
    assert config.position_mode == "sequential" and config.dtype == torch.bfloat16
    shards = list((tmp_path / "ours").glob("model-*.safetensors"))
    assert len(shards) > 3 and (tmp_path / "ours" / "model.safetensors.index.json").is_file()
    loaded = gve.GVEModel.from_pretrained(tmp_path / "ours")
    for name, tensor in tiny[0].state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16()), name
    flags = ["--to", "stock", "--position-mode", "mrope", *flags[4:]]
    run([tmp_path / "ours", tmp_path / "stock", *flags], check=False)
    assert len(list((tmp_path / "stock").glob("model-*.safetensors"))) > 3


def test_an_adapter_is_merged(published, tiny, tmp_path):
    twin = stock_twin(tiny[0])
    adapted = get_peft_model(twin, LoraConfig(r=4, target_modules=LORA_TARGETS, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    flags = ["--adapter", tmp_path / "adapter", "--position-mode", "stock"]
    summary = run([published, tmp_path / "ours", *flags], check=False)
    assert summary["adapter"] == str(tmp_path / "adapter")
    batch = tiny[1].prepare(samples())
    with torch.no_grad():
        hidden = adapted.eval()(**batch, output_hidden_states=True, use_cache=False).hidden_states[-1]
    got = vectors(gve.GVEModel.from_pretrained(tmp_path / "ours", attn_implementation="eager"), batch)
    assert (got - F.normalize(hidden[:, -1], dim=-1)).abs().max() <= 1e-6
    assert not (tmp_path / "ours" / "adapter_config.json").exists()


def test_what_a_target_may_be(published, ours, tmp_path, capsys):
    source = shutil.copytree(published, tmp_path / "a" / "source")
    for target in (source, source / "inside", tmp_path / "a"):
        assert "lie one in the other" in refused([source, target], capsys)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    assert "is a file" in refused([published, tmp_path / "notes" / "a.txt"], capsys)
    for force in ([], ["--force"]):
        assert "holds other files" in refused([published, tmp_path / "notes", *force], capsys)
    assert "use --force to replace it" in refused([published, ours[0]], capsys)
    assert [path.name for path in tmp_path.rglob("*")] == ["notes", "a.txt"]


def test_force_replaces_a_model(published, ours, tmp_path):
    left = tmp_path / ".target.partial"  # as a killed run leaves it
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    target = shutil.copytree(ours[0], tmp_path / "target")
    (target / "old.txt").touch()
    run([published, target, "--force", "--dtype", "bfloat16"], check=False)
    assert not (target / "old.txt").exists() and read(target, "config.json")["dtype"] == "bfloat16"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    (tmp_path / "empty").mkdir()
    run([published, tmp_path / "empty"], check=False)


def test_other_refusals(published, tmp_path, capsys, monkeypatch):
    flags = ["--to", "stock", "--position-mode", "sequential"]
    assert "stock code cannot count positions" in refused([published, tmp_path / "stock", *flags], capsys)
    model, processor = build("qwen3_vl")
    gve.save_embedder(tmp_path / "source", model, processor)
    flags = ["--position-mode", "stock"]
    assert "has one way to count positions" in refused([tmp_path / "source", tmp_path / "ours", *flags], capsys)
    assert convert.main([str(published), str(tmp_path / "x"), "--dtype", "int8"]) == 2
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    save_file({"base_model.model.other.lora_A.weight": torch.zeros(2, 2)}, adapter / "adapter_model.safetensors")
    assert "0 of 1 tensors" in refused([published, tmp_path / "ours", "--adapter", adapter], capsys)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1 << 20))
    message = refused([published, tmp_path / "deep" / "ours"], capsys)
    assert "has 0.00 GiB free, 0.07 GiB are needed" in message
    assert {path.name for path in tmp_path.iterdir()} == {"source", "adapter"}


def test_a_failure_leaves_nothing(published, tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise OSError("no space")

    for step in ("save_embedder", "_compare", "_put"):
        with monkeypatch.context() as patch:
            patch.setattr(conversion, "_compare", lambda *args, **kwargs: {"text": 0.0})
            patch.setattr(conversion, step, fail)
            assert "no space" in refused([published, tmp_path / "ours"], capsys)
    monkeypatch.setattr(conversion, "_compare", lambda *args, **kwargs: {"text": float("nan"), "image": 0.0})
    assert "the result's vectors differ by nan; nothing was written" in refused([published, tmp_path / "o"], capsys)
    assert not list(tmp_path.iterdir())
