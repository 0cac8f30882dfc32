"""LoRA: which layers get adapters, and adapters of every layout in their places."""

import json

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from stock_twin import stock_twin
from transformers import Qwen2_5_VLConfig, Qwen2Config

import gve
from gve.encoding.adapters import LORA_TARGETS

TEXT = {"input_ids": torch.arange(5, 60).view(5, 11)}
LEAKY = ["q_proj", "k_proj", "v_proj", "up_proj", "gate_proj", "down_proj"]


@pytest.fixture(autouse=True)
def own_random_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        yield


def fresh(**options):
    """A tiny model of the test's own, free to change."""
    return gve.build_tiny(["a red circle"], seed=0, **options)[0]


@pytest.fixture(scope="module")
def batch(rows):
    return gve.build_tiny(["a red circle"], seed=0)[1].prepare(rows[:5])


@torch.no_grad()
def vectors(model, batch):
    return model.eval()(**batch).embeddings


@torch.no_grad()
def stock_vectors(model, batch):
    hidden = model.eval()(**batch, output_hidden_states=True, use_cache=False).hidden_states[-1]
    return F.normalize(hidden[:, -1].float(), dim=-1)


def train_adapter(model, folder, **settings):
    """An adapter as if trained: no tensor of it is zero."""
    settings = {"r": 4, "target_modules": LORA_TARGETS, "init_lora_weights": False} | settings
    adapted = get_peft_model(model, LoraConfig(**settings))
    adapted.save_pretrained(folder)
    return adapted


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_adapters_are_on_the_language_model_alone(family):
    model = fresh(family=family)
    adapted = get_peft_model(model, gve.lora_config(model))
    layers = {name.split(".lora_A")[0] for name, _ in adapted.named_modules() if name.endswith("lora_A.default")}
    assert len(layers) == 6 * model.config.get_text_config().num_hidden_layers
    assert all("language_model.layers." in name and "visual" not in name for name in layers)
    assert all("language_model" in name for name, value in adapted.named_parameters() if value.requires_grad)


def test_configurations_are_checked():
    gve.lora_config(gve.GVEConfig())
    gve.lora_config(Qwen2_5_VLConfig())
    with pytest.raises(ValueError, match=r"model_or_config: got Qwen2Config, which has no language_model\.layers"):
        gve.lora_config(Qwen2Config())
    with pytest.raises(ValueError, match="model_or_config: got Linear"):
        gve.lora_config(torch.nn.Linear(2, 2))
    gve.lora_config(torch.nn.Linear(2, 2), target_modules=["weight"])


@pytest.mark.parametrize("targets", [LORA_TARGETS, LEAKY], ids=["ours", "leaky"])
def test_adapter_of_the_stock_class(batch, tmp_path, targets):
    stock = fresh()
    stock.config.position_mode = "stock"
    plain = vectors(stock, batch)
    expected = stock_vectors(train_adapter(stock_twin(stock), tmp_path, target_modules=targets), batch)
    assert (expected - plain).abs().max() > 1e-2
    for merge in (False, True):
        model = fresh()
        model.config.position_mode = "stock"
        assert gve.load_adapter(model, tmp_path, merge=merge) is model and type(model) is gve.GVEModel
        assert (vectors(model, batch) - expected).abs().max() <= 1e-6
        assert any("lora" in name for name, _ in model.named_modules()) != merge


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_adapter_of_our_own_class(tmp_path, family):
    model = fresh(family=family)
    adapted = train_adapter(fresh(family=family), tmp_path, r=3, use_dora=family == "qwen3_vl")
    assert torch.equal(vectors(gve.load_adapter(model, tmp_path), TEXT), vectors(adapted, TEXT))
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "lora" in name)


def test_adapter_of_the_layout_before_4_52(tmp_path):
    expected = stock_vectors(train_adapter(stock_twin(fresh()), tmp_path), TEXT)
    path = tmp_path / "adapter_model.safetensors"
    old = {key.replace("model.language_model.", "model."): value for key, value in load_file(path).items()}
    assert all(key.startswith("base_model.model.model.layers.") for key in old)
    save_file(old, path)
    got = vectors(gve.load_adapter(fresh(), tmp_path), TEXT)
    assert (got - expected).abs().max() <= 1e-6


def test_a_merged_model_is_plain(batch, tmp_path):
    train_adapter(fresh(), tmp_path / "adapter")
    model = gve.load_adapter(fresh(), tmp_path / "adapter", merge=True)
    assert all(parameter.requires_grad for parameter in model.parameters()) and not model.training
    assert not model._hf_peft_config_loaded
    model.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    again = gve.GVEModel.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    assert torch.equal(vectors(again, batch), vectors(model, batch))


def test_an_adapter_can_be_trained_on_and_saved(batch, tmp_path):
    train_adapter(fresh(), tmp_path / "one")
    model = gve.load_adapter(fresh(), tmp_path / "one", trainable=True)
    assert model.training
    assert {name.split(".")[-2] for name, value in model.named_parameters() if value.requires_grad} == {"default"}
    assert all("lora" in name for name, value in model.named_parameters() if value.requires_grad)
    model.save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match="default"):  # the name is taken
        gve.load_adapter(model, tmp_path / "two")
    again = gve.load_adapter(fresh(), tmp_path / "two")
    assert torch.equal(vectors(again, batch), vectors(model, batch))
    assert json.loads((tmp_path / "two" / "adapter_config.json").read_text())["target_modules"] == LORA_TARGETS


def test_ranks_of_single_layers(tmp_path):
    pattern = {"model.language_model.layers.0.self_attn.q_proj": 2}
    adapted = train_adapter(stock_twin(fresh()), tmp_path, rank_pattern=pattern, alpha_pattern={"up_proj": 3})
    assert (vectors(gve.load_adapter(fresh(), tmp_path), TEXT) - stock_vectors(adapted, TEXT)).abs().max() <= 1e-6


def test_a_language_head_is_left_out(tmp_path, caplog):
    train_adapter(stock_twin(fresh()), tmp_path, target_modules=["q_proj", "lm_head"])
    with caplog.at_level("WARNING", logger="gve.encoding.adapters"):
        gve.load_adapter(fresh(), tmp_path)
    assert "left out 3 tensors of the language head" in caplog.text


def test_an_adapter_that_fits_nothing(tmp_path):
    train_adapter(fresh(text_hidden=160), tmp_path)
    with pytest.raises(ValueError, match="folder: 0 of 36 tensors"):
        gve.load_adapter(fresh(), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    other = {key.replace("language_model.layers", "decoder.blocks"): value for key, value in load_file(path).items()}
    save_file(other, path)
    model = fresh()
    before = set(model.state_dict())
    with pytest.raises(ValueError, match=r"folder: 0 of 36 tensors of .* fit GVEModel, among the others: decoder"):
        gve.load_adapter(model, tmp_path)
    assert set(model.state_dict()) == before


def test_folders_that_are_no_lora(tmp_path):
    model = fresh()
    with pytest.raises(ValueError, match=r"has no adapter_config\.json and no adapter_model\.safetensors"):
        gve.load_adapter(model, tmp_path)
    train_adapter(fresh(), tmp_path)
    path = tmp_path / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"peft_type": "IA3"}))
    with pytest.raises(ValueError, match="got an adapter of kind 'IA3'; accepted is 'LORA'"):
        gve.load_adapter(model, tmp_path)
    path.write_text(json.dumps(settings))
    save_file({"base_model.model.norm.weight": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="1 tensors, 1 of them no LoRA weights"):
        gve.load_adapter(model, tmp_path)
