import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

from gve import GVEModel
from gve.modeling_gve import GVEModelOutput


@pytest.fixture
def batch(processor, rows):
    return processor.prepare(rows)


@torch.no_grad()
def embed(model, batch):
    return model(**batch).embeddings


def test_embeddings_are_unit_rows_at_the_end_token(model, batch):
    out = model(**batch)
    assert isinstance(out, GVEModelOutput) and out.embeddings.dtype == torch.float32
    assert torch.allclose(out.embeddings.norm(dim=-1), torch.ones(len(out.embeddings)), atol=1e-6)
    last = out.last_hidden_state[:, -1]
    assert torch.allclose(out.embeddings, last / last.norm(dim=-1, keepdim=True), atol=1e-6)
    assert torch.equal(model(**batch, return_dict=False)[0], out.embeddings)


def test_normalize_off_gives_the_hidden_state(model, batch):
    raw = copy.deepcopy(model)
    raw.config.normalize = False
    out = raw(**batch)
    assert torch.equal(out.embeddings, out.last_hidden_state[:, -1])


def test_a_row_does_not_depend_on_its_batch(model, processor, rows, batch):
    together = embed(model, batch)
    alone = torch.cat([embed(model, processor.prepare([row])) for row in rows])
    assert (together - alone).abs().max() <= 1e-6


def test_padding_side_does_not_matter(model, batch):
    right = dict(batch)
    for key, fill in (("input_ids", 0), ("attention_mask", 0), ("mm_token_type_ids", 0)):
        value = batch[key].clone().fill_(fill)
        for i, mask in enumerate(batch["attention_mask"].bool()):
            value[i, : mask.sum()] = batch[key][i, mask]
        right[key] = value
    assert (embed(model, right) - embed(model, batch)).abs().max() <= 1e-6


def test_token_types_are_rebuilt(model, batch):
    without = {key: value for key, value in batch.items() if key != "mm_token_type_ids"}
    assert torch.equal(embed(model, without), embed(model, batch))


@pytest.mark.parametrize("mode", ["mrope", "stock", "sequential"])
def test_position_modes_against_stock_qwen(model, batch, mode):
    """The stock model, given the mode's positions or none, and pooled by hand."""
    ours = copy.deepcopy(model)
    ours.config.position_mode = mode
    stock = Qwen2_5_VLModel(copy.deepcopy(model.config)).eval()
    stock.load_state_dict(model.state_dict())
    mask = batch["attention_mask"]
    positions = {
        "stock": None,
        "sequential": (mask.cumsum(-1) - 1).clamp(min=0)[None].expand(3, -1, -1),
        "mrope": model.get_rope_index(
            batch["input_ids"],
            batch["mm_token_type_ids"],
            batch["image_grid_thw"],
            batch["video_grid_thw"],
            batch["second_per_grid_ts"],
            mask,
        )[0],
    }[mode]
    with torch.no_grad():
        hidden = stock(**batch, position_ids=positions, use_cache=False).last_hidden_state[:, -1]
    expected = torch.nn.functional.normalize(hidden, dim=-1)
    assert (embed(ours, batch) - expected).abs().max() <= 1e-6


def test_position_modes_differ(model, batch):
    vectors = []
    for mode in ("mrope", "stock", "sequential"):
        other = copy.deepcopy(model)
        other.config.position_mode = mode
        vectors.append(embed(other, batch)[0])
    assert all((a - b).abs().max() > 1e-4 for a, b in ((vectors[0], vectors[1]), (vectors[1], vectors[2])))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations_agree(model, batch, attention):
    other = copy.deepcopy(model)
    other.set_attn_implementation(attention)
    assert (embed(other, batch) - embed(model, batch)).abs().max() <= 1e-6


def test_every_parameter_gets_a_gradient(model, batch):
    trained = copy.deepcopy(model).train()
    out = trained(**batch).embeddings
    (out @ torch.randn(out.shape[1], 4, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    silent = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_bfloat16_stays_close_and_of_unit_length(model, batch):
    low = copy.deepcopy(model).bfloat16()
    vectors = embed(low, batch)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(vectors)), atol=1e-6)
    assert (vectors * embed(model, batch)).sum(-1).min() > 0.99


def test_no_cache_is_built(model, batch, monkeypatch):
    seen = {}
    forward = type(model.language_model).forward
    monkeypatch.setattr(
        type(model.language_model), "forward", lambda self, **kwargs: seen.update(kwargs) or forward(self, **kwargs)
    )
    model(**batch, use_cache=True)
    assert seen["use_cache"] is False and seen["past_key_values"] is None


def layouts(state):
    """The weights under the names of each published layout."""
    text = {k.removeprefix("language_model."): v for k, v in state.items() if k.startswith("language_model.")}
    vision = {k: v for k, v in state.items() if k.startswith("visual.")}
    head = {"lm_head.weight": torch.zeros_like(text["embed_tokens.weight"])}
    old = {**vision, **{f"model.{k}": v for k, v in text.items()}}
    new = {**{f"model.{k}": v for k, v in vision.items()}, **{f"model.language_model.{k}": v for k, v in text.items()}}
    return {"native": state, "old": old, "old with head": old | head, "new": new, "new with head": new | head}


@pytest.mark.parametrize("layout", ["native", "old", "old with head", "new", "new with head"])
def test_every_layout_loads_and_is_saved_natively(model, tmp_path, layout):
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    model.config.save_pretrained(tmp_path)
    save_file(layouts(state)[layout], tmp_path / "model.safetensors", {"format": "pt"})
    loaded, report = GVEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    loaded.save_pretrained(tmp_path / "again")
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == set(state)


def test_a_published_checkpoint_loads(model, tmp_path):
    """As the stock generating class saves it, its configuration included."""
    config = copy.deepcopy(model.config).to_dict()
    for key in ("model_type", "position_mode", "normalize", "architectures", "auto_map"):
        config.pop(key, None)
    stock = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLForConditionalGeneration.config_class(**config))
    stock.save_pretrained(tmp_path)
    loaded, report = GVEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    loaded.save_pretrained(tmp_path / "again")
    assert type(AutoModel.from_pretrained(tmp_path / "again")) is GVEModel
    assert all(torch.equal(value, stock.model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_save_and_load_give_the_same_vectors(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert type(again) is GVEModel
    assert torch.equal(embed(again, batch), embed(model, batch))
    # a resumed run reads the file's names as they are
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
