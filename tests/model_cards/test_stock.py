import types

import pytest
import torch
import torch.nn.functional as F
from conversion import build, read, run, samples, vectors
from safetensors.torch import load_file
from sentence_transformers.sentence_transformer.modules import Pooling
from stock_twin import publish
from transformers import (
    AutoModel,
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
)

import gve
from gve.model_cards.stock import ARCHITECTURES, stock_config


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_stock_classes_compute_the_same(ours, stock, attention):
    """Bit by bit, with the stock rules for positions and the stock vision tower on our side."""
    processor = gve.GVEProcessor.from_pretrained(ours[0])
    options = {"attn_implementation": attention}
    own = gve.GVEModel.from_pretrained(ours[0], position_mode="stock", stock_vision=True, **options).eval()
    whole, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(stock[0], output_loading_info=True, **options)
    base, base_report = AutoModel.from_pretrained(stock[0], output_loading_info=True, **options)
    assert type(base) is Qwen2_5_VLModel
    for one in (report, base_report):
        assert not one["missing_keys"] and not one["unexpected_keys"] and not one["mismatched_keys"]
    assert torch.equal(whole.lm_head.weight, whole.get_input_embeddings().weight)
    for row in samples():  # one by one: a batch of unequal lengths is computed in parts by ours
        batch = processor.prepare([row])
        with torch.no_grad():
            expected = own(**batch).last_hidden_state
            hidden = whole.eval()(**batch, output_hidden_states=True, use_cache=False).hidden_states[-1]
            assert torch.equal(hidden, expected)
            assert torch.equal(base.eval()(**batch, use_cache=False).last_hidden_state, expected)


def test_files_of_stock(stock, tiny):
    folder, summary = stock
    assert summary["layout"] == "stock" and summary["model_type"] == "qwen2_5_vl" and summary["source_type"] == "gve"
    assert max(summary["difference"].values()) <= 1e-6
    config = read(folder, "config.json")
    assert config["model_type"] == "qwen2_5_vl" and config["tie_word_embeddings"] is True
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert config["hidden_size"] == 128 and config["rope_theta"] == 2.0
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": [6, 5, 5]}
    own = {"auto_map", "position_mode", "normalize", "truncate_dim", "stock_vision", "text_config", "_name_or_path"}
    assert not own & set(config)
    assert not list(folder.glob("*.py")) and not (folder / "processor_config.json").exists()
    keys = set(load_file(folder / "model.safetensors"))
    assert {key.partition(".")[0] for key in keys} == {"model", "visual"}
    assert {"model.embed_tokens.weight", "model.norm.weight", "visual.merger.ln_q.weight"} <= keys
    assert len(keys) == len(tiny[0].state_dict())
    # the stock processors need torchvision, so their files are held against the attributes that they declare
    image, video = read(folder, "preprocessor_config.json"), read(folder, "video_preprocessor_config.json")
    assert image["image_processor_type"] == "Qwen2VLImageProcessor"
    assert video["video_processor_type"] == "Qwen2VLVideoProcessor"
    common = {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "rescale_factor", "resample", "image_mean"}
    common |= {"image_std", "patch_size", "temporal_patch_size", "merge_size", "min_pixels", "max_pixels", "size"}
    for settings in (image, video):
        assert common <= set(settings) and settings["processor_class"] == "Qwen2_5_VLProcessor"
        assert settings["size"] == {"shortest_edge": settings["min_pixels"], "longest_edge": settings["max_pixels"]}
        assert settings["resample"] == 3 and settings["rescale_factor"] == 1 / 255
    assert (video["num_frames"], video["fps"], video["do_sample_frames"]) == (8, None, True)
    assert video["max_pixels"] == 200 * 16**2 and image["max_pixels"] == 256 * 16**2


def test_template_of_stock(stock, tiny):
    """It ends where the embedding is read, with and without the generation prompt, and gives our ids."""
    folder, processor = stock[0], tiny[1]
    template = (folder / "chat_template.jinja").read_text()
    assert template.endswith("<|endoftext|>") and read(folder, "chat_template.json")["chat_template"] == template
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "left" and tokenizer.chat_template == template
    chat = [{"role": "system", "content": "Find it."}]
    chat += [{"role": "user", "content": [{"type": "text", "text": "a red circle"}]}]
    expected = processor.prepare(["a red circle"], instruction="Find it.")["input_ids"][0].tolist()
    for prompt in (False, True):
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=prompt, tokenize=True, return_dict=True)
        assert ids["input_ids"] == expected
    settings = read(folder, "tokenizer_config.json")
    assert settings["tokenizer_class"] == "Qwen2Tokenizer" and "auto_map" not in settings
    assert "extra_special_tokens" not in settings and "<|video_pad|>" in settings["additional_special_tokens"]


