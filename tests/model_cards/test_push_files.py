"""Which files leave this machine."""

import pytest

from gve.model_cards import push_files
from gve.model_cards.push_files import KINDS, collect, describe

PLANTED = {
    "model": [
        ".git/config",
        ".cache/huggingface/token",
        "__pycache__/modeling_gve.cpython-311.pyc",
        "checkpoint-10/model.safetensors",
        "checkpoint-10/optimizer.pt",
        "optimizer.bin",
        "optimizer.safetensors",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "training_args.bin",
        "training_args.json",
        "pytorch_model.bin",
        "config.json.part",
        ".env",
        "token",
        "token.json",
        "notes.txt",
        "clip.mp4",
        "report.json",
        "runs/events.out.tfevents",
        "assets/page.html",
        "sub/config.json",
    ],
    "uvrb": [
        "videos/v.mp4",
        "report.json",
        "msrvtt-corpus/x.parquet.123.tmp",
        "msrvtt-corpus/a/b.parquet",
        "other/a.parquet",
    ],
    "uvrd": ["media/ab/clip.mp4", "facts.json", "t2v/train.lock", "t2v/.train-0.parquet.swp", "x2v/train-0.parquet"],
    "metric": ["__init__.py", "__pycache__/ranking.pyc", "example.npy", "tests/test_metric.py"],
    "space": ["secrets.toml", "data/clip.mp4", "__main__.py", "assets/.hidden.png"],
}
GOOD = {
    "model": [
        "README.md",
        "config.json",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "modeling_gve.py",
        "tokenizer.json",
        "chat_template.jinja",
        "1_Pooling/config.json",
        "modules.json",
        "assets/radar.png",
    ],
    "uvrb": ["README.md", "msrvtt-i2v-queries/unseen.parquet", "ms-ti-top_ranked/seen.parquet"],
    "uvrd": ["README.md", "ti2v/train-00000-of-00001.parquet"],
    "metric": ["README.md", "app.py", "ranking.py", "requirements.txt", "video_retrieval.py"],
    "space": ["README.md", "app.py", "assets/example.mp4", "packages.txt", "requirements.txt"],
}


def write(folder, names, content=b"x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_meant_goes(kind, tmp_path):
    write(tmp_path, [*GOOD[kind], *PLANTED[kind]])
    upload = collect(KINDS[kind], tmp_path)
    assert sorted(upload.files) == sorted(GOOD[kind])
    for name in PLANTED[kind]:
        assert name in upload.left_out or f"{name.split('/')[0]}/" in upload.left_out, name
    assert upload.total == len(GOOD[kind])


def test_it_is_shown_with_sizes(tmp_path):
    write(tmp_path, GOOD["uvrd"], b"x" * 1500)
    write(tmp_path, ["facts.json"])
    text = describe(collect(KINDS["uvrd"], tmp_path))
    assert "1.5 kB  README.md" in text and "3.0 kB  in 2 files" in text and "not uploaded: facts.json" in text


@pytest.mark.parametrize("secret", ["hf_" + "Ab1" * 12, "ghp_" + "a" * 36, "-----BEGIN RSA PRIVATE KEY-----"])
def test_a_secret_in_an_allowed_file_is_refused(secret, tmp_path):
    write(tmp_path, GOOD["model"])
    (tmp_path / "config.json").write_text(f'{{"token": "{secret}"}}')
    with pytest.raises(ValueError, match=r"config.json: holds a secret .* revoke it") as caught:
        collect(KINDS["model"], tmp_path)
    assert secret not in str(caught.value)


def test_the_hubs_limits(tmp_path, monkeypatch):
    write(tmp_path, GOOD["model"])
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(push_files.FILE_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(ValueError, match=r"model.safetensors: 50\.0 GB; the Hub takes files of up to 50\.0 GB"):
        collect(KINDS["model"], tmp_path)
    write(tmp_path, ["model.safetensors"])
    monkeypatch.setattr(push_files, "FOLDER_FILES", 5)
    with pytest.raises(ValueError, match="files; the Hub takes 5 in a folder"):
        collect(KINDS["model"], tmp_path)
    monkeypatch.setattr(push_files, "REPO_FILES", 7)
    with pytest.raises(ValueError, match="11 files; the Hub takes 7 in a repository"):
        collect(KINDS["model"], tmp_path)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="is no folder; one made by gve world is accepted"):
        collect(KINDS["uvrb"], tmp_path / "nope")
    with pytest.raises(ValueError, match=r"has no README.md; a folder made by .*gve card"):
        collect(KINDS["model"], tmp_path)
