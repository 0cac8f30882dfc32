"""The embedder on Qwen3-VL against transformers' own model."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)

import gve
from gve import GVEQwen3VLConfig, GVEQwen3VLModel
from gve.positions_gve import mrope_positions
from gve.vision_gve import GVEVisionAttention

TEXTS = ("a red circle moves to the left of a blue box", "Find the video according to the text description.")


@pytest.fixture(scope="module")
def tiny():
    return gve.build_tiny(TEXTS, family="qwen3_vl", vision_depth=3)


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


def stock_config(model):
    fields = model.config.to_dict()
    own = ("model_type", "normalize", "truncate_dim", "stock_vision", "architectures", "auto_map")
    config = Qwen3VLConfig(**{key: value for key, value in fields.items() if key not in own})
    assert config.model_type == "qwen3_vl"
    return config


def stock_twin(model, attention="eager"):
    """transformers' generating model with the same weights."""
    stock = Qwen3VLForConditionalGeneration(stock_config(model)).eval()
    stock.model.load_state_dict(model.state_dict())
    stock.set_attn_implementation(attention)
    return stock


@torch.no_grad()
def stock_embed(stock, batch):
    """The last layer's state at the last attended token, of unit length."""
    batch = {key: value for key, value in batch.items() if key != "second_per_grid_ts"}
    hidden = stock(**batch, output_hidden_states=True).hidden_states[-1]
    last = batch["attention_mask"].shape[1] - 1 - batch["attention_mask"].flip(-1).argmax(-1)
    return torch.nn.functional.normalize(hidden[torch.arange(len(hidden)), last].float(), dim=-1)


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_stock_recipe_to_the_bit(model, batch, attention):
    config = copy.deepcopy(model.config)
    config.stock_vision = True
    ours = GVEQwen3VLModel(config).eval()
    ours.load_state_dict(model.state_dict())
    ours.set_attn_implementation(attention)
    expected = stock_embed(stock_twin(model, attention), batch)
    # asking for the hidden states keeps the rows in one batch, as the recipe has them
    assert torch.equal(embed(ours, batch, output_hidden_states=True), expected)
    assert (embed(ours, batch) - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_faster_vision_tower(model, batch, attention):
    """Equal up to the order of additions: frames of one size are one product, patches are one product."""
    fast = copy.deepcopy(model)
    fast.set_attn_implementation(attention)
    assert all(isinstance(block.attn, GVEVisionAttention) for block in fast.visual.blocks)
    assert (embed(fast, batch) - stock_embed(stock_twin(model, attention), batch)).abs().max() <= 1e-6


def test_time_steps_do_not_reach_the_backbone(model, batch):
    """It would pass them on to the attention functions."""
    assert "second_per_grid_ts" in batch and "second_per_grid_ts" not in model.backbone_inputs(dict(batch))
    without = {key: value for key, value in batch.items() if key != "second_per_grid_ts"}
    assert torch.equal(embed(model, without), embed(model, batch))


def test_earlier_batches_leave_no_trace(model, processor, rows, batch):
    """transformers keeps the last batch's position differences on the model."""
    words = processor.prepare(["a red circle", "box"])
    fresh = copy.deepcopy(model)
    fresh.rope_deltas = None
    expected = embed(fresh, words)
    embed(fresh, batch)
    assert torch.equal(embed(fresh, words), expected)


def test_the_position_rules_are_one(model, batch):
    """Steps are grids of their own, so Qwen2.5-VL's rule and transformers' rule agree, and no choice is offered."""
    theirs, _ = model.get_rope_index(
        **{
            name: batch[name]
            for name in ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "attention_mask")
        }
    )
    steps = [[1, h, w] for t, h, w in batch["video_grid_thw"].tolist() for _ in range(t)]
    ours, _ = mrope_positions(
        batch["mm_token_type_ids"].numpy(),
        batch["attention_mask"].numpy() != 0,
        image_grids=batch["image_grid_thw"].tolist(),
        video_grids=steps,
        seconds=[1.0] * len(steps),
        merge=2,
        tokens_per_second=2,
    )
    attended = batch["attention_mask"].bool()
    assert torch.equal(torch.from_numpy(ours)[:, attended], theirs[:, attended])
    assert "position_mode" not in model.config.to_dict()


def test_positions_and_times_matter(model, processor, batch):
    """An untrained model already tells places, the order of frames, and times apart."""
    flat = torch.arange(batch["input_ids"].shape[1]).expand(3, *batch["input_ids"].shape)
    assert (embed(model, batch, position_ids=flat) - embed(model, batch)).abs().max() > 1e-3
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    rows = [
        {"video": {"frames": frames, "timestamps": times}} for times in ([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 62.0, 63.0])
    ]
    rows.append({"video": {"frames": frames[::-1], "timestamps": [0.0, 1.0, 2.0, 3.0]}})
    first, later, backwards = embed(model, processor.prepare(rows))
    assert (first - later).abs().max() > 1e-3 and (first - backwards).abs().max() > 1e-3


def test_deepstack_features_reach_the_language_model(model, batch, processor):
    assert list(model.config.vision_config.deepstack_visual_indexes) == [0, 1]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for merger in other.visual.deepstack_merger_list:
            merger.linear_fc2.weight.mul_(-1)
    assert (embed(other, batch) - embed(model, batch)).abs().max() > 1e-3
    words = processor.prepare(["a red circle"])
    assert torch.equal(embed(other, words), embed(model, words))


# -- options ----------------------------------------------------------------------------------------------------------


# -- checkpoints ------------------------------------------------------------------------------------------------------


def layouts(state):
    """The weights under the names of each published layout."""
    new = {f"model.{key}": value for key, value in state.items()}
    head = {"lm_head.weight": torch.zeros_like(state["language_model.embed_tokens.weight"])}
    return {"native": state, "published": new, "published with head": new | head, "native with head": state | head}


@pytest.mark.parametrize("layout", ["native", "native with head", "published", "published with head"])
def test_every_layout_loads_and_is_saved_natively(model, tmp_path, layout):
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    stock_config(model).save_pretrained(tmp_path)
    save_file(layouts(state)[layout], tmp_path / "model.safetensors", {"format": "pt"})
    loaded, report = GVEQwen3VLModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    loaded.save_pretrained(tmp_path / "again")
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == set(state)
    assert type(AutoModel.from_pretrained(tmp_path / "again")) is GVEQwen3VLModel


@pytest.mark.parametrize("kind", [Qwen3VLForConditionalGeneration, Qwen3VLModel])
@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saves_loads(model, batch, tmp_path, kind, tied):
    """In several files, as published checkpoints are."""
    config = stock_config(model)
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


def test_configuration_round_trip(model, tmp_path):
    config = copy.deepcopy(model.config)
    config.truncate_dim = 32
    config.normalize = False
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is GVEQwen3VLConfig and again.model_type == "gve_qwen3_vl"
    assert (again.truncate_dim, again.normalize, again.stock_vision) == (32, False, False)
    assert again.text_config.rope_parameters == config.text_config.rope_parameters
    assert again.text_config.rope_parameters["mrope_interleaved"] is True


def test_too_many_dimensions_are_refused_when_the_configuration_is_made(model):
    fields = stock_config(model).to_dict() | {"model_type": "gve_qwen3_vl", "truncate_dim": 129}
    with pytest.raises(Exception, match="truncate_dim: got 129; accepted are 1 to 128"):
        GVEQwen3VLConfig(**fields)
