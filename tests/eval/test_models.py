"""Which class opens a model, and `gve encode` with a model that names what it cannot read."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

import gve
from gve.eval import encode_command
from gve.eval.encode import embed_files
from gve.eval.models import load_encoder, model_fingerprint, skips_broken_inputs
from gve.eval.store import load_embeddings


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    (folder / "broken.mp4").write_text("no video at all")
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "empty.mov").touch()
    return folder


def test_ours(tiny_folder):
    encoder = load_encoder(str(tiny_folder))
    assert type(encoder) is gve.GVESentenceTransformer and skips_broken_inputs(encoder)


def test_an_adapter_of_ours(tiny_folder, tmp_path):
    adapted = SentenceTransformer(str(tiny_folder), device="cpu")
    adapted.add_adapter(gve.lora_config(adapted.transformers_model, r=2, init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    encoder = load_encoder(str(tmp_path / "adapter"))
    assert type(encoder) is gve.GVESentenceTransformer
    assert np.abs(encoder.encode(["a blue box"]) - adapted.encode(["a blue box"])).max() <= 1e-6


def test_any_other(tiny_folder, tmp_path):
    tokenizer = load_encoder(str(tiny_folder)).tokenizer.backend_tokenizer
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)]).save_pretrained(
        str(tmp_path / "static")
    )
    encoder = load_encoder(str(tmp_path / "static"))
    assert type(encoder) is SentenceTransformer and not skips_broken_inputs(encoder)


def test_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"has no modules\.json"):
        load_encoder(str(tmp_path))
    with pytest.raises(ValueError, match=r"--model: cannot load .*nowhere"):
        load_encoder(str(tmp_path / "nowhere"))


def test_encode_command(tiny_folder, pictures, tmp_path, capsys, caplog):
    out = tmp_path / "emb.safetensors"
    assert (
        encode_command.main([str(pictures), "--model", str(tiny_folder), "--out", str(out), "--batch-size", "2"]) == 3
    )
    summary = json.loads(capsys.readouterr().out)
    assert (summary["embedded"], summary["width"]) == (3, 128)
    names = {name: reason for path, reason in summary["skipped"].items() for name in [path.rpartition("/")[2]]}
    assert sorted(names) == ["broken.mp4", "cut.png", "empty.mov"]
    assert "0 bytes" in names["empty.mov"]
    assert not any(reason.startswith(("inputs[", str(pictures / "broken"))) for reason in names.values()), names
    assert sum("left out 3 of 6 inputs" in record.getMessage() for record in caplog.records) == 1
    stored = load_embeddings(out)
    encoder = load_encoder(str(tiny_folder))
    expected = encoder.encode([{"image": path} for path in stored.paths])
    assert np.abs(stored.vectors - expected).max() <= 1e-6


def test_nothing_left_and_nothing_new(tiny_folder, pictures):
    encoder = load_encoder(str(tiny_folder))
    found = embed_files(encoder, [pictures / "broken.mp4"])
    assert found.vectors.shape == (0, 0) and list(found.skipped) == [str(pictures / "broken.mp4")]
    first = embed_files(encoder, [pictures / "red.png"])
    known = {first.paths[0]: (first.stamps[0], first.vectors[0])}
    assert np.array_equal(embed_files(encoder, [pictures / "red.png"], known=known).vectors, first.vectors)


def test_fingerprint_follows_the_weights(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": np.zeros(1000, np.float32)}, folder / "model.safetensors")
    first = model_fingerprint(str(folder))
    (folder / "notes.txt").write_text("ignored")
    assert model_fingerprint(str(folder)) == first
    save_file({"weight": np.ones(1000, np.float32)}, folder / "model.safetensors")
    assert model_fingerprint(str(folder)) != first
    assert model_fingerprint("org/a") != model_fingerprint("org/b")
