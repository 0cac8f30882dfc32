"""`gve eval`: what it writes, refuses, keeps and compares."""

import json

import numpy as np
import pytest
from PIL import Image
from uvrb_folder import WordEncoder, make_tables, write_uvrb

from gve.eval import eval_command
from gve.eval.eval_command import main


@pytest.fixture
def encoder(monkeypatch):
    stub = WordEncoder(see=lambda number: number // 2)
    monkeypatch.setattr(eval_command, "load_encoder", lambda model: stub)
    return stub


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_everything_and_goes_on(encoder, uvrb, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--model", "tiny", "--data", str(uvrb), "--out", str(out)]
    assert main(arguments) == 0
    assert files(out) == ["bars.png", "embeddings", "radar.png", "report.json", "report.md"]
    report = json.loads((out / "report.json").read_text())
    assert (report["schema"], report["model"], report["split"]) == ("gve-report/1", "tiny", "unseen")
    assert report["settings"]["instructions"] == "table"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:6] == ["set", "abilities", "metric", "score", "SE", "95"]
    markdown = (out / "report.md").read_text()
    assert "| CRB-S in group |  | precision@1 | 0.500 |" in markdown
    assert "### Conditions" in markdown
    for name in ("bars.png", "radar.png"):
        assert np.asarray(Image.open(out / name)).std() > 10
    encoder.calls.clear()
    assert main([*arguments, "--sets", "crb-t", "cmrb", "--json"]) == 0
    assert encoder.calls == []  # the vectors were kept
    part = json.loads(capsys.readouterr().out)
    assert {name: part["sets"][name] for name in ("CRB-T", "CMRB")} == part["sets"]
    assert part["sets"]["CMRB"]["score"] == report["sets"]["CMRB"]["score"]


def test_scores_by_query_stand_on_one_line(encoder, uvrb, tmp_path):
    assert main(["--model", "m", "--data", str(uvrb), "--sets", "msrvtt", "--out", str(tmp_path / "o")]) == 0
    text = (tmp_path / "o" / "report.json").read_text()
    assert '"per_query": [0.5, 0.5, ' in text
    assert files(tmp_path / "o") == ["bars.png", "embeddings", "report.json", "report.md"]  # too few abilities


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sets", "msr-vtt"], "sets: unknown set 'msr-vtt'; nearest: msrvtt"),
        (["--split", "test"], "cannot read split 'test'"),
        (["--batch-size", "0"], "--batch-size: 0"),
        (["--out", "/no/such/folder/r"], "--out: cannot write"),
        (["--out", "report.json"], "--out: cannot write to 'report.json'; a folder"),
        (["--frames", "16"], "--frames, --tokens: WordEncoder has no such settings"),
        (["--instructions", "model"], "--instructions: WordEncoder keeps no prompts"),
        (["--instructions", "nowhere.json"], "--instructions: 'nowhere.json' cannot be read"),
        (["--instructions", "prompts.json"], "unknown set 'CRB_G'; nearest: crb-g"),
        (["--instructions", "few.json"], "instructions: none for DiDeMo"),
    ],
)
def test_refuses_in_one_line_before_encoding(encoder, uvrb, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.json").write_text(json.dumps({"CRB_G": "Find."}))
    (tmp_path / "few.json").write_text(json.dumps({"msrvtt": "Find."}))
    sets = [] if "--sets" in options else ["--sets", "msrvtt", "didemo"]
    assert main(["--model", "m", "--data", str(uvrb), *sets, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gve eval: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert encoder.calls == []


def test_model_must_be_an_embedder(uvrb, tmp_path, capsys):
    assert main(["--model", str(tmp_path), "--data", str(uvrb)]) == 2
    assert "has no modules.json" in capsys.readouterr().err
    assert main(["--data", str(uvrb)]) == 2
    assert "--model: missing" in capsys.readouterr().err


def test_the_only_split_is_taken(encoder, tmp_path, capsys):
    data = write_uvrb(tmp_path / "uvrb", {"MSRVTT": make_tables("MSRVTT")}, split="test")
    assert main(["--model", "m", "--data", str(data), "--sets", "msrvtt", "--json", "--instructions", "none"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["split"], report["sets"]["MSRVTT"]["instruction"]) == ("test", "")


def test_interrupted_leaves_no_report_and_keeps_vectors(encoder, uvrb, tmp_path, capsys):
    def interrupt(inputs, **options):
        raise KeyboardInterrupt

    encoder.encode_query = interrupt
    out = tmp_path / "out"
    assert main(["--model", "m", "--data", str(uvrb), "--sets", "msrvtt", "--out", str(out)]) == 130
    assert files(out) == ["embeddings"]
    assert "interrupted" in capsys.readouterr().err
    assert len(list(out.rglob("*.safetensors"))) == 1


def test_compare(encoder, uvrb, tmp_path, capsys):
    arguments = ["--data", str(uvrb), "--sets", "msrvtt", "ms-ti", "ms-tv"]
    assert main(["--model", "half", *arguments, "--out", str(tmp_path / "a")]) == 0
    encoder.see = lambda number: number
    assert main(["--model", "whole", *arguments, "--out", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    pair = ["--compare", str(tmp_path / "a"), str(tmp_path / "b" / "report.json")]
    assert main([*pair, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["MSRVTT", "MS-TI", "MS-TV", "CMP"]
    assert (rows["MSRVTT"]["first"], rows["MSRVTT"]["second"], rows["MSRVTT"]["difference"]) == (0.5, 1.0, 0.5)
    assert rows["MSRVTT"]["interval"] == [0.5, 0.5]
    assert rows["CMP"]["difference"] == pytest.approx((rows["MS-TI"]["difference"] + rows["MS-TV"]["difference"]) / 2)
    assert main(pair) == 0
    assert capsys.readouterr().out.startswith("first   half\nsecond  whole\n")


def test_compare_refuses_other_queries(encoder, uvrb, tmp_path, capsys):
    arguments = ["--model", "m", "--data", str(uvrb), "--sets", "msrvtt", "--out", str(tmp_path / "a")]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    for change, message in (
        ({"queries_digest": "other"}, "MSRVTT has queries_digest"),
        ({"metric": "recall@5"}, "MSRVTT has metric 'recall@1' and 'recall@5'"),
    ):
        other = tmp_path / "b.json"
        other.write_text(json.dumps({**report, "sets": {"MSRVTT": report["sets"]["MSRVTT"] | change}}))
        assert main(["--compare", str(tmp_path / "a"), str(other)]) == 2
        assert message in capsys.readouterr().err
    del report["sets"]["MSRVTT"]["per_query"]
    other.write_text(json.dumps(report))
    assert main(["--compare", str(tmp_path / "a"), str(other)]) == 2
    assert "has no per_query; scores by query are needed" in capsys.readouterr().err
    other.write_text("{}")
    assert main(["--compare", str(other), str(other)]) == 2
    assert "not a report with sets" in capsys.readouterr().err


def test_vectors_of_another_model_or_template_are_not_taken(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    identities = [eval_command._identity(str(folder))]
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    identities.append(eval_command._identity(str(folder)))
    (folder / "config.json").write_text('{"a": 1}')
    identities.append(eval_command._identity(str(folder)))
    identities.append(eval_command._identity("org/model-that-is-not-there"))
    assert len({json.dumps(identity) for identity in identities}) == 4
    assert eval_command._identity(str(folder)) == identities[2]
