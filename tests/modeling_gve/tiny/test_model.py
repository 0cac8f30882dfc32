import pytest
import torch
from transformers import AutoTokenizer

import gve
from gve.tiny.tokenizer import SPECIAL_TOKENS, build_tokenizer


def test_size_and_defaults(model, processor):
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 3e6
    text, vision = model.config.text_config, model.config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.intermediate_size) == (
        128,
        3,
        4,
        320,
    )
    assert text.rope_parameters["mrope_section"] == [6, 5, 5] and text.rope_parameters["rope_theta"] == 2.0
    assert (vision.hidden_size, vision.depth, vision.num_heads, vision.intermediate_size) == (96, 2, 4, 256)
    assert (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size) == (8, 2, 2)
    assert vision.fullatt_block_indexes == [0, 1] and vision.tokens_per_second == 2
    assert {m.config._attn_implementation for m in (model, model.visual, model.language_model)} == {"eager"}
    assert processor.video_processor.num_frames == 8
    assert not model.training


def test_the_second_family():
    model, processor = gve.build_tiny(["a red circle"], family="qwen3_vl")
    assert type(model) is gve.GVEQwen3VLModel and type(processor) is gve.GVEQwen3VLProcessor
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 3e6 and not model.training
    text, vision = model.config.text_config, model.config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.head_dim, text.intermediate_size) == (128, 3, 32, 320)
    assert text.rope_parameters["mrope_section"] == [6, 5, 5] and text.rope_parameters["mrope_interleaved"]
    assert (vision.depth, vision.patch_size, vision.spatial_merge_size) == (2, 8, 2)
    assert len(model.visual.deepstack_merger_list) == len(vision.deepstack_visual_indexes) == 1
    assert processor.default_system == "Represent the user's input." and processor.video_processor.num_frames == 8
    assert "Represent the user's input." in processor.tokenizer.chat_template
    deeper, _ = gve.build_tiny(["a"], family="qwen3_vl", vision_depth=6, text_layers=2, text_hidden=64, heads=2)
    assert deeper.config.vision_config.deepstack_visual_indexes == [0, 1]
    shallow, _ = gve.build_tiny(["a"], family="qwen3_vl", vision_depth=1)
    assert shallow.config.vision_config.deepstack_visual_indexes == [0]


def test_what_a_family_does_not_have_is_refused():
    with pytest.raises(ValueError, match="family: got 'gemma'; accepted are qwen2_5_vl, qwen3_vl"):
        gve.build_tiny(["a"], family="gemma")
    with pytest.raises(ValueError, match=r"qk_bias_std: got 0\.5; accepted is None, qwen3_vl has no such biases"):
        gve.build_tiny(["a"], family="qwen3_vl", qk_bias_std=0.5)


def test_biases_are_drawn(tiny):
    texts = ["a red circle"]
    biases = [layer.self_attn.q_proj.bias for layer in tiny[0].language_model.layers]
    assert 0.4 < torch.cat(biases).std() < 0.6
    flat, _ = gve.build_tiny(texts, qk_bias_std=0.0)
    assert all(not layer.self_attn.k_proj.bias.any() for layer in flat.language_model.layers)


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
    model, processor = gve.build_tiny(
        ["a red circle"],
        frame_size=32,
        num_frames=4,
        vision_depth=1,
        vision_hidden=64,
        text_layers=2,
        text_hidden=64,
        heads=2,
        patch_size=4,
        rope_theta=10.0,
        mrope_section=[8, 4, 4],
        vocab_size=300,
    )
    out = processor.prepare([str(media / "a.mp4")])
    assert out["video_grid_thw"].tolist() == [[2, 6, 8]]  # 64 x 48 made to 32 x 24
    assert model(**out).embeddings.shape == (1, 64)
    assert model.config.text_config.rope_parameters["mrope_section"] == [8, 4, 4]


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
    for token in SPECIAL_TOKENS:
        assert (
            tokenizer.tokenize(token) == [token]
            and tokenizer.convert_tokens_to_ids(token) in tokenizer.all_special_ids
        )
    for text in ("Gr\u00fc\u00dfe, \u4f60\u597d \U0001f600\n\tEnd", " two  spaces "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert build_tokenizer(texts, 400).get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    sample = "<|im_start|>user\na red zebra 12<|im_end|>\n"
    assert again(sample)["input_ids"] == tokenizer(sample)["input_ids"] and again.padding_side == "left"
