"""Published checkpoints opened without a conversion: the converted folder's vectors, none of their code, clear refusals."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from conversion import build, read, run, samples
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stock_twin import publish
from tokenizers.processors import TemplateProcessing

import gve

NEW = {"model.language_model.": "model.language_model."}
LAYOUTS = (
    ("qwen2_5_vl", None, False),
    ("qwen2_5_vl", None, True),
    ("qwen2_5_vl", NEW, False),
    ("qwen3_vl", NEW, True),
)


@pytest.fixture(scope="module")
def families():
    return {family: build(family) for family in ("qwen2_5_vl", "qwen3_vl")}


@pytest.fixture(scope="module")
def published(families, tmp_path_factory):
    return publish(tmp_path_factory.mktemp("published"), *families["qwen2_5_vl"])


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "copy")


def opened(source, **options):
    return gve.GVESentenceTransformer(str(source), device="cpu", **options)


def split(folder):
    """Two files of weights and their index, in place of one."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        kept = {name: tensor for name, tensor in tensors.items() if places[name] == file}
        save_file(kept, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(("family", "prefixes", "drop_head"), LAYOUTS)
def test_the_vectors_are_the_converted_folders(families, tmp_path, family, prefixes, drop_head, shards):
    (tmp_path / "theirs").mkdir()
    source = publish(tmp_path / "theirs", *families[family], prefixes=prefixes, drop_head=drop_head)
    if shards == 2:
        split(source)
    run([source, tmp_path / "ours"], check=False)
    direct, converted = opened(source), opened(tmp_path / "ours")
    assert np.array_equal(direct.encode(samples()), converted.encode(samples()))
    assert np.array_equal(direct.encode_query(samples()), converted.encode_query(samples()))
    assert direct.config.to_dict().keys() >= {"normalize"} and direct.config._name_or_path == str(source)
    direct.save(str(tmp_path / "saved"))
    assert np.array_equal(opened(tmp_path / "saved").encode(samples()), direct.encode(samples()))


def test_a_system_without_links_opens_them_too(published, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(1314, "a required privilege is not held by the client")

    linked = opened(published).encode(samples())
    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert np.array_equal(opened(published).encode(samples()), linked)


def test_position_modes_are_said(published, families, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="gve")
    expected, encoder = opened(published), opened(published, position_mode="sequential")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("gve")]
    assert [line.rpartition(": ")[2] for line in said] == ["mrope", "sequential"]
    assert all(line.startswith(f"{published}: a qwen2_5_vl checkpoint") and "<|endoftext|>" in line for line in said)
    video = samples()[2:]
    assert not np.array_equal(encoder.encode(video), expected.encode(video))
    expected.save(str(tmp_path / "ours"))
    assert np.array_equal(opened(tmp_path / "ours", position_mode="sequential").encode(video), encoder.encode(video))
    with pytest.raises(ValueError, match="position_mode: must be one of mrope, stock, sequential, got '1d'"):
        opened(published, position_mode="1d")
    gve.save_embedder(tmp_path / "three", *families["qwen3_vl"])
    with pytest.raises(ValueError, match="has one way to count positions, got 'stock'"):
        opened(tmp_path / "three", position_mode="stock")


def test_foreign_code_stays_where_it_is(published, copy):
    """As the published GVE: an auto_map to a file that lies in the folder; even trusted, it is not run."""
    (copy / "theirs.py").write_text("raise SystemExit('foreign code ran')")
    for name, part in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        named = {"auto_map": {part: "theirs.Theirs" if part == "AutoModel" else [None, "theirs.Theirs"]}}
        (copy / name).write_text(json.dumps(read(copy, name) | named))
    expected = opened(published).encode(samples())
    for trust in (False, True):
        assert np.array_equal(opened(copy, trust_remote_code=trust).encode(samples()), expected)


def modules(folder, *kinds, mode="lasttoken"):
    paths = ["", "1_Pooling", "2_Last"]
    entries = [{"idx": n, "name": str(n), "path": paths[n], "type": kind} for n, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))


def test_its_own_prompts_end_and_norm(families, copy, tmp_path):
    """sentence-transformers files and a tokenizer that ends every text with a token of its own choice."""
    modules(copy, "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling")
    settings = {"prompts": {"query": "Look.", "other": "Else."}, "truncate_dim": 16}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
    tokenizer = gve.GVEProcessor.from_pretrained(copy).tokenizer
    end = ("<|im_end|>", tokenizer.convert_tokens_to_ids("<|im_end|>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <|im_end|>", special_tokens=[end])
    tokenizer.save_pretrained(copy)
    encoder = opened(copy)
    assert encoder.prompts == {"query": "Look.", "document": "", "other": "Else."}
    assert encoder.processor.end_token == "<|im_end|>" and not encoder.config.normalize
    batch = encoder.processor.prepare(["a red circle"])
    assert batch["input_ids"][0, -1] == end[1] != batch["input_ids"][0, -2]
    vectors = encoder.encode(samples())
    assert vectors.shape == (3, 16) and np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 1e-3
    run([copy, tmp_path / "ours"])  # which compares the vectors through every way to load them
    assert np.array_equal(opened(tmp_path / "ours").encode_query(samples()), encoder.encode_query(samples()))


def test_what_does_not_open(copy, tmp_path):
    config, weights = read(copy, "config.json"), load_file(copy / "model.safetensors")

    def refused(message, source=copy):
        with pytest.raises(ValueError, match=f"model: .*{message}"):
            opened(source)

    modules(copy, "a.Transformer", "b.Pooling", mode="mean")
    refused("does not pool by the last token")
    modules(copy, "a.Transformer", "b.Pooling", "c.Dense")
    refused(r"runs the module c\.Dense")
    (copy / "modules.json").unlink()
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "llava", "auto_map": {"AutoConfig": "x.X"}}))
    refused("got 'llava'; open others by SentenceTransformer")
    (copy / "config.json").write_text(json.dumps(config))
    for changed, message in (
        ({"model.norm.weight": None}, r"1 missing keys \(language_model\.norm\.weight\)"),
        ({"more.weight": weights["model.norm.weight"].clone()}, r"1 unexpected keys \(more\.weight\)"),
        ({"model.norm.weight": weights["model.norm.weight"][:7].clone()}, "1 mismatched keys"),
    ):
        kept = {name: tensor for name, tensor in (weights | changed).items() if tensor is not None}
        save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
        refused(message)
    (tmp_path / "lora").mkdir()
    for base in (None, str(tmp_path / "gone"), str(copy)):
        settings = {"peft_type": "LORA", "base_model_name_or_path": base}
        (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
        refused(f"holds a LoRA adapter alone; open its base model {base!r}", tmp_path / "lora")
    refused("has no config.json", tmp_path)
    with safe_open(copy / "model.safetensors", framework="numpy") as stored:
        assert len(list(stored.keys())) == len(weights)
