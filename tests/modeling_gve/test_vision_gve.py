"""The tower's features in place of pixels: the same vectors and the same gradients, in every arrangement of a batch."""

import copy

import numpy as np
import pytest
import torch

import gve
from gve import embedder_gve
from gve.packing_gve import pack_batch, unpack_hidden

PIXELS = {"image": ("pixel_values", "image_embeds"), "video": ("pixel_values_videos", "video_embeds")}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def pair(request, tiny):
    return (
        tiny if request.param == "qwen2_5_vl" else gve.build_tiny(["a red circle"], family="qwen3_vl", vision_depth=3)
    )


@pytest.fixture
def model(pair):
    return copy.deepcopy(pair[0])


@pytest.fixture
def batch(pair, rows):
    return dict(pair[1].prepare([rows[i] for i in (0, 1, 3, 4, 7, 12)]))


def with_features(model, batch, media=("image", "video")):
    out = dict(batch)
    for name in media:
        pixels, embeds = PIXELS[name]
        out[embeds] = model.vision_features(out.pop(pixels), out[f"{name}_grid_thw"])
    return out


@pytest.mark.parametrize("kinds", [("image", "video"), ("image",), ("video",)])
def test_vectors_are_those_of_pixels(model, batch, kinds):
    layers = 0 if model.config.model_type == "gve" else len(model.config.vision_config.deepstack_visual_indexes)
    assert model.vision_width == (1 + layers) * model.config.text_config.hidden_size
    with torch.no_grad():
        inputs = with_features(model, batch, kinds)
        assert torch.equal(model(**inputs).embeddings, model(**batch).embeddings)
    for kind in kinds:
        grids = batch[f"{kind}_grid_thw"]
        assert inputs[f"{kind}_embeds"].shape == (int(grids.prod(1).sum()) // 4, model.vision_width)


@pytest.mark.parametrize("given", ["before", "inside"])
def test_gradients_are_those_of_pixels(model, batch, given):
    twin = copy.deepcopy(model)
    weight = torch.randn(6, model.config.text_config.hidden_size, generator=torch.manual_seed(0))
    (model(**batch).embeddings * weight).sum().backward()
    inputs = with_features(twin, batch, ("image", "video") if given == "before" else ("image",))
    (twin(**inputs).embeddings * weight).sum().backward()
    expected = dict(model.named_parameters())
    assert any("visual" in name and value.grad.abs().max() > 0 for name, value in expected.items())
    for name, value in twin.named_parameters():
        assert torch.equal(value.grad, expected[name].grad), name


def test_shared_features_give_the_gradient_of_repeated_pixels(model, pair, rows):
    twin = copy.deepcopy(model)
    one, two = pair[1].prepare([rows[0]]), pair[1].prepare([rows[0], {"text": "a blue box", "video": rows[0]}])
    weight = torch.randn(2, model.config.text_config.hidden_size, generator=torch.manual_seed(0))
    (model(**two).embeddings * weight).sum().backward()
    features = twin.vision_features(one["pixel_values_videos"], one["video_grid_thw"])
    inputs = {name: value for name, value in two.items() if name != "pixel_values_videos"}
    (twin(**inputs, video_embeds=torch.cat([features, features])).embeddings * weight).sum().backward()
    expected = dict(model.named_parameters())
    for name, value in twin.named_parameters():
        torch.testing.assert_close(value.grad, expected[name].grad, rtol=1e-5, atol=1e-6, msg=name)


def test_only_features_get_a_gradient_of_a_frozen_tower(model, batch):
    model.visual.requires_grad_(False)
    inputs = with_features(model, batch)
    assert not inputs["video_embeds"].requires_grad
    inputs["video_embeds"].requires_grad_(True)
    model(**inputs).embeddings.sum().backward()
    assert inputs["video_embeds"].grad.abs().sum() > 0
    assert all(value.grad is None for value in model.visual.parameters())


@torch.no_grad()
def test_parts_of_like_length(model, batch, monkeypatch):
    model.set_attn_implementation("sdpa")
    inputs = with_features(model, batch)
    parts, backbone = [], model._backbone
    monkeypatch.setattr(model, "_backbone", lambda inputs: parts.append(inputs) or backbone(inputs))
    monkeypatch.setattr(embedder_gve, "overhead", lambda device: 4)
    split = model(**inputs).embeddings
    assert len(parts) > 2
    monkeypatch.setattr(embedder_gve, "group_by_length", lambda lengths, extra: [np.arange(len(lengths))])
    torch.testing.assert_close(split, model(**inputs).embeddings, rtol=0, atol=2e-6)


@torch.no_grad()
def test_packed_rows(model, batch):
    expected = model(**batch).embeddings
    model.set_attn_implementation("gve_varlen")
    full = {**dict.fromkeys(embedder_gve.BATCH_INPUTS), **with_features(model, batch)}
    full["mm_token_type_ids"] = model.token_types(full["input_ids"])
    packed, place = pack_batch(full, model.positions(full))
    hidden = unpack_hidden(model._backbone(packed).last_hidden_state, place, full["input_ids"].shape)
    assert (model.embed(hidden, full["attention_mask"]) - expected).abs().max() <= 2e-6


def test_features_of_less_precision(model, batch):
    """They are read as the language model's type."""
    with torch.no_grad():
        inputs = with_features(model, batch)
        expected = model(**inputs).embeddings
        for name in ("image_embeds", "video_embeds"):
            inputs[name] = inputs[name].bfloat16()
        got = model(**inputs).embeddings
    assert got.dtype == torch.float32
    assert 0 < (got - expected).abs().max() < 2e-2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b | {"pixel_values_videos": torch.zeros(1)}, "video_embeds: got features and pixel_values_videos"),
        (lambda b: b | {"video_grid_thw": None}, "video_embeds: got features without video_grid_thw"),
        (lambda b: b | {"image_embeds": b["image_embeds"][1:]}, r"image_embeds: got shape .* where image_grid"),
        (lambda b: b | {"video_embeds": b["video_embeds"][:, 1:]}, "video_embeds: got shape"),
    ],
)
def test_features_that_do_not_fit_are_refused(model, batch, change, message):
    with pytest.raises(ValueError, match=message):
        model(**change(with_features(model, batch)))
