"""The embedders against the recipe they stand for: the stock generating class, its last layer at the end token."""

import copy

import pytest
import torch
from stock_twin import stock_twin

import gve
from gve.vision_gve import GVEVisionAttention


@torch.no_grad()
def recipe(stock, batch):
    """The last layer's state at the last attended token, of unit length."""
    hidden = stock(**batch, output_hidden_states=True).hidden_states[-1]
    last = batch["attention_mask"].shape[1] - 1 - batch["attention_mask"].flip(-1).argmax(-1)
    return torch.nn.functional.normalize(hidden[torch.arange(len(hidden)), last].float(), dim=-1)


def ours(model, attention, **settings):
    """The model again, with other settings."""
    config = copy.deepcopy(model.config)
    for name, value in settings.items():
        setattr(config, name, value)
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation(attention)
    return other


@torch.no_grad()
def embed(model, batch, **kwargs):
    return model(**batch, **kwargs).embeddings


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_stock_recipe(tiny, rows, family, attention):
    """To the bit with the stock tower; with the faster one up to the order of additions."""
    model, processor = tiny if family == "qwen2_5_vl" else gve.build_tiny(["a"], family=family, vision_depth=3)
    stock, settings = stock_twin(model), {"position_mode": "stock"} if family == "qwen2_5_vl" else {}
    stock.set_attn_implementation(attention)
    exact, fast = (ours(model, attention, stock_vision=each, **settings) for each in (True, False))
    assert all(isinstance(block.attn, GVEVisionAttention) for block in fast.visual.blocks)
    every = processor.prepare(rows, instruction=["Find a red thing.", *[None] * (len(rows) - 1)])
    for batch in (every, *(processor.prepare([row]) for row in rows[:5])):
        seen = {key: value for key, value in batch.items() if family == "qwen2_5_vl" or key != "second_per_grid_ts"}
        expected = recipe(stock, seen)
        # asking for the hidden states keeps the rows in one batch, as the recipe has them
        assert torch.equal(embed(exact, batch, output_hidden_states=True), expected)
        # split by length, they stand at other columns
        assert (embed(exact, batch) - expected).abs().max() <= 1e-6
        assert (embed(fast, batch) - expected).abs().max() <= 1e-6
