"""The embedder on Qwen3-VL against transformers' own model."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from stock_twin import stock_config
from transformers import AutoConfig, AutoModel, Qwen3VLForConditionalGeneration, Qwen3VLModel

import gve
from gve import GVEQwen3VLConfig, GVEQwen3VLModel
from gve.positions_gve import mrope_positions


@pytest.fixture(scope="module")
def tiny():
    return gve.build_tiny(["a red circle"], family="qwen3_vl", vision_depth=3)


@pytest.fixture(scope="module")
def model(tiny):
    return tiny[0]


@pytest.fixture(scope="module")
def processor(tiny):
    return tiny[1]


@pytest.fixture
def batch(processor, rows):
    return processor.prepare(rows, instruction=["Find a red thing.", *[None] * (len(rows) - 1)])


@torch.no_grad()
def embed(model, batch, **kwargs):
    return model(**batch, **kwargs).embeddings


def test_earlier_batches_leave_no_trace(model, processor, batch):
    """transformers keeps the last batch's position differences on the model."""
    words = processor.prepare(["a red circle", "box"])
    fresh = copy.deepcopy(model)
    fresh.rope_deltas = None
    expected = embed(fresh, words)
    embed(fresh, batch)
    assert torch.equal(embed(fresh, words), expected)


def test_the_position_rules_are_one(model, batch):
    """Steps are grids of their own, so Qwen2.5-VL's rule and transformers' rule agree, and no choice is offered."""
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "attention_mask")
    theirs, _ = model.get_rope_index(**{name: batch[name] for name in names})
    steps = [[1, h, w] for t, h, w in batch["video_grid_thw"].tolist() for _ in range(t)]
    attended = batch["attention_mask"].bool()
    media = {"image_grids": batch["image_grid_thw"].tolist(), "video_grids": steps, "seconds": [1.0] * len(steps)}
    types = batch["mm_token_type_ids"].numpy()
    ours, _ = mrope_positions(types, attended.numpy(), **media, merge=2, tokens_per_second=2)
    assert torch.equal(torch.from_numpy(ours)[:, attended], theirs[:, attended])
    assert "position_mode" not in model.config.to_dict()


@pytest.mark.parametrize("kind", [Qwen3VLForConditionalGeneration, Qwen3VLModel])
@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saves_loads_and_is_saved_natively(model, tmp_path, kind, tied):
    """In several files, as published checkpoints are; with and without a prefix, and a language head."""
    config = stock_config(model.config)
    config.tie_word_embeddings = tied
    stock = kind(config).eval()
    stock.save_pretrained(tmp_path, max_shard_size="2MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded, report = GVEQwen3VLModel.from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    body = (stock.model if kind is Qwen3VLForConditionalGeneration else stock).state_dict()
    assert all(torch.equal(value, body[key]) for key, value in loaded.state_dict().items())
    assert len(loaded.state_dict()) == len(body)
    assert loaded.config.model_type == "gve_qwen3_vl" and loaded.config.tie_word_embeddings is tied
    loaded.save_pretrained(tmp_path / "again")
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == set(body)
    assert type(AutoModel.from_pretrained(tmp_path / "again")) is GVEQwen3VLModel


def test_configuration_round_trip(model, tmp_path):
    config = copy.deepcopy(model.config)
    config.truncate_dim, config.normalize = 32, False
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is GVEQwen3VLConfig and again.model_type == "gve_qwen3_vl"
    assert (again.truncate_dim, again.normalize, again.stock_vision) == (32, False, False)
    assert again.text_config.rope_parameters == config.text_config.rope_parameters
    assert again.text_config.rope_parameters["mrope_interleaved"] is True
    with pytest.raises(Exception, match="truncate_dim: got 129; accepted are 1 to 128"):
        GVEQwen3VLConfig(**config.to_dict() | {"truncate_dim": 129})
