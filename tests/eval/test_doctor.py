import json
import os
import subprocess
import sys

import pytest

from gve.eval import doctor_command, environment
from gve.eval.doctor_command import changes, main


def run(*arguments, path=(), **variables):
    """`gve doctor` in a new interpreter, with packages in front of the installed ones."""
    variables = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(map(str, path))} | variables
    words = [sys.executable, "-m", "gve", "doctor", *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | variables)


@pytest.fixture
def quiet(monkeypatch):
    """The checks in this process, without the speed test's five seconds."""
    monkeypatch.setattr(doctor_command, "SECONDS", 0.01)
    monkeypatch.setattr(doctor_command, "CLIPS", 2)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


def test_a_working_machine_is_described_as_json(quiet, capsys):
    code = main(["--json"])
    text = capsys.readouterr().out
    found = json.loads(text)
    assert code == 0 and found["broken"] == [] and "hf_secret" not in text
    assert all(found["versions"][name] for name in ("python", "gve", "ffmpeg", *environment.PACKAGES))
    assert found["hub"]["token"] is True and found["cache"]["free_gb"] > 0 and found["device"]["memory_gb"] > 0
    model = found["model"]
    assert model["error"] is None and model["attention"] and model["precision"]
    assert min(model["videos_per_second"], model["decode_ms"], model["model_ms"]) > 0


def test_offline_is_said_and_breaks_nothing(quiet, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["--no-speed"]) == 0
    text = capsys.readouterr().out
    assert "offline (HF_HUB_OFFLINE is set)" in text and "unset HF_HUB_OFFLINE" in text
    assert "hf_secret" not in text and "videos/s" not in text


def test_an_address_that_does_not_answer_is_unreachable(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = environment.hub()
    assert found["state"] == "unreachable" and found["error"].endswith(("Error", "Timeout"))


def test_a_broken_torchvision_is_named_with_the_command_that_mends_it(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms')")
    done = run("--json", "--no-speed", path=[tmp_path])
    found = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert found["torchvision"]["state"] == "broken" and "torchvision::nms" in found["torchvision"]["error"]
    assert "model" not in found and len(found["broken"]) == 1
    assert any(line.endswith(": pip uninstall torchvision") for line in found["advice"])


def test_libraries_are_absent_or_working(tmp_path, monkeypatch):
    monkeypatch.setitem(environment.OPTIONAL, "no_such_library", "no_such_library")
    monkeypatch.setitem(environment.OPTIONAL, "json", "json.decoder")
    assert environment.library("no_such_library")["state"] == "absent"
    assert environment.library("json") == {"state": "working", "version": None, "error": None}


def test_every_advice_is_one_line_that_ends_in_a_command():
    fine = {"state": "absent", "version": None, "error": None}
    facts = {"versions": {"torch": "2"}, "torchvision": fine, "torchcodec": fine | {"state": "broken"}}
    facts |= {"device": {"unused_gpu": True}, "hub": {"state": "reachable", "token": False}, "cache": {"free_gb": 1.0}}
    facts |= {"model": {"error": "RuntimeError: no kernel"}}
    advice = changes(facts)
    commands = [line.rpartition(": ")[2].split()[0] for line in advice]
    assert commands == ["pip", "pip", "pip", "hf", "export"] and not any("\n" in line for line in advice)
    assert changes(facts | {"versions": {"torch": None, "ffmpeg": None}})[0].endswith(": pip install torch")
