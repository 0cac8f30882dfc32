import pytest
import torch
from transformers import AutoTokenizer

import gve
from gve.tiny.tokenizer import SPECIAL_TOKENS, build_tokenizer


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_both_families(family, tiny):
    second = family == "qwen3_vl"
    model, processor = gve.build_tiny(["a red circle"], family=family) if second else tiny
    assert type(model) is (gve.GVEQwen3VLModel if second else gve.GVEModel)
    assert type(processor) is (gve.GVEQwen3VLProcessor if second else gve.GVEProcessor)
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 3e6 and not model.training
    assert {m.config._attn_implementation for m in (model, model.visual, model.language_model)} == {"eager"}
    assert (processor.default_system in processor.tokenizer.chat_template) and (
        "Represent" in processor.default_system
    ) == second


def test_taps_of_the_second_family():
    """None at the last block, and no more than layers to take them."""
    for depth, layers, taps in ((2, 3, [0]), (6, 2, [0, 1]), (1, 3, [0])):
        small = {"vision_depth": depth, "text_layers": layers, "text_hidden": 64, "heads": 2}
        model, _ = gve.build_tiny(["a"], family="qwen3_vl", **small)
        assert model.config.vision_config.deepstack_visual_indexes == taps
        assert len(model.visual.deepstack_merger_list) == len(taps)


def test_what_a_family_does_not_have_is_refused():
    with pytest.raises(ValueError, match="family: got 'gemma'; accepted are qwen2_5_vl, qwen3_vl"):
        gve.build_tiny(["a"], family="gemma")
    with pytest.raises(ValueError, match=r"qk_bias_std: got 0\.5; accepted is None, qwen3_vl has no such biases"):
        gve.build_tiny(["a"], family="qwen3_vl", qk_bias_std=0.5)


def test_biases_are_drawn(model):
    assert all(layer.self_attn.q_proj.bias.any() for layer in model.language_model.layers)
    flat, _ = gve.build_tiny(["a red circle"], qk_bias_std=0.0)
    assert not any(layer.self_attn.k_proj.bias.any() for layer in flat.language_model.layers)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_seeds_and_the_callers_random_state(family):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same, _ = gve.build_tiny(["a"], seed=3, family=family)
    assert torch.equal(torch.rand(3), expected)
    twin, _ = gve.build_tiny(["a"], seed=3, family=family)
    other, _ = gve.build_tiny(["a"], seed=4, family=family)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), twin.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(same.parameters(), other.parameters(), strict=True))


def test_overrides(media):
    vision = {"vision_depth": 1, "vision_hidden": 64, "patch_size": 4, "frame_size": 32, "num_frames": 4}
    text = {"text_layers": 2, "text_hidden": 64, "heads": 2, "mrope_section": [8, 4, 4], "vocab_size": 300}
    model, processor = gve.build_tiny(["a red circle"], rope_theta=10.0, **vision, **text)
    out = processor.prepare([str(media / "a.mp4")])
    assert out["video_grid_thw"].tolist() == [[2, 6, 8]]  # 64 x 48 made to 32 x 24
    assert model(**out).embeddings.shape == (1, 64)
    rope = model.config.text_config.rope_parameters
    assert rope["mrope_section"] == [8, 4, 4] and rope["rope_theta"] == 10.0


def test_frames_of_the_given_size_stay_as_they_are(processor, encoded):
    assert processor.prepare([{"video": encoded(size=(48, 48))}])["video_grid_thw"].tolist() == [[4, 6, 6]]
    assert processor.prepare([{"video": encoded(size=(96, 96))}])["video_grid_thw"].tolist() == [[4, 6, 6]]
    with pytest.raises(ValueError, match="frame_size: got 50; accepted are multiples of 16 from 32 on"):
        gve.build_tiny(["a"], frame_size=50)


def test_tokenizer(tmp_path):
    texts = ["a red circle moves to the left of a blue box"] * 50 + ["zebra stripes flicker"] * 50
    tokenizer = build_tokenizer(texts, 400)
    assert len(tokenizer) <= 400
    pieces = tokenizer.tokenize("a red circle moves to the left")
    assert pieces == ["a", "\u0120red", "\u0120circle", "\u0120moves", "\u0120to", "\u0120the", "\u0120left"]
    assert all(tokenizer.tokenize(token) == [token] for token in SPECIAL_TOKENS)
    assert set(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))) <= set(tokenizer.all_special_ids)
    for text in ("Gr\u00fc\u00dfe, \u4f60\u597d \U0001f600\n\tEnd", " two  spaces "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert build_tokenizer(texts, 400).get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    sample = "<|im_start|>user\na red zebra 12<|im_end|>\n"
    assert again(sample)["input_ids"] == tokenizer(sample)["input_ids"] and again.padding_side == "left"
