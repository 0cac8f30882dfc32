"""`gve analyze`: the paper's models alone, with comparable reports, and with reports on other data."""

import json

import numpy as np
import pytest
from PIL import Image
from refusing import refused

from gve.eval.analysis import (
    analyse,
    correlation,
    correlation_matrix,
    join_models,
    paper_models,
    populations,
    report_model,
)
from gve.eval.analyze_command import main, to_markdown
from gve.hub_datasets.uvrb import SETS

GVE_3B = next(one.scores for one in paper_models() if one.name == "GVE-3B")


def write_report(path, model, *, official=True, shift=0.0, names=tuple(SETS), **changes):
    """A report as `gve eval` writes it, with the fields that are read here."""
    sets = {}
    for name in names:
        sizes = (SETS[name].official_queries, SETS[name].pool_size or SETS[name].official_corpus)
        queries, candidates = sizes if official else (20, 12)
        score = round(GVE_3B[name] + shift, 4)
        sets[name] = {"score": score, "num_queries": queries, "num_candidates": candidates}
    report = {"schema": "gve-report/1", "model": model, "source": "uvrb", "split": "unseen", "sets": sets}
    path.write_text(json.dumps(report | changes))
    return path


def test_the_papers_models_alone(capsys):
    assert main(["--json"]) == 0
    analysis = json.loads(capsys.readouterr().out)
    assert len(analysis["models"]) == 16
    sizes = {name: len(entry["models"]) for name, entry in analysis["correlations"].items()}
    assert sizes == {"all": 16, "CLIP": 6, "MLLM": 10}
    spearman = analysis["correlations"]["all"]["spearman"]
    assert spearman["averages"]["PR"]["AVG-D"] == pytest.approx(0.96, abs=0.01)
    assert abs(spearman["averages"]["MSRVTT"]["AVG-D"]) < 0.2  # the best-known set predicts least
    matrix = spearman["abilities"]
    for one in matrix:
        assert matrix[one][one] == pytest.approx(1)
        assert all(matrix[one][other] == pytest.approx(matrix[other][one]) for other in matrix)
    assert main(["--rule", "plain"]) == 0
    table = capsys.readouterr().out
    assert "Correlation of abilities, CLIP (6 models), Spearman" in table
    assert "GVE-7B           MLLM    0.602" in table


def test_a_comparable_report_joins_everything(tmp_path, capsys, caplog):
    other = write_report(tmp_path / "other.json", "tiny", official=False)
    report = write_report(tmp_path / "mine.json", "org/mine", shift=0.01)
    out = tmp_path / "analysis"
    assert main([str(other), str(report), "--out", str(out), "--family", "CLIP"]) == 0
    assert "tiny: uvrb, split unseen has other numbers of queries" in caplog.text
    assert "org/mine         CLIP" in capsys.readouterr().out
    analysis = json.loads((out / "analysis.json").read_text())
    sizes = {name: len(entry["models"]) for name, entry in analysis["correlations"].items()}
    assert sizes == {"all": 17, "CLIP": 7, "MLLM": 10}
    mine = analysis["models"][-1]
    assert (mine["name"], mine["official"]) == ("org/mine", True)
    assert mine["scores"]["AVG-D"] == pytest.approx(0.554)
    assert "| org/mine | CLIP |" in (out / "analysis.md").read_text()
    pictures = {"abilities_spearman", "abilities_pearson", "against_avg-d", "against_avg-a", "models"}
    assert {path.stem for path in out.glob("*.png")} == pictures
    for path in out.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 50
    assert {path.suffix for path in out.iterdir()} == {".png", ".json", ".md"}


