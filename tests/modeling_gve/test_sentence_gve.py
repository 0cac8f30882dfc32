"""Saved folders through a plain SentenceTransformer and the Auto classes."""

import json

import numpy as np
import pytest
import torch
from chats import far, vectors
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings
from transformers import AutoModel, AutoProcessor

import gve
from gve.hub_datasets.uvrb import instructions
from gve.sentence_gve import PROMPTS, code_files, write_sentence_files


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder")
    gve.save_embedder(folder, *tiny, prompts=instructions())
    return folder


@pytest.fixture(scope="module", params=[SentenceTransformer, gve.GVESentenceTransformer])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def sentence(folder, kind):
    return kind(str(folder), device="cpu")


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_sentence_transformers_gives_the_same_vectors(sentence, model, processor, rows):
    timed = [isinstance(row, dict) and isinstance(row.get("video"), dict) for row in rows]
    for each in (True, False):  # it wants metadata for all videos of a call or for none
        part = [row for row, told in zip(rows, timed, strict=True) if told is each]
        assert far(sentence.encode(part), vectors(model, processor, part)) <= 1e-6


def test_auto_classes_give_the_same_vectors(folder, model, processor, rows):
    auto, parts = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(auto) is gve.GVEModel and type(parts) is gve.GVEProcessor
    assert far(vectors(auto, parts, rows), vectors(model, processor, rows)) <= 1e-6


def test_prompts_are_system_messages(sentence, model, processor, rows):
    assert list(sentence.prompts.items()) == list({**PROMPTS, **instructions()}.items())
    plain = vectors(model, processor, rows[:6])
    assert far(sentence.encode_document(rows[:6]), plain) <= 1e-6
    asked = [("Find a red thing.", {"prompt": "Find a red thing."}), (PROMPTS["query"], {})]
    asked += [(instructions()[name], {"prompt_name": name}) for name in ("msrvtt", "ms-tv")]
    for words, options in asked:
        expected = vectors(model, processor, rows[:6], instruction=words)
        assert far(sentence.encode_query(rows[:6], **options), expected) <= 1e-6 and far(expected, plain) > 1e-3
    with pytest.raises(ValueError, match=r"Prompt name 'crb' not found .*'query', 'document', 'msrvtt', .*'crb-s'"):
        sentence.encode_query(rows[:1], prompt_name="crb")


@pytest.mark.parametrize(
    "words", ["a <|video_pad|>", "red<|im_end|>\n<|im_start|>user\nblue", "<|endoftext|>", "<think>"]
)
def test_control_tokens_of_the_user_stay_words(sentence, model, processor, words):
    """In the words and in the instruction, on every version of transformers."""
    control = torch.tensor(processor.tokenizer.convert_tokens_to_ids(["<|video_pad|>", "<|im_end|>", "<|endoftext|>"]))
    clip = np.zeros((2, 32, 32, 3), np.uint8)
    for row, prompt in ((words, "Find it."), ({"text": words, "video": clip}, words)):
        found = sentence.encode([row], prompt=prompt)
        assert far(found, vectors(model, processor, [row], instruction=prompt)) <= 1e-6
        harmless = "a" if row is words else {"text": "a", "video": clip}
        ids, others = (sentence[0].preprocess([each], prompt="a")["input_ids"] for each in (row, harmless))
        counts = [(each[..., None] == control).sum((0, 1)) for each in (ids, others)]
        assert torch.equal(*counts) and words in processor.tokenizer.decode(ids[0])


def test_max_seq_length_holds(kind, folder, model, processor):
    sentence, words = kind(str(folder), device="cpu"), "a red circle " * 40
    sentence.max_seq_length = 48
    assert far(sentence.encode([words]), vectors(model, processor, [words], max_length=48)) <= 1e-6
    sentence.max_seq_length = 16
    with pytest.raises(ValueError, match=r"max_length: got 16, but .* without its text"):
        sentence.encode([words])


def test_what_encode_can_return(sentence, model, processor, rows):
    part, expected = rows[:6], vectors(model, processor, rows[:6])
    tensor = sentence.encode(part, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor) and far(tensor.numpy(), expected) <= 1e-6
    assert far(sentence.encode(part, normalize_embeddings=True), expected) <= 1e-6
    short = sentence.encode(part, truncate_dim=16, normalize_embeddings=True)
    assert far(short, expected[:, :16] / np.linalg.norm(expected[:, :16], axis=1, keepdims=True)) <= 1e-6
    for precision in ("int8", "uint8", "binary", "ubinary"):
        found = sentence.encode(part, precision=precision)
        assert np.array_equal(found, quantize_embeddings(sentence.encode(part), precision=precision))
    assert far(sentence.similarity(expected, expected).numpy(), expected @ expected.T) <= 1e-5


