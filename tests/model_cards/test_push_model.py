"""What is checked of a model before it is published."""

import json
import shutil

import numpy as np
import pytest
from peft import get_peft_model
from safetensors.numpy import load_file, save_file
from uvrb_folder import WordEncoder, make_tables, write_uvrb

import gve
from gve.eval.benchmark import run_benchmark
from gve.eval.files import weights_fingerprint
from gve.hub_datasets.uvrb import resolve
from gve.model_cards.card import CardOptions, render_model_card
from gve.model_cards.push_files import KINDS, collect
from gve.model_cards.push_model import check_model, largest_difference, tolerance

SCORED = ("msrvtt", "crb-s")
OPTIONS = CardOptions(name="org/gve", license="apache-2.0", draft=True)


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    gve.save_embedder(folder, *tiny)
    (folder / "README.md").write_text(render_model_card(folder, options=OPTIONS))
    return folder


@pytest.fixture
def model(saved, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="module")
def scored(saved, tmp_path_factory):
    """A report on these weights; what it says is not the point."""
    folder = tmp_path_factory.mktemp("uvrb")
    write_uvrb(folder, {one.name: make_tables(one.name) for one in resolve(SCORED)})
    return run_benchmark(WordEncoder(), folder, sets=SCORED, fingerprint=weights_fingerprint(saved))


def check(folder, report=None, repo="org/gve"):
    return check_model(collect(KINDS["model"], folder), repo, report)


def change_weights(folder):
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})


def test_both_loaders_agree(saved):
    found = check(saved)
    assert set(found) == {"AutoModel", "SentenceTransformer"}
    assert all(array.shape == (3, 128) and np.isfinite(array).all() for array in found.values())
    assert largest_difference(found) <= tolerance(saved) == 1e-5


def test_a_card_with_its_report_passes(model, scored):
    (model / "README.md").write_text(render_model_card(model, scored, options=OPTIONS))
    assert check(model, scored)
    with pytest.raises(ValueError, match=r"--report: missing, and README\.md shows 2 scores"):
        check(model)


def test_a_report_of_other_weights(model, scored):
    (model / "README.md").write_text(render_model_card(model, scored, options=OPTIONS))
    change_weights(model)
    with pytest.raises(ValueError, match=r"--report: made by other weights \(\w+, not \w+\); score this folder"):
        check(model, scored)
    with pytest.raises(ValueError, match="--report: has no fingerprint of the weights"):
        check(model, {key: value for key, value in scored.items() if key != "fingerprint"})


def test_scores_that_the_report_does_not_tell(model, scored):
    text = render_model_card(model, scored, options=OPTIONS)
    assert text.count("value: 1.0\n") == 2
    (model / "README.md").write_text(text.replace("value: 1.0\n", "value: 0.9\n", 1))
    with pytest.raises(ValueError, match=r"README\.md: .* is not what the report says; write the card again"):
        check(model, scored)
    (model / "README.md").write_text(render_model_card(model, options=OPTIONS))
    with pytest.raises(ValueError, match="is not what the report says"):
        check(model, scored)


def test_cards_that_lack_something(model):
    card = model / "README.md"
    card.write_text(render_model_card(model, options=CardOptions(name="org/gve", draft=True)))
    with pytest.raises(ValueError, match=r"README\.md: states no licence; .* `gve card --license`"):
        check(model)
    card.write_text(render_model_card(model, options=CardOptions(license="mit", draft=True)))
    with pytest.raises(ValueError, match=r"does not load 'org/gve'; .* use `gve card --name org/gve`"):
        check(model)
    card.write_text("---\ntags: 3\n---\n")
    with pytest.raises(ValueError, match="its metadata cannot be read"):
        check(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modules.json", "without it the pooling would be guessed"),
        ("processor_config.json", r"has no processor_config\.json"),
        ("model.safetensors", r"has no \*\.safetensors"),
        ("*_gve.py", r"no \*_gve\.py, without which nobody opens it"),
    ],
)
def test_folders_that_lack_something(name, message, model):
    for path in model.glob(name):
        path.unlink()
    with pytest.raises(ValueError, match=message):
        check(model)


def test_weights_that_lack_a_tensor(model):
    weights = load_file(model / "model.safetensors")
    del weights[sorted(name for name in weights if "layers.0." in name)[0]]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"PATH: 1 missing keys \(language_model\.layers\.0\..*complete weights are accepted"
    ):
        check(model)


def test_broken_weights(model):
    (model / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"PATH: .*(does not load|cannot be read)"):
        check(model)


def test_differences():
    one, other = np.zeros((3, 4)), np.full((3, 4), 0.5)
    assert largest_difference({"a": one}, {"b": other}) == 0.5
    assert largest_difference({"a": one}, {"b": other[:, :2]}) == float("inf")
    assert not largest_difference({"a": one, "b": one * np.nan}) <= 1


def test_an_adapter_needs_a_published_base(tmp_path):
    model, _ = gve.build_tiny(["a square"])
    adapted = get_peft_model(model, gve.lora_config(model))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    (tmp_path / "adapter" / "README.md").write_text("---\nlicense: mit\nbase_model: org/gve\n---\n# An adapter\n")
    with pytest.raises(ValueError, match="the Hub name of a published model is accepted; push the base model first"):
        check(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="base_model_name_or_path is None"):
        check(tmp_path / "adapter")
