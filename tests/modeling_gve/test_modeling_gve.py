import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, Qwen2_5_VLModel

from gve import build_tiny
from gve.embedder_gve import GVEModelOutput


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def pair(request, tiny):
    """Both families, for what every model does."""
    return tiny if request.param == "qwen2_5_vl" else build_tiny(["a red circle"], family="qwen3_vl")


@pytest.fixture
def both(pair):
    return pair[0]


@pytest.fixture
def seen(pair, rows):
    return pair[1].prepare(rows)


@pytest.fixture
def batch(processor, rows):
    return processor.prepare(rows)


@torch.no_grad()
def embed(model, batch):
    return model(**batch).embeddings


def test_embeddings_are_unit_rows_at_the_end_token(both, seen):
    out = both(**seen)
    assert isinstance(out, GVEModelOutput) and out.embeddings.dtype == torch.float32
    assert torch.allclose(out.embeddings.norm(dim=-1), torch.ones(len(out.embeddings)), atol=1e-6)
    last = out.last_hidden_state[:, -1]
    assert torch.allclose(out.embeddings, last / last.norm(dim=-1, keepdim=True), atol=1e-6)
    assert torch.equal(both(**seen, return_dict=False)[0], out.embeddings)
    raw = copy.deepcopy(both)
    raw.config.normalize = False
    out = raw(**seen)
    assert torch.equal(out.embeddings, out.last_hidden_state[:, -1])


def test_a_row_does_not_depend_on_its_batch(both, pair, rows, seen):
    together = embed(both, seen)
    alone = torch.cat([embed(both, pair[1].prepare([row])) for row in rows])
    assert (together - alone).abs().max() <= 1e-6


def padded(batch, sides, extra=0):
    """The rows of a batch padded anew, each on its own side."""
    out = dict(batch)
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        value = torch.zeros(len(sides), batch[key].shape[1] + extra, dtype=batch[key].dtype)
        for i, (mask, side) in enumerate(zip(batch["attention_mask"].bool(), sides, strict=True)):
            kept = batch[key][i, mask]
            value[i, : len(kept)] = kept
            value[i] = value[i].roll(value.shape[1] - len(kept)) if side == "left" else value[i]
        out[key] = value
    return out


@pytest.mark.parametrize("mode", ["mrope", "stock", "sequential"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_side_does_not_matter(model, processor, rows, mode, attention):
    rows = [rows[i] for i in (0, 1, 3, 4, 7, 12)]
    batch = processor.prepare(rows)
    other = copy.deepcopy(model)
    other.config.position_mode = mode
    other.set_attn_implementation(attention)
    expected = torch.cat([embed(other, processor.prepare([row])) for row in rows])
    mixed = ["left" if i % 2 else "right" for i in range(len(rows))]
    for sides in (["left"] * len(rows), ["right"] * len(rows), mixed):
        assert (embed(other, padded(batch, sides, extra=7)) - expected).abs().max() <= 1e-6, sides[:2]


def test_first_dimensions(both, seen, tmp_path):
    whole, small = embed(both, seen), copy.deepcopy(both)
    for dim in (1, 128, 5):
        expected = torch.nn.functional.normalize(whole[:, :dim], dim=-1)
        with torch.no_grad():
            cut = both(**seen, truncate_dim=dim).embeddings
        assert cut.shape == (len(whole), dim) and (cut - expected).abs().max() <= 1e-6
        small.config.truncate_dim = dim
        assert torch.equal(embed(small, seen), cut)
    with torch.no_grad():  # the call's goes before the configuration's
        assert small(**seen, truncate_dim=2).embeddings.shape[1] == 2
    small.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert again.config.truncate_dim == 5 and torch.equal(embed(again, seen), cut)


def test_impossible_dimensions_are_refused_before_anything_runs(model, batch, monkeypatch):
    monkeypatch.setattr(Qwen2_5_VLModel, "forward", lambda *args, **kwargs: pytest.fail("the backbone ran"))
    late = copy.deepcopy(model)
    for dim in (0, -1, 129, 2.0):
        with pytest.raises(ValueError, match=f"truncate_dim: got {dim}; accepted are 1 to 128, the model's width"):
            model(**batch, truncate_dim=dim)
    late.config.truncate_dim = 0
    with pytest.raises(ValueError, match="truncate_dim: got 0"):
        late(**batch)


def test_token_types_are_rebuilt(both, seen):
    without = {key: value for key, value in seen.items() if key != "mm_token_type_ids"}
    assert torch.equal(embed(both, without), embed(both, seen))


def test_position_modes_against_stock_qwen(model, batch):
    """The stock model, given the mode's positions or none, and pooled by hand; no two modes agree."""
    stock = Qwen2_5_VLModel(copy.deepcopy(model.config)).eval()
    stock.load_state_dict(model.state_dict())
    ours, mask = copy.deepcopy(model), batch["attention_mask"]
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    vectors = []
    for mode, positions in (
        ("stock", None),
        ("mrope", model.get_rope_index(*(batch[name] for name in names), mask)[0]),
        ("sequential", (mask.cumsum(-1) - 1).clamp(min=0)[None].expand(3, -1, -1)),
    ):
        ours.config.position_mode = mode
        with torch.no_grad():
            hidden = stock(**batch, position_ids=positions, use_cache=False).last_hidden_state[:, -1]
        vectors.append(embed(ours, batch))
        assert (vectors[-1] - torch.nn.functional.normalize(hidden, dim=-1)).abs().max() <= 1e-6, mode
    assert all((vectors[one] - vectors[other])[0].abs().max() > 1e-4 for one, other in ((0, 1), (1, 2), (0, 2)))


def test_every_parameter_gets_a_gradient(both, seen):
    trained = copy.deepcopy(both).train()
    out = trained(**seen).embeddings
    (out @ torch.randn(out.shape[1], 4, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    silent = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_bfloat16_stays_close_and_of_unit_length(both, seen):
    low = copy.deepcopy(both).bfloat16()
    vectors = embed(low, seen)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(vectors)), atol=1e-6)
    assert (vectors * embed(both, seen)).sum(-1).min() > 0.99


@pytest.mark.slow
def test_compiled():
    """Text alone: the vision tower's shapes follow from the data."""
    model, processor = build_tiny(["a red circle"], seed=0, text_layers=1)
    compiled = torch.compile(model, dynamic=True)
    for texts in (["a red circle", "a blue box moves to the left"], ["one", "two words", "three words here"]):
        batch = processor.prepare([{"text": text} for text in texts])
        assert (embed(compiled, batch) - embed(model, batch)).abs().max() <= 1e-6


def test_no_cache_is_built(model, batch, monkeypatch):
    seen = {}
    forward = type(model.language_model).forward
    monkeypatch.setattr(
        type(model.language_model), "forward", lambda self, **kwargs: seen.update(kwargs) or forward(self, **kwargs)
    )
    model(**batch, use_cache=True)
    cache = "cache" if "cache" in seen else "past_key_values"  # transformers 5.24 renamed it
    assert seen["use_cache"] is False and seen[cache] is None


def test_save_and_load_give_the_same_vectors(both, seen, tmp_path):
    both.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert type(again) is type(both)
    assert torch.equal(embed(again, seen), embed(both, seen))
    # a resumed run reads the file's names as they are
    assert set(load_file(tmp_path / "model.safetensors")) == set(both.state_dict())