def test_sentence_files_of_stock(stock, ours):
    """The three modules, under the names that older releases and vLLM know, pool as we do."""
    folder = stock[0]
    modules = read(folder, "modules.json")
    assert [module["type"].rpartition(".") for module in modules] == [
        ("sentence_transformers.models", ".", name) for name in ("Transformer", "Pooling", "Normalize")
    ]
    assert all((folder / module["path"]).is_dir() and list((folder / module["path"]).iterdir()) for module in modules)
    pooling = read(folder, "1_Pooling/config.json")
    assert [name for name, value in pooling.items() if value is True] == ["pooling_mode_lasttoken", "include_prompt"]
    settings = read(folder, "sentence_bert_config.json")
    assert settings["modality_config"]["message"]["method_output_name"] == "last_hidden_state"
    assert settings["module_output_name"] == "token_embeddings"
    assert len(read(folder, "config_sentence_transformers.json")["prompts"]) == 18
    module = Pooling.load(str(folder), subfolder="1_Pooling")
    batch = gve.GVEProcessor.from_pretrained(ours[0]).prepare(samples())
    with torch.no_grad():
        out = gve.GVEModel.from_pretrained(ours[0]).eval()(**batch)
    features = {"token_embeddings": out.last_hidden_state, "attention_mask": batch["attention_mask"]}
    assert torch.equal(F.normalize(module(features)["sentence_embedding"], dim=-1), out.embeddings)


def test_round_trips(ours, stock, tiny, tmp_path):
    run([stock[0], tmp_path / "ours"], check=False)
    again = gve.GVEModel.from_pretrained(tmp_path / "ours")
    direct, report = gve.GVEModel.from_pretrained(stock[0], output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, tensor in tiny[0].state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor) and torch.equal(direct.state_dict()[name], tensor), name
    batch = gve.GVEProcessor.from_pretrained(tmp_path / "ours").prepare(samples())
    assert torch.equal(vectors(again, batch), vectors(gve.GVEModel.from_pretrained(ours[0]), batch))
    run([tmp_path / "ours", tmp_path / "stock", "--to", "stock"], check=False)
    for path in sorted(stock[0].rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "stock" / path.relative_to(stock[0])).read_bytes(), path.name


def test_the_other_architecture(tmp_path):
    model, processor = build("qwen3_vl")
    prefixes = {"model.language_model.": "model.language_model.", "model.visual.": "model.visual."}
    source = publish(tmp_path / "source", model, processor, prefixes=prefixes, drop_head=True)
    summary = run([source, tmp_path / "ours"])
    assert summary["model_type"] == "gve_qwen3_vl" and summary["position_mode"] is None
    summary = run([tmp_path / "ours", tmp_path / "stock", "--to", "stock"])
    assert summary["model_type"] == "qwen3_vl" and max(summary["difference"].values()) <= 1e-5
    assert "text_config" in read(tmp_path / "stock", "config.json")
    video = read(tmp_path / "stock", "video_preprocessor_config.json")
    assert video["video_processor_type"] == "Qwen3VLVideoProcessor"
    assert video["max_pixels"] == 8 * 200 * 16**2  # for all frames of a video
    loaded = gve.GVEQwen3VLModel.from_pretrained(tmp_path / "stock")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())


def test_other_rotary_settings_are_kept(tiny):
    config = gve.GVEConfig(**tiny[0].config.to_dict())
    config.text_config.rope_parameters |= {"rope_type": "yarn", "factor": 4.0}
    model = types.SimpleNamespace(config=config, dtype=torch.float32)
    written = stock_config(model, ARCHITECTURES[0])
    assert written["rope_scaling"] == {"type": "yarn", "mrope_section": [6, 5, 5], "factor": 4.0}
    loaded = Qwen2_5_VLConfig(**written)
    assert loaded.text_config.rope_parameters["rope_type"] == "yarn"
    assert loaded.text_config.rope_parameters["rope_theta"] == 2.0
