"""The benchmark end to end on a small folder, with encoders whose scores are known."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from uvrb_folder import GROUPED, NUM_CLIPS, WordEncoder, make_tables, write_uvrb

from gve.eval import benchmark
from gve.eval.benchmark import SCHEMA, main, run_benchmark
from gve.hub_datasets.uvrb import SETS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_uvrb(tmp_path_factory.mktemp("uvrb"), {name: make_tables(name) for name in SETS})


def test_perfect_encoder_on_all_sets(folder):
    encoder = WordEncoder()
    report = run_benchmark(encoder, folder)
    assert (report["schema"], report["split"], report["source"]) == (SCHEMA, "unseen", str(folder))
    assert list(report["sets"]) == list(SETS)
    for name, entry in report["sets"].items():
        assert entry["score"] == 1.0, name
        # ten of twelve at random: not even a perfect score is two errors above that
        assert entry["above_chance"] is (entry["metric"] != "recall@10"), name
        assert entry["num_queries"] == NUM_CLIPS
        assert entry["num_candidates"] == (SETS[name].pool_size or NUM_CLIPS)
        assert (entry["in_group"] is not None) == (name in GROUPED)
    levels = {name: report["sets"][name]["chance"] for name in ("MSRVTT", "CMRB", "MS-TI")}
    assert levels == pytest.approx({"MSRVTT": 1 / 12, "CMRB": 10 / 12, "MS-TI": 0.1})
    assert all(entry["score"] == pytest.approx(1) for entry in report["abilities"].values())
    assert report["averages"]["AVG-A"]["score"] == pytest.approx(1)
    assert report["averages"]["AVG-D"]["chance"] == pytest.approx((12 / 12 + 20 / 12 + 0.2) / 16)
    json.dumps(report, allow_nan=False)

    documents = [item for role, inputs, _ in encoder.calls if role == "document" for item in inputs]
    assert len(documents) == NUM_CLIPS  # one corpus, shared by all sets
    assert all("prompt" not in options for role, _, options in encoder.calls if role == "document")
    prompts = [options["prompt"] for role, _, options in encoder.calls if role == "query"]
    assert prompts == [task.instruction for task in SETS.values()]


def test_collapsed_encoder_is_at_chance(folder):
    report = run_benchmark(WordEncoder(see=lambda number: 0), folder)
    for entry in [*report["sets"].values(), *report["abilities"].values(), *report["averages"].values()]:
        assert entry["score"] == pytest.approx(entry["chance"])
        assert entry["above_chance"] is False
    assert report["sets"]["MSRVTT"]["tied_queries"] == 1.0


def test_group_blind_encoder_is_at_chance_within_groups(folder):
    report = run_benchmark(WordEncoder(see=lambda number: number // 4), folder, sets=["crb-s", "CRB-T"])
    for entry in report["sets"].values():
        assert entry["score"] == pytest.approx(0.25)
        assert entry["in_group"]["score"] == pytest.approx(0.25)
        assert entry["in_group"]["chance"] == pytest.approx(0.25)
        assert entry["in_group"]["group_size"] == 4
        assert entry["in_group"]["above_chance"] is False
    assert report["abilities"]["S"] is None
    assert report["averages"] == {"AVG-D": None, "AVG-A": None}


def test_group_members_told_apart(folder):
    report = run_benchmark(WordEncoder(see=lambda number: number % 4), folder, sets=["crb-s"])
    entry = report["sets"]["CRB-S"]
    assert entry["score"] == pytest.approx(1 / 3)  # three groups look alike
    assert entry["in_group"]["score"] == 1.0
    assert entry["in_group"]["above_chance"] is True


def test_partly_right_encoder_has_the_binomial_error(folder):
    # The corpus holds numbers as they are; half of the queries are answered with the next clip.
    encoder = WordEncoder()
    wrong = WordEncoder(see=lambda number: number if number < 6 else (number + 1) % NUM_CLIPS)
    encoder.encode_query = wrong.encode_query
    entry = run_benchmark(encoder, folder, sets=["msrvtt"])["sets"]["MSRVTT"]
    assert entry["score"] == 0.5
    assert entry["standard_error"] == pytest.approx(math.sqrt(0.25 / (NUM_CLIPS - 1)))
    assert entry["chance_error"] == pytest.approx(math.sqrt(1 / 12 * 11 / 12 / NUM_CLIPS))
    assert entry["above_chance"] is (1 / 12 + 2 * entry["standard_error"] < 0.5)


def test_errors_of_averages_add_in_squares(folder):
    encoder = WordEncoder(see=lambda number: number % 5)
    report = run_benchmark(encoder, folder, sets=["ms-ti", "ms-tv"])
    first, second = (report["sets"][name]["standard_error"] for name in ("MS-TI", "MS-TV"))
    assert report["abilities"]["CMP"]["standard_error"] == pytest.approx(math.sqrt(first**2 + second**2) / 2)
    assert {name for name, entry in report["abilities"].items() if entry} == {"CMP"}


def test_data_are_checked_before_anything_is_encoded(tmp_path):
    tables = {name: make_tables(name) for name in ("MSRVTT", "DiDeMo")}
    del tables["DiDeMo"]["qrels"][0]
    encoder = WordEncoder()
    with pytest.raises(ValueError, match="didemo-qrels: query 'q0' has no positive"):
        run_benchmark(encoder, write_uvrb(tmp_path, tables), sets=["msrvtt", "didemo"])
    assert encoder.calls == []


def test_command_writes_everything(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "load_encoder", lambda model: WordEncoder())
    out, markdown, radar = tmp_path / "report.json", tmp_path / "report.md", tmp_path / "radar.png"
    options = ["--out", str(out), "--markdown", str(markdown), "--radar", str(radar)]
    assert main(["--model", "tiny", "--data", str(folder), *options]) == 0
    report = json.loads(out.read_text())
    assert (report["schema"], report["model"]) == ("gve-report/1", "tiny")
    assert report["sets"]["CMRB"]["metric"] == "recall@10"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "set",
        "abilities",
        "metric",
        "score",
        "SE",
        "chance",
        "queries",
        "candidates",
        "above",
        "chance",
    ]
    assert "| CRB-S in group |  | precision@1 | 1.000 | 0.000 | 0.250 | 12 | 4 | yes |" in markdown.read_text()
    assert np.asarray(Image.open(radar)).std() > 10
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [
        "radar.png",
        "report.json",
        "report.md",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sets", "msr-vtt"], "sets: unknown set 'msr-vtt'; nearest: msrvtt"),
        (["--split", "test"], "cannot read split 'test'"),
        (["--batch-size", "0"], "--batch-size: 0"),
        (["--out", "/no/such/folder/r.json"], "--out: cannot write"),
        (["--sets", "msrvtt", "--radar", "r.png"], "radar: 0 abilities"),
        ([], "--model: 'folder' has no modules.json"),
    ],
)
def test_command_refuses_in_one_line(folder, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert main(["--model", "folder", "--data", str(folder), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gve eval: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_command_interrupted_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    def interrupt(inputs, **options):
        raise KeyboardInterrupt

    encoder = WordEncoder()
    encoder.encode_query = interrupt
    monkeypatch.setattr(benchmark, "load_encoder", lambda model: encoder)
    out = tmp_path / "report.json"
    assert main(["--model", "m", "--data", str(folder), "--sets", "msrvtt", "--out", str(out)]) == 130
    assert not out.exists()
    assert "interrupted" in capsys.readouterr().err
