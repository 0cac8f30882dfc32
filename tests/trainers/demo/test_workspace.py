import json
import shutil
from types import SimpleNamespace

import pytest

from gve.trainers.demo.demo_command import main
from gve.trainers.demo.workspace import STATE_FILE, open_workspace


def open_here(root, **kwargs):
    return open_workspace(root, **{"minutes": 15, "seed": 3, "resume": False} | kwargs)


def test_new_folder_gets_a_state_that_resume_reads_with_the_stages_that_did_not_fail(tmp_path):
    workspace = open_here(tmp_path / "demo")
    with workspace.stage("world") as needed:
        workspace.facts["pairs"] = 7
        assert needed
    with pytest.raises(KeyboardInterrupt), workspace.stage("model"):
        raise KeyboardInterrupt
    again = open_here(tmp_path / "demo", minutes=99, seed=0, resume=True)
    assert (again.minutes, again.seed, again.facts, list(again.stages)) == (15, 3, {"pairs": 7}, ["world"])
    with again.stage("world") as needed:
        assert not needed


def test_folders_that_a_demo_may_not_use(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty and holds no demo"):
        open_here(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        open_here(tmp_path / "thesis.txt")
    with pytest.raises(ValueError, match="holds no demo"):
        open_here(tmp_path / "demo", resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    open_here(tmp_path / "demo")
    with pytest.raises(ValueError, match="Add --resume"):
        open_here(tmp_path / "demo")
    (tmp_path / "demo" / STATE_FILE).write_text(json.dumps({"schema": "gve-demo/0"}))
    with pytest.raises(ValueError, match="another version"):
        open_here(tmp_path / "demo", resume=True)


def test_too_little_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 << 20))
    with pytest.raises(ValueError, match="100 MiB are free"):
        open_here(tmp_path / "deep" / "demo")
    assert not (tmp_path / "deep").exists()


def test_bad_flags_end_before_any_work(tmp_path, capsys):
    for flags in (["--minutes", "0"], ["--minutes", "-3"], ["--minutes", "nan"], ["--seed", "-1"], ["--resume"]):
        assert main(["--out", str(tmp_path / "demo"), *flags]) == 2
        message = f"{flags[0]}: got {flags[1]}" if flags[1:] else "--resume: "
        assert message in capsys.readouterr().err
        assert not (tmp_path / "demo").exists()
