"""`gve demo --quick` at toy size: the files that it names, with what they promise."""

import json
from dataclasses import replace

import PIL.Image
import pytest

from gve.hub_datasets.world.sets import Sizes
from gve.trainers.demo import quick
from gve.trainers.demo.demo_command import main
from gve.trainers.demo.queries import QUERY_SETS

SIZES = Sizes(base=8, groups=2, programs=2, themes=2, longs=2, composed=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("quick") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick, "SIZE", replace(quick.SIZE, sizes=SIZES, workers=1))
        assert main(["--quick", "--out", str(root)]) == 0
    return root


def test_it_writes_what_it_names(finished, capsys):
    assert main(["--quick", "--out", str(finished), "--resume"]) == 0  # nothing is left to do but the summary
    said = capsys.readouterr().out
    for name in ("queries.png", "corpus.safetensors", "report.md", "data/uvrb/videos"):
        assert (finished / name).exists() and str(finished / name) in said
    results = json.loads((finished / "queries" / "queries.json").read_text())
    assert [result["query"] for result in results] == list(QUERY_SETS) and all(result["hits"] for result in results)
    assert len(list((finished / "queries").glob("*.png"))) == len(QUERY_SETS)
    with PIL.Image.open(finished / "queries.png") as sheet:
        assert sheet.width > 1000 and len(sheet.convert("RGB").getcolors(1 << 24)) > 20


def test_it_scores_four_sets_of_the_model_that_ships(finished):
    report = json.loads((finished / "report.json").read_text())
    assert set(report["sets"]) == set(quick.SETS)
    assert report["sets"]["MSRVTT"]["score"] > 0.5  # chance is 0.125
    assert (finished / "model" / "modeling_gve.py").is_file()


def test_it_takes_no_minutes_and_no_folder_of_a_whole_demo(finished, capsys, tmp_path):
    assert main(["--quick", "--minutes", "3", "--out", str(tmp_path / "new")]) == 2
    assert "Leave one of them out" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert main(["--resume", "--out", str(finished)]) == 2
    assert "demo of the other kind" in capsys.readouterr().err


def test_the_picture_opens_on_a_desktop_alone(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(quick.webbrowser, "open", opened.append)
    monkeypatch.setattr(quick.sys, "platform", "linux")
    for terminal, display in ((True, False), (False, True), (True, True)):
        monkeypatch.setattr(quick.sys.stdout, "isatty", lambda answer=terminal: answer)
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        if display:
            monkeypatch.setenv("DISPLAY", ":0")
        quick.open_picture(tmp_path / "a b.png")
    assert opened == [(tmp_path / "a b.png").as_uri()]
