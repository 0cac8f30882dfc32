"""`gve eval`: what it writes, refuses, keeps and compares."""

import json

import pytest
from refusing import refused
from uvrb_folder import WordEncoder, make_tables, write_uvrb

from gve.eval import eval_command
from gve.eval.eval_command import main
from gve.hub_datasets.uvrb import SETS


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
    assert report["settings"]["instructions"] == "uvrb"
    assert capsys.readouterr().out.split()[:5] == ["set", "abilities", "metric", "score", "SE"]
    markdown = (out / "report.md").read_text()
    assert "| CRB-S in group |  | precision@1 | 0.500 |" in markdown
    assert "### Conditions" in markdown
    encoder.calls.clear()
    assert main([*arguments, "--sets", "crb-t", "cmrb", "--json"]) == 0
    assert encoder.calls == []  # the vectors were kept
    part = json.loads(capsys.readouterr().out)
    assert {name: part["sets"][name] for name in ("CRB-T", "CMRB")} == part["sets"]
    assert part["sets"]["CMRB"]["score"] == report["sets"]["CMRB"]["score"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sets", "msr-vtt"], "sets: unknown set 'msr-vtt'; nearest: msrvtt"),
        (["--split", "test"], "cannot read split 'test'"),
        (["--batch-size", "0"], "--batch-size: 0"),
        (["--out", "/no/such/folder/r"], "--out: cannot write"),
        (["--out", "report.json"], "--out: cannot write to 'report.json'. Give a folder"),
        (["--frames", "16"], "--frames, --tokens: WordEncoder has no such settings"),
        (["--instructions", "model"], "--instructions: WordEncoder keeps no prompts"),
        (["--instructions", "nowhere.json"], "--instructions: 'nowhere.json' cannot be read"),
        (["--instructions", "prompts.json"], "unknown set 'CRB_G'; nearest: crb-g"),
        (["--instructions", "few.json"], "instructions: none for DiDeMo; one for every set is needed"),
    ],
)
def test_refuses_in_one_line_before_encoding(encoder, uvrb, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.json").write_text(json.dumps({"CRB_G": "Find."}))
    (tmp_path / "few.json").write_text(json.dumps({"msrvtt": "Find."}))
    sets = [] if "--sets" in options else ["--sets", "msrvtt", "didemo"]
    told = refused(main, ["--model", "m", "--data", uvrb, *sets, *options], capsys)
    assert told.startswith("gve eval: ") and message in told
    assert encoder.calls == []


def test_the_only_split_is_taken_but_no_model_is(encoder, tmp_path, capsys):
    data = write_uvrb(tmp_path / "uvrb", {"MSRVTT": make_tables("MSRVTT")}, split="test")
    arguments = ["--data", str(data), "--sets", "msrvtt", "--json", "--instructions", "none"]
    assert main(["--model", "m", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["split"], report["sets"]["MSRVTT"]["instruction"]) == ("test", "")
    assert main(arguments) == 2
    assert "--model: missing" in capsys.readouterr().err


def test_interrupted_leaves_no_report_and_goes_on(encoder, uvrb, tmp_path, monkeypatch, capsys):
    def interrupt(inputs, **options):
        if options["prompt"] == SETS["CRB-S"].instruction:
            raise KeyboardInterrupt
        return WordEncoder.encode_query(encoder, inputs, **options)

    out = tmp_path / "out"
    arguments = ["--model", "m", "--data", str(uvrb), "--sets", "msrvtt", "crb-s", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode_query", interrupt)
        assert main([*arguments, "--out", str(out)]) == 130
    assert files(out) == ["embeddings"]
    assert "interrupted" in capsys.readouterr().err
    encoder.calls.clear()
    assert main([*arguments, "--out", str(out)]) == 0
    assert [role for role, _, _ in encoder.calls] == ["query"]  # all else was kept
    resumed = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["sets"] == resumed["sets"]


def test_compare(encoder, uvrb, tmp_path, capsys):
    first, other = tmp_path / "a", tmp_path / "other.json"
    arguments = ["--data", str(uvrb), "--sets", "msrvtt", "ms-ti", "ms-tv"]
    assert main(["--model", "half", *arguments, "--out", str(first)]) == 0
    assert files(first) == ["bars.png", "embeddings", "report.json", "report.md"]  # too few abilities for a radar
    text = (first / "report.json").read_text()
    assert '"per_query": [0.5, 0.5, ' in text  # on one line
    encoder.see = lambda number: number
    assert main(["--model", "whole", *arguments, "--out", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    pair = ["--compare", str(first), str(tmp_path / "b" / "report.json")]
    assert main([*pair, "--json"]) == 0
    (compared,) = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in compared}
    assert list(rows) == ["MSRVTT", "MS-TI", "MS-TV", "CMP"]
    assert (rows["MSRVTT"]["first"], rows["MSRVTT"]["second"], rows["MSRVTT"]["difference"]) == (0.5, 1.0, 0.5)
    assert rows["MSRVTT"]["interval"] == [0.5, 0.5]
    assert rows["CMP"]["difference"] == pytest.approx((rows["MS-TI"]["difference"] + rows["MS-TV"]["difference"]) / 2)
    three, out = [*pair, str(first)], tmp_path / "compared"
    assert main([*three, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["A  half", "B  whole", "C  half"] and files(out) == ["comparison.md"]
    (line,) = (line.split() for line in lines if line.startswith("MSRVTT "))
    assert line[:5] == ["MSRVTT", "0.500", "1.000", "0.500", "+0.500"] and line[-1] == "1.0000"
    assert main(["--compare", str(first)]) == 2
    assert "at least two" in capsys.readouterr().err

    report = json.loads(text)
    entry = report["sets"]["MSRVTT"]
    without = {key: value for key, value in entry.items() if key != "per_query"}
    for sets, message in (
        ({"MSRVTT": entry | {"queries_digest": "other"}}, "MSRVTT has queries_digest"),
        ({"MSRVTT": entry | {"metric": "recall@5"}}, "MSRVTT has metric 'recall@1' and 'recall@5'"),
        ({"MSRVTT": without}, "has no per_query; scores by query are needed"),
        ({}, "not a report with sets"),
    ):
        other.write_text(json.dumps(report | {"sets": sets}))
        assert main(["--compare", str(first), str(other)]) == 2
        assert message in capsys.readouterr().err


def test_vectors_of_another_model_or_template_are_not_taken(encoder, uvrb, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    arguments = ["--model", str(model), "--data", str(uvrb), "--sets", "msrvtt", "--cache", str(tmp_path / "kept")]
    calls = []
    for name, content in (
        ("config.json", "{}"),
        ("chat_template.jinja", "{{ messages }}"),
        ("config.json", '{"a": 1}'),
        ("config.json", '{"a": 1}'),
    ):
        (model / name).write_text(content)
        assert main(arguments) == 0
        calls.append(len(encoder.calls))
    assert calls == [2, 4, 6, 6]
