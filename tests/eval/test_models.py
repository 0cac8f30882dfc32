"""Which class opens a model, and what our own leaves out."""

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

import gve
from gve.eval.encode import embed_files
from gve.eval.models import load_encoder, model_fingerprint, skips_broken_inputs


def test_our_class_opens_our_models_and_adapters(tiny_folder, tmp_path):
    encoder = load_encoder(str(tiny_folder))
    assert type(encoder) is gve.GVESentenceTransformer and skips_broken_inputs(encoder)
    adapted = SentenceTransformer(str(tiny_folder), device="cpu")
    adapted.add_adapter(gve.lora_config(adapted.transformers_model, r=2, init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    opened = load_encoder(str(tmp_path / "adapter"))
    assert type(opened) is gve.GVESentenceTransformer
    assert np.abs(opened.encode(["a blue box"]) - adapted.encode(["a blue box"])).max() <= 1e-6
    assert np.abs(opened.encode(["a blue box"]) - encoder.encode(["a blue box"])).max() > 1e-6


def test_any_other_and_none(tiny_folder, tmp_path, monkeypatch):
    static = StaticEmbedding(load_encoder(str(tiny_folder)).tokenizer.backend_tokenizer, embedding_dim=8)
    SentenceTransformer(modules=[static]).save_pretrained(str(tmp_path / "static"))
    encoder = load_encoder(str(tmp_path / "static"))
    assert type(encoder) is SentenceTransformer and not skips_broken_inputs(encoder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"has no modules\.json"):
        load_encoder(str(tmp_path))
    with pytest.raises(ValueError, match=r"--model: cannot load .*nowhere"):
        load_encoder(str(tmp_path / "nowhere"))


def test_nothing_left_and_nothing_new(tiny_folder, tmp_path):
    encoder = load_encoder(str(tiny_folder))
    (tmp_path / "broken.mp4").write_text("no video at all")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    found = embed_files(encoder, [tmp_path / "broken.mp4"])
    ((path, reason),) = found.skipped.items()
    assert (found.vectors.shape, path) == ((0, 0), str(tmp_path / "broken.mp4"))
    assert not reason.startswith(("inputs[", path))  # the file is named before it
    first = embed_files(encoder, [tmp_path / "red.png"])
    assert np.abs(first.vectors - encoder.encode([{"image": first.paths[0]}])).max() <= 1e-6
    known = {first.paths[0]: (first.stamps[0], first.vectors[0])}
    assert np.array_equal(embed_files(encoder, [tmp_path / "red.png"], known=known).vectors, first.vectors)


def test_fingerprint_follows_the_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": np.zeros(1000, np.float32)}, tmp_path / "model.safetensors")
    first = model_fingerprint(str(tmp_path))
    (tmp_path / "notes.txt").write_text("ignored")
    assert model_fingerprint(str(tmp_path)) == first
    save_file({"weight": np.ones(1000, np.float32)}, tmp_path / "model.safetensors")
    assert model_fingerprint(str(tmp_path)) != first
    assert model_fingerprint("org/a") != model_fingerprint("org/b")