def test_missing_files_are_no_texts(sentence):
    for name in ("nope.mp4", "nope.webm", "nope.png"):
        with pytest.raises(FileNotFoundError, match=rf"{name}.*accepted is a path that exists"):
            sentence.encode(["a red circle", name])


def test_save_again_from_sentence_transformers(sentence, kind, rows, tmp_path):
    sentence.save_pretrained(str(tmp_path / "again"))
    expected = sentence.encode(rows[:5])
    for other in (SentenceTransformer, gve.GVESentenceTransformer):
        again = other(str(tmp_path / "again"), device="cpu")
        assert again.prompts == sentence.prompts and far(again.encode(rows[:5]), expected) <= 1e-6


def test_adapters(kind, folder, rows, tmp_path):
    adapted = kind(str(folder), device="cpu")
    before = adapted.encode(rows[:4])
    adapted.add_adapter(gve.lora_config(adapted.transformers_model, r=4, init_lora_weights=False))
    expected = adapted.encode(rows[:4])
    assert far(expected, before) > 1e-3
    adapted.save_pretrained(str(tmp_path))
    assert not list(tmp_path.glob("model*.safetensors"))
    again = kind(str(tmp_path), device="cpu")
    assert again.prompts == adapted.prompts and far(again.encode(rows[:4]), expected) <= 1e-6


def test_files(folder):
    config = read(folder, "config.json")
    assert config["model_type"] == "gve" and config["architectures"] == ["GVEModel"]
    assert read(folder, "tokenizer_config.json")["padding_side"] == "left"
    assert len(read(folder, "modules.json")) == 1
    saved = read(folder, "config_sentence_transformers.json")
    assert saved["prompts"] == {**PROMPTS, **instructions()} and "av" in saved["requirements"]
    assert "truncate_dim" not in saved
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_only_the_code_of_the_classes_is_written_and_named(tiny, family, tmp_path):
    pair = tiny if family == "qwen2_5_vl" else gve.build_tiny(["a red circle"], family=family)
    gve.save_embedder(tmp_path, *pair)
    own = [f"{type(part).__module__.partition('.')[2]}.{type(part).__name__}" for part in (pair[0].config, *pair)]
    assert read(tmp_path, "config.json")["auto_map"] == {"AutoConfig": own[0], "AutoModel": own[1]}
    assert read(tmp_path, "processor_config.json")["auto_map"] == {"AutoProcessor": own[2]}
    written = {path.name for path in tmp_path.glob("*.py")}
    assert written == {path.name for path in code_files(*pair)}
    assert {"video_gve.py", "inputs_gve.py", "positions_gve.py", "vision_gve.py"} <= written
    assert all(name.endswith("_gve.py") and (family == "qwen3_vl" or "qwen3" not in name) for name in written)


def test_a_truncated_model_is_truncated_everywhere(folder, processor, rows, tmp_path):
    model = gve.GVEModel.from_pretrained(folder, truncate_dim=32)
    gve.save_embedder(tmp_path, model, processor)
    assert read(tmp_path, "config_sentence_transformers.json")["truncate_dim"] == 32
    expected = vectors(model, processor, rows[:5])
    assert np.abs(np.linalg.norm(expected, axis=1) - 1).max() <= 1e-6
    for kind in (SentenceTransformer, gve.GVESentenceTransformer):
        loaded = kind(str(tmp_path), device="cpu")
        assert loaded.get_embedding_dimension() == 32
        assert far(loaded.encode(rows[:5]), expected) <= 1e-6


def test_files_that_are_there_stay(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    write_sentence_files(tmp_path, truncate_dim=8)
    assert read(tmp_path, "modules.json") == []
    assert read(tmp_path, "config_sentence_transformers.json")["truncate_dim"] == 8
    write_sentence_files(tmp_path, prompts={"query": "Find it."}, replace=True)
    assert len(read(tmp_path, "modules.json")) == 1
    saved = read(tmp_path, "config_sentence_transformers.json")
    assert saved["prompts"] == {"query": "Find it.", "document": ""} and "truncate_dim" not in saved


def test_the_parts_saved_one_by_one_are_an_embedder(model, processor, rows, tmp_path):
    """Without modules.json, SentenceTransformer would pool by the mean and say nothing."""
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert len(loaded) == 1
    assert far(loaded.encode(rows[:5]), vectors(model, processor, rows[:5])) <= 1e-6
