"""Video classification by the runner of UVRB: known scores, the same report, the command on a model."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from labelled_folder import COLOURS, write_flat, write_folders, write_queries
from uvrb_folder import WordEncoder, make_tables, write_uvrb

from gve.eval import eval_command
from gve.eval.benchmark import run_benchmark
from gve.eval.eval_command import main
from gve.hub_datasets.classification import CLASSIFICATION
from gve.hub_datasets.classification.load import label_words

TEXTS = {name: f"A video of {label_words(name)}." for name in COLOURS}
BOOK = [*TEXTS.values()]


class LabelEncoder:
    """Sees the class of each video in its path, but takes some videos for others."""

    def __init__(self, mistakes=()):
        self.mistakes, self.prompts = dict(mistakes), []

    def encode_query(self, inputs, **options):
        self.prompts.append(options.get("prompt"))
        paths = [Path(item["video"]) for item in inputs]
        seen = [self.mistakes.get(f"{path.parent.name}/{path.name}", path.parent.name) for path in paths]
        return np.eye(len(BOOK))[[BOOK.index(TEXTS[name]) for name in seen]]

    def encode_document(self, inputs, **options):
        assert "prompt" not in options
        return np.eye(len(BOOK))[[BOOK.index(text) for text in inputs]]


class HalfBlindEncoder(WordEncoder):
    """Tells the clips of UVRB apart, not videos given by path and texts alone."""

    def _encode(self, role, inputs, options):
        blind = isinstance(inputs[0], str) or isinstance(inputs[0].get("video"), str)
        return np.ones((len(inputs), self.width)) if blind else super()._encode(role, inputs, options)


@pytest.fixture
def folder(tmp_path):
    return write_folders(tmp_path / "videos")


def test_accuracy_by_the_scores_of_the_benchmark(folder):
    encoder = LabelEncoder({"Wave/0.mp4": "BrushHair"})
    report = run_benchmark(encoder, folder, sets=["ucf101"], split="all")
    entry = report["sets"]["UCF101"]
    assert (entry["metric"], entry["score"], entry["num_queries"]) == ("precision@1", pytest.approx(5 / 6), 6)
    assert entry["per_query"] == [1, 1, 0, 1, 1, 1]
    assert (entry["chance"], entry["num_candidates"]) == (pytest.approx(1 / 3), 3)
    assert (entry["abilities"], entry["in_group"]) == ([], None)
    assert entry["tied_queries"] == pytest.approx(1 / 6)  # the mistaken one: its class ties with the third
    low, high = entry["interval"]
    assert low < entry["score"] <= high
    assert entry["further"]["recall@1"] == pytest.approx(5 / 6)
    assert encoder.prompts == [CLASSIFICATION["UCF101"].instruction] == [entry["instruction"]]
    for part in (report, report["plain"]):
        assert set(part["abilities"].values()) | set(part["averages"].values()) == {None}
    json.dumps(report, allow_nan=False)


def test_own_candidates_are_the_pool(tmp_path):
    root = write_flat(tmp_path)
    rows = [
        {"video": f"clips/{name}.mp4", "candidates": [TEXTS[name], TEXTS["Wave"]], "answer": 0}
        for name in ("BrushHair", "cut_bread")
    ]
    write_queries(root, rows)
    encoder = LabelEncoder({"clips/BrushHair.mp4": "cut_bread", "clips/cut_bread.mp4": "Wave"})
    entry = run_benchmark(encoder, root, sets=["ucf101"])["sets"]["UCF101"]
    assert (entry["num_candidates"], entry["chance"]) == (2, 0.5)
    assert entry["per_query"] == [0.5, 0]  # what the first video is taken for is no candidate of it: two tie


@pytest.fixture
def stub(monkeypatch):
    encoder = LabelEncoder({"Wave/0.mp4": "BrushHair"})
    monkeypatch.setattr(eval_command, "load_encoder", lambda model: encoder)
    return encoder


def test_the_command_writes_and_compares(stub, folder, tmp_path, capsys, caplog):
    arguments = ["--model", "m", "--data", str(folder), "--sets", "ucf101", "--out"]
    with caplog.at_level(logging.WARNING, logger="gve"):
        assert main([*arguments, str(tmp_path / "a")]) == 0
    assert "has 3 classes; UCF101 has 101" in caplog.text
    out = capsys.readouterr().out
    assert "UCF101" in out and "AVG-D" not in out
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"bars.png", "embeddings", "report.json", "report.md"}
    text = (tmp_path / "a" / "report.md").read_text()
    assert "## Video classification scores of `m`" in text and "split `all`" in text
    assert "| UCF101 |  | precision@1 | 0.833 |" in text and "Abilities and averages" not in text
    stub.mistakes = {}
    assert main([*arguments, str(tmp_path / "b")]) == 0
    capsys.readouterr()
    assert main(["--compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    ((row,),) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["difference"]) == ("UCF101", pytest.approx(1 / 6))


def test_beside_sets_of_uvrb(tmp_path, monkeypatch, capsys):
    root = write_uvrb(tmp_path / "data", {name: make_tables(name) for name in ("MS-TI", "MS-TV")})
    write_folders(root / "hmdb51", each=1)
    monkeypatch.setattr(eval_command, "load_encoder", lambda model: HalfBlindEncoder())
    assert main(["--model", "m", "--data", str(root), "--sets", "ms-ti", "HMDB51", "ms-tv", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (list(report["sets"]), report["split"]) == (["MS-TI", "HMDB51", "MS-TV"], "unseen")
    assert [entry["score"] for entry in report["sets"].values()] == [1, pytest.approx(1 / 3), 1]
    assert report["abilities"]["CMP"]["score"] == 1


def test_the_command_refuses(stub, folder, capsys):
    for options, message in (
        (["--strict"], "has 3 classes; UCF101 has 101"),
        (["--split", "test"], "--split: 'test'; a folder of labelled videos has no splits"),
        (["--sets", "ucf101", "hmdb51"], "not a folder of videos"),
    ):
        assert main(["--model", "m", "--data", str(folder), "--sets", "ucf101", *options]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and stub.prompts == []
        assert message in captured.err


def test_the_command_on_a_model(tiny_folder, folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--model", str(tiny_folder), "--data", str(folder), "--sets", "ucf101", "--out", str(out)]
    assert main([*arguments, "--frames", "4,2", "--tokens", "4,200"]) == 0
    assert capsys.readouterr().out.splitlines()[-5].split()[:4] == ["frames", "tokens", "a", "frame"]
    report = json.loads((out / "report.json").read_text())
    entry, points = report["sets"]["UCF101"], report["scaling"]
    assert set(entry["per_query"]) <= {0.0, 1 / 3, 0.5, 1.0} and entry["num_queries"] == 6
    assert report["settings"]["num_frames"] == 4
    settings = [(point["num_frames"], point["frame_tokens"]) for point in points]
    assert settings == [(4, 4), (4, 200), (2, 4), (2, 200)]
    assert points[0]["sets"]["UCF101"]["score"] == entry["score"]
    # six files, and at first three texts, which do not see the setting
    assert [point["throughput"]["rows_encoded"] for point in points] == [9, 6, 6, 6]
    assert "| frames | tokens a frame | UCF101 | seconds |" in (out / "report.md").read_text()
    assert (out / "scaling.png").is_file()
