"""LoRA: which layers get adapters, and adapters of every layout in their places."""

import json

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from stock_twin import stock_twin
from transformers import Qwen2_5_VLConfig, Qwen2Config

import gve
from gve.encoding.adapters import LORA_TARGETS, own_name

TEXT = {"input_ids": torch.arange(5, 60).view(5, 11)}
LEAKY = ["q_proj", "k_proj", "v_proj", "up_proj", "gate_proj", "down_proj"]


@pytest.fixture(autouse=True)
def own_random_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        yield


@pytest.fixture
def fresh(tiny):
    """The tiny model again, free to change."""

    def build(family="qwen2_5_vl"):
        return gve.build_tiny(["a red circle"], seed=0, family=family)[0]

    return build


@pytest.fixture(scope="module")
def batch(tiny, rows):
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
def test_adapters_are_on_the_language_model_alone(fresh, family):
    model = fresh(family)
    adapted = get_peft_model(model, gve.lora_config(model))
    layers = {name.split(".lora_A")[0] for name, _ in adapted.named_modules() if name.endswith("lora_A.default")}
    assert len(layers) == 6 * model.config.get_text_config().num_hidden_layers
    assert all("language_model.layers." in name and "visual" not in name for name in layers)
    assert all("language_model" in name for name, value in adapted.named_parameters() if value.requires_grad)


def test_a_list_of_names_reaches_into_the_vision_tower(fresh):
    """Why the pattern is there."""
    adapted = get_peft_model(fresh(), LoraConfig(target_modules=LEAKY))
    assert any("visual" in name for name, value in adapted.named_parameters() if value.requires_grad)


def test_configurations_are_checked():
    gve.lora_config(gve.GVEConfig())
    gve.lora_config(Qwen2_5_VLConfig())
    with pytest.raises(ValueError, match=r"model_or_config: got Qwen2Config, which has no language_model\.layers"):
        gve.lora_config(Qwen2Config())
    with pytest.raises(ValueError, match="model_or_config: got Linear"):
        gve.lora_config(torch.nn.Linear(2, 2))
    gve.lora_config(torch.nn.Linear(2, 2), target_modules=["weight"])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("base_model.model.model.language_model.layers.0.mlp.up_proj", "language_model.layers.0.mlp.up_proj"),
        ("base_model.model.model.layers.3.self_attn.q_proj", "language_model.layers.3.self_attn.q_proj"),
        ("base_model.model.language_model.layers.0.x", "language_model.layers.0.x"),
        ("base_model.model.model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
        ("base_model.model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
        ("language_model.norm", "language_model.norm"),
        ("q_proj", "q_proj"),
    ],
)
def test_own_name(key, expected):
    assert own_name(key) == expected


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("targets", [LORA_TARGETS, LEAKY], ids=["ours", "leaky"])
def test_adapter_of_the_stock_class(fresh, batch, tmp_path, merge, targets):
    model = fresh()
    model.config.position_mode = "stock"
    plain = vectors(model, batch)
    adapted = train_adapter(stock_twin(model), tmp_path, target_modules=targets)
    expected = stock_vectors(adapted, batch)
    assert gve.load_adapter(model, tmp_path, merge=merge) is model
    got = vectors(model, batch)
    assert (got - expected).abs().max() <= 1e-6
    assert (got - plain).abs().max() > 1e-2
    has_layers = any("lora" in name for name, _ in model.named_modules())
    assert has_layers != merge and type(model) is gve.GVEModel


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_adapter_of_our_own_class(fresh, tmp_path, family):
    model = fresh(family)
    adapted = train_adapter(fresh(family), tmp_path, r=3, use_dora=family == "qwen3_vl")
    assert torch.equal(vectors(gve.load_adapter(model, tmp_path), TEXT), vectors(adapted, TEXT))
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "lora" in name)


def test_adapter_of_the_layout_before_4_52(fresh, tmp_path):
    expected = stock_vectors(train_adapter(stock_twin(fresh()), tmp_path), TEXT)
    path = tmp_path / "adapter_model.safetensors"
    old = {key.replace("model.language_model.", "model."): value for key, value in load_file(path).items()}
    assert all(key.startswith("base_model.model.model.layers.") for key in old)
    save_file(old, path)
    got = vectors(gve.load_adapter(fresh(), tmp_path), TEXT)
    assert (got - expected).abs().max() <= 1e-6


def test_a_merged_model_is_plain(fresh, batch, tmp_path):
    train_adapter(fresh(), tmp_path / "adapter")
    model = gve.load_adapter(fresh(), tmp_path / "adapter", merge=True)
    assert all(parameter.requires_grad for parameter in model.parameters()) and not model.training
    assert not model._hf_peft_config_loaded
    model.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    again = gve.GVEModel.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    assert torch.equal(vectors(again, batch), vectors(model, batch))


def test_an_adapter_can_be_trained_on_and_saved(fresh, batch, tmp_path):
    train_adapter(fresh(), tmp_path / "one")
    model = gve.load_adapter(fresh(), tmp_path / "one", trainable=True)
    assert model.training
    assert {name.split(".")[-2] for name, value in model.named_parameters() if value.requires_grad} == {"default"}
    assert all("lora" in name for name, value in model.named_parameters() if value.requires_grad)
    model.save_pretrained(tmp_path / "two")
    again = gve.load_adapter(fresh(), tmp_path / "two")
    assert torch.equal(vectors(again, batch), vectors(model, batch))
    assert json.loads((tmp_path / "two" / "adapter_config.json").read_text())["target_modules"] == LORA_TARGETS


def test_ranks_of_single_layers(fresh, tmp_path):
    pattern = {"model.language_model.layers.0.self_attn.q_proj": 2}
    adapted = train_adapter(stock_twin(fresh()), tmp_path, rank_pattern=pattern, alpha_pattern={"up_proj": 3})
    assert (vectors(gve.load_adapter(fresh(), tmp_path), TEXT) - stock_vectors(adapted, TEXT)).abs().max() <= 1e-6


def test_a_language_head_is_left_out(fresh, tmp_path, caplog):
    train_adapter(stock_twin(fresh()), tmp_path, target_modules=["q_proj", "lm_head"])
    with caplog.at_level("WARNING", logger="gve.encoding.adapters"):
        gve.load_adapter(fresh(), tmp_path)
    assert "left out 3 tensors of the language head" in caplog.text


def test_an_adapter_that_fits_nothing(fresh, tmp_path):
    """peft loads it without an error, and the model stays as it was."""
    train_adapter(fresh(), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    other = {key.replace("language_model.layers", "decoder.blocks"): value for key, value in load_file(path).items()}
    save_file(other, path)
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"folder: 0 of 36 tensors of .* fit GVEModel, among the others: decoder"):
        gve.load_adapter(model, tmp_path)
    assert model.state_dict().keys() == before.keys()
    with pytest.warns(UserWarning, match="missing adapter keys"):
        PeftModel.from_pretrained(model, tmp_path)


def test_an_adapter_of_another_size(fresh, tmp_path):
    wide = gve.build_tiny(["a red circle"], text_hidden=160)[0]
    train_adapter(wide, tmp_path)
    with pytest.raises(ValueError, match="folder: 0 of 36 tensors"):
        gve.load_adapter(fresh(), tmp_path)


def test_folders_that_are_no_lora(fresh, tmp_path):
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


def test_a_name_is_taken_once(fresh, tmp_path):
    train_adapter(fresh(), tmp_path)
    model = gve.load_adapter(fresh(), tmp_path)
    with pytest.raises(ValueError, match="default"):
        gve.load_adapter(model, tmp_path)
