import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

import gve
from gve.sentence_gve import PROMPTS


@pytest.fixture(scope="module")
def sentence(folder):
    return SentenceTransformer(str(folder), device="cpu")


@torch.no_grad()
def vectors(model, processor, rows, **kwargs):
    return model(**processor.prepare(rows, **kwargs)).embeddings.numpy()


def test_sentence_transformers_gives_the_same_vectors(sentence, model, processor, rows):
    # it wants metadata for all videos of a call or for none
    timed = [row for row in rows if isinstance(row, dict) and isinstance(row.get("video"), dict)]
    plain = [row for row in rows if not any(row is other for other in timed)]
    assert timed
    for part in (plain, timed):
        assert np.abs(sentence.encode(part) - vectors(model, processor, part)).max() <= 1e-6


def test_auto_classes_give_the_same_vectors(folder, model, processor, rows):
    auto, parts = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(auto) is gve.GVEModel and type(parts) is gve.GVEProcessor
    assert np.abs(vectors(auto, parts, rows) - vectors(model, processor, rows)).max() <= 1e-6


def test_prompts_are_system_messages(sentence, model, processor, rows):
    asked = sentence.encode_query(rows[:6], prompt="Find a red thing.")
    assert np.abs(asked - vectors(model, processor, rows[:6], instruction="Find a red thing.")).max() <= 1e-6
    query = vectors(model, processor, rows[:6], instruction=PROMPTS["query"])
    assert np.abs(sentence.encode_query(rows[:6]) - query).max() <= 1e-6
    plain = vectors(model, processor, rows[:6])
    assert np.abs(sentence.encode_document(rows[:6]) - plain).max() <= 1e-6
    assert np.abs(query - plain).max() > 1e-3


def test_long_texts_are_cut_alike(sentence, model, processor, media):
    rows = [{"text": "a red circle " * 60, "image": str(media / "i.png")}, "a blue box " * 60]
    encoded = sentence.encode(rows, processing_kwargs={"text": {"max_length": 64}})
    assert np.abs(encoded - vectors(model, processor, rows, max_length=64)).max() <= 1e-6


def test_frames_can_be_set_for_one_call(sentence, model, processor, media):
    encoded = sentence.encode([{"video": str(media / "a.mp4")}], processing_kwargs={"video": {"num_frames": 4}})
    clip = gve.read_video(media / "a.mp4", 4)
    assert np.abs(encoded - vectors(model, processor, [{"video": clip}])).max() <= 1e-6


def test_save_again_from_sentence_transformers(sentence, rows, tmp_path):
    sentence.save_pretrained(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert np.abs(again.encode(rows[:5]) - sentence.encode(rows[:5])).max() <= 1e-6


def test_files(folder):
    read = lambda name: json.loads((folder / name).read_text())  # noqa: E731
    config = read("config.json")
    assert config["model_type"] == "gve" and config["architectures"] == ["GVEModel"]
    assert config["auto_map"] == {
        "AutoConfig": "configuration_gve.GVEConfig",
        "AutoModel": "modeling_gve.GVEModel",
    }
    assert read("processor_config.json")["auto_map"] == {"AutoProcessor": "processing_gve.GVEProcessor"}
    assert read("tokenizer_config.json")["padding_side"] == "left"
    assert len(read("modules.json")) == 1
    assert read("config_sentence_transformers.json")["prompts"] == PROMPTS
    assert not list(folder.glob("*.part"))
    code = {path.name for path in folder.glob("*.py")}
    assert {"modeling_gve.py", "video_gve.py", "inputs_gve.py", "positions_gve.py", "attention_gve.py"} <= code


def test_own_prompts_are_added(tiny, tmp_path):
    gve.save_embedder(tmp_path, *tiny, prompts={"crb-s": "Find the video according to the spatial description."})
    prompts = json.loads((tmp_path / "config_sentence_transformers.json").read_text())["prompts"]
    assert set(prompts) == {"query", "document", "crb-s"}


CHILD = """
import sys
sys.modules["gve"] = None  # the package is not there
import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

folder, media, out = sys.argv[1:]
rows = [media + "/a.mp4", {"text": "a red circle", "image": media + "/i.png"}, "a blue box"]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
auto = model(**processor.prepare(rows)).embeddings.detach().numpy()
sentence = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
sentence.save_pretrained(out + "/again")
np.savez(out + "/vectors.npz", auto=auto, sentence=sentence.encode(rows))
"""


def test_remote_code_without_the_package(folder, media, model, processor, tmp_path):
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), str(media), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Do you wish to run" not in done.stdout
    rows = [str(media / "a.mp4"), {"text": "a red circle", "image": str(media / "i.png")}, "a blue box"]
    expected = vectors(model, processor, rows)
    with np.load(tmp_path / "vectors.npz") as got:
        assert np.abs(got["auto"] - expected).max() <= 1e-6
        assert np.abs(got["sentence"] - expected).max() <= 1e-6
    # what it saved carries the code on, and is the same model
    assert (tmp_path / "again" / "modeling_gve.py").exists()
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert np.abs(again.encode(rows) - expected).max() <= 1e-6


def test_a_broken_torchvision_is_named(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import gve")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "ImportError: torchvision is installed but cannot be imported" in done.stderr
    assert "pip uninstall torchvision" in done.stderr
