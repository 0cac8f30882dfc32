import json
import shutil

import numpy as np
import pytest
from peft import get_peft_model
from safetensors.numpy import load_file, save_file
from uvrb_folder import WordEncoder, make_tables, write_uvrb

import gve
from gve.eval.benchmark import run_benchmark
from gve.eval.models import weights_fingerprint
from gve.hub_datasets.uvrb import resolve
from gve.model_cards import push_checks
from gve.model_cards.card_command import render_model_card
from gve.model_cards.loadback import largest_difference
from gve.model_cards.push_checks import KINDS, check_model, collect, tolerance_of

SCORED = ("msrvtt", "crb-s")
OPTIONS = {"name": "org/gve", "license": "apache-2.0", "draft": True}

ALLOWED = {
    "model": "README.md config.json model.safetensors model-00001-of-00002.safetensors model.safetensors.index.json "
    "modeling_gve.py tokenizer.json chat_template.jinja 1_Pooling/config.json modules.json assets/radar.png",
    "uvrb": "README.md msrvtt-i2v-queries/unseen.parquet ms-ti-top_ranked/seen.parquet",
    "uvrd": "README.md ti2v/train-00000-of-00001.parquet media/train-00000-of-00001.parquet",
    "metric": "README.md app.py ranking.py requirements.txt video_retrieval.py",
    "space": "README.md app.py assets/example.mp4 packages.txt requirements.txt",
}
PLANTED = {
    "model": ".git/config .cache/huggingface/token __pycache__/modeling_gve.cpython-311.pyc optimizer.safetensors "
    "checkpoint-10/model.safetensors checkpoint-10/optimizer.pt optimizer.bin scheduler.pt rng_state.pth "
    "trainer_state.json training_args.bin training_args.json pytorch_model.bin config.json.part .env token token.json "
    "notes.txt clip.mp4 report.json runs/events.out.tfevents assets/page.html sub/config.json",
    "uvrb": "videos/v.mp4 report.json msrvtt-corpus/x.parquet.123.tmp msrvtt-corpus/a/b.parquet other/a.parquet",
    "uvrd": "media/ab/clip.mp4 facts.json t2v/train.lock t2v/.train-0.parquet.swp x2v/train-0.parquet",
    "metric": "__init__.py __pycache__/ranking.pyc example.npy tests/test_metric.py",
    "space": "secrets.toml data/clip.mp4 __main__.py assets/.hidden.png",
}