def test_reports_on_other_data_stay_apart(tmp_path):
    paths = [write_report(tmp_path / f"{n}.json", f"tiny-{n}", official=False, shift=n / 50) for n in range(3)]
    own = [report_model(path, "MLLM") for path in paths]
    models = join_models(own)
    assert not any(model.official for model in own)
    groups = populations(models)
    assert list(groups) == ["all", "CLIP", "MLLM", "uvrb, split unseen"]
    assert [model.name for model in groups["uvrb, split unseen"]] == ["tiny-0", "tiny-1", "tiny-2"]
    assert len(groups["all"]) == 16
    assert list(populations(models[:-1])) == ["all", "CLIP", "MLLM"]  # two are too few
    analysis = analyse(models)
    ours = analysis["correlations"]["uvrb, split unseen"]["spearman"]
    assert ours["averages"]["MSRVTT"]["AVG-A"] == pytest.approx(1)
    text = to_markdown(analysis)
    assert "| tiny-2 * | MLLM |" in text and "| GVE-7B | MLLM |" in text


def test_a_report_of_some_sets_counts_where_it_can(tmp_path):
    model = report_model(write_report(tmp_path / "part.json", None, names=("CRB-S", "VDC-O", "MS-TI")), "MLLM")
    values = model.values("paper")
    assert (model.name, values["S"]) == ("part", pytest.approx(0.816))
    assert {name for name, value in values.items() if value is not None} == {"CRB-S", "VDC-O", "MS-TI", "S"}
    with_it, alone = (analyse(join_models(own))["correlations"]["all"]["spearman"] for own in ([model], []))
    assert with_it["averages"]["S"] == alone["averages"]["S"]  # it has no average


def test_names_are_kept_apart(tmp_path):
    again = report_model(write_report(tmp_path / "again.json", "GVE-3B"), "MLLM")
    assert join_models([again])[-1].name == "GVE-3B (own)"
    with pytest.raises(ValueError, match=r"reports: two of them are of 'GVE-3B \(own\)'"):
        join_models([again, again])


def test_broken_reports_and_bad_usage_are_named(tmp_path, capsys):
    for changes, message in (
        ({"schema": "gve-embeddings/1"}, "schema 'gve-embeddings/1'"),
        ({"sets": {}}, "not a report with sets"),
        ({"sets": {"MSRVTT": {"score": 0.5}, "K700": {"score": 0.5}}}, "sets ['K700'] are not in UVRB"),
        ({"sets": {"MSRVTT": {"score": 43.1}}}, "score 43.1 of MSRVTT must be in 0..1"),
        ({"sets": {"MSRVTT": {"score": None}}}, "score None of MSRVTT"),
        ({"sets": ["MSRVTT"]}, "not a report with sets"),
    ):
        path = write_report(tmp_path / "bad.json", "bad", **changes)
        told = refused(main, [path], capsys)
        assert told.startswith(f"gve analyze: {path}: ") and message in told
    (tmp_path / "text.json").write_text("no json")
    for arguments, message in (
        ([tmp_path / "none.json"], "cannot be read as JSON"),
        ([tmp_path / "text.json"], "text.json: cannot be read as JSON"),
        (["--out", tmp_path / "text.json"], "--out: cannot write to"),
        (["--out", tmp_path / "no" / "folder"], "--out: cannot write to"),
        (["--family", "RNN"], "--family"),
    ):
        assert main(list(map(str, arguments))) == 2
        assert message in capsys.readouterr().err


def test_correlations_by_hand():
    assert correlation([1, 2, 3], [10, 20, 40]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1], "pearson") == pytest.approx(-1)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation([1, 2], [1, 2]) is None
    assert correlation([0.1 + 0.2, 0.3, 0.3], [1, 2, 3], "pearson") is None  # constant but for rounding
    scores = {name: {"x": first, "y": second} for name, first, second in (("a", 1, 1), ("b", 2, 3), ("c", 3, 2))}
    scores |= {"d": {"x": 9.0, "y": None}, "e": {"y": 9.0}}  # models without a score are left out
    matrix = correlation_matrix(scores, ["x", "y"], ["y", "z"])
    assert matrix == {"x": {"y": pytest.approx(0.5), "z": None}, "y": {"y": pytest.approx(1.0), "z": None}}