def write(folder, names, content=b"x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_meant_goes(kind, tmp_path):
    allowed, planted = ALLOWED[kind].split(), PLANTED[kind].split()
    write(tmp_path, [*allowed, *planted])
    upload = collect(KINDS[kind], tmp_path)
    assert sorted(upload.files) == sorted(allowed)
    for name in planted:
        assert name in upload.left_out or f"{name.split('/')[0]}/" in upload.left_out, name


def test_a_secret_in_an_allowed_file_is_refused(tmp_path):
    write(tmp_path, ALLOWED["model"].split())
    for secret in ("hf_" + "Ab1" * 12, "ghp_" + "a" * 36, "-----BEGIN RSA PRIVATE KEY-----"):
        (tmp_path / "config.json").write_text(f'{{"token": "{secret}"}}')
        with pytest.raises(ValueError, match=r"config.json: holds a secret .* revoke it") as caught:
            collect(KINDS["model"], tmp_path)
        assert secret not in str(caught.value)


def test_the_hubs_limits_and_a_folder_that_lacks_something(tmp_path, monkeypatch):
    write(tmp_path, ALLOWED["model"].split())
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(push_checks.FILE_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(ValueError, match=r"model.safetensors: must be at most 50\.0 GB for the Hub"):
        collect(KINDS["model"], tmp_path)
    write(tmp_path, ["model.safetensors"])
    monkeypatch.setattr(push_checks, "FOLDER_FILES", 5)
    with pytest.raises(ValueError, match="the Hub takes 5 files in a folder, got 9"):
        collect(KINDS["model"], tmp_path)
    monkeypatch.setattr(push_checks, "REPO_FILES", 7)
    with pytest.raises(ValueError, match="the Hub takes 7 files in a repository, got 11"):
        collect(KINDS["model"], tmp_path)
    with pytest.raises(ValueError, match="must be a folder made by gve world"):
        collect(KINDS["uvrb"], tmp_path / "nope")
    (tmp_path / "README.md").unlink()
    with pytest.raises(ValueError, match=r"has no README.md.*gve card"):
        collect(KINDS["model"], tmp_path)


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    gve.save_embedder(folder, *tiny)
    (folder / "README.md").write_text(render_model_card(folder, **OPTIONS))
    return folder


@pytest.fixture
def model(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="module")
def scored(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uvrb")
    write_uvrb(folder, {one.name: make_tables(one.name) for one in resolve(SCORED)})
    return run_benchmark(WordEncoder(), folder, sets=SCORED, fingerprint=weights_fingerprint(saved))


def check(folder, report=None):
    return check_model(collect(KINDS["model"], folder), "org/gve", report)


def test_both_loaders_agree(saved):
    found = check(saved)
    assert set(found) == {"AutoModel", "SentenceTransformer"}
    assert all(array.shape == (3, 128) and np.isfinite(array).all() for array in found.values())
    assert largest_difference(found) <= tolerance_of(saved) == 1e-5
    one = np.zeros((3, 4))
    assert largest_difference({"a": one}, {"b": one + 0.5}) == 0.5
    assert largest_difference({"a": one}, {"b": one[:, :2]}) == float("inf")
    assert not largest_difference({"a": one, "b": one * np.nan}) <= 1


def test_scores_must_be_the_reports(model, scored):
    card, text = model / "README.md", render_model_card(model, scored, **OPTIONS)
    card.write_text(text)
    assert check(model, scored)
    with pytest.raises(ValueError, match=r"--report: missing, and README\.md shows 2 scores"):
        check(model)
    assert text.count("value: 1.0\n") == 2
    for other in (text.replace("value: 1.0\n", "value: 0.9\n", 1), render_model_card(model, **OPTIONS)):
        card.write_text(other)
        with pytest.raises(ValueError, match=r"README\.md: .* is not what the report says"):
            check(model, scored)
    card.write_text(text)
    weights = load_file(model / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1}, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"--report: made by other weights \(\w+, not \w+\)"):
        check(model, scored)
    with pytest.raises(ValueError, match="--report: has no fingerprint of the weights"):
        check(model, {key: value for key, value in scored.items() if key != "fingerprint"})


def test_cards_that_lack_something(model):
    card = model / "README.md"
    for text, message in (
        (render_model_card(model, name="org/gve", draft=True), r"README\.md: states no licence.*`gve card --license`"),
        (render_model_card(model, license="mit", draft=True), "does not load 'org/gve'.*`gve card --name org/gve`"),
        ("---\ntags: 3\n---\n", "its metadata cannot be read"),
    ):
        card.write_text(text)
        with pytest.raises(ValueError, match=message):
            check(model)


def test_folders_that_lack_something(saved, model, tmp_path):
    for name, message in (
        ("modules.json", "has no modules.json, so loaders would guess the pooling"),
        ("processor_config.json", r"has no processor_config\.json"),
        ("model.safetensors", r"has no \*\.safetensors"),
        ("*_gve.py", r"has no \*_gve\.py, so nobody could load it"),
    ):
        folder = shutil.copytree(saved, tmp_path / name, ignore=shutil.ignore_patterns(name))
        with pytest.raises(ValueError, match=message):
            check(folder)
    weights = load_file(model / "model.safetensors")
    del weights[sorted(name for name in weights if "layers.0." in name)[0]]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"PATH: must have complete weights, got 1 missing keys \(language_model\."):
        check(model)
    (model / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"PATH: .*does not load"):
        check(model)


def test_an_adapter_needs_a_published_base(tmp_path):
    model, _ = gve.build_tiny(["a square"])
    adapted = get_peft_model(model, gve.lora_config(model))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    (tmp_path / "adapter" / "README.md").write_text("---\nlicense: mit\nbase_model: org/gve\n---\n# An adapter\n")
    path = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    for base in (str(tmp_path), None):
        path.write_text(json.dumps(settings | {"base_model_name_or_path": base}))
        with pytest.raises(ValueError, match=f"must be the Hub name of a published model, got {base!r}"):
            check(tmp_path / "adapter")
