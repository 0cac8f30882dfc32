"""The diagnosis end to end: the paper's models alone, with comparable reports, and with reports on other data."""

import json

import numpy as np
import pytest
from PIL import Image

from gve.eval.analysis import analyse, join_entries, paper_entries, populations, read_report
from gve.eval.analyze_command import main, to_markdown
from gve.eval.heatmaps import draw_models
from gve.eval.paper_tables import set_scores
from gve.hub_datasets.uvrb import SETS


def write_report(path, model, *, official=True, shift=0.0, names=tuple(SETS), **changes):
    """A report as `gve eval` writes it, with the fields that are read here."""
    scores = set_scores()["GVE-3B"]
    sets = {}
    for name in names:
        task = SETS[name]
        size = task.pool_size or task.official_corpus
        sets[name] = {
            "score": round(scores[name] + shift, 4),
            "num_queries": task.official_queries if official else 20,
            "num_candidates": size if official else 12,
        }
    report = {"schema": "gve-report/1", "model": model, "source": "uvrb", "split": "unseen", "sets": sets}
    path.write_text(json.dumps(report | changes))
    return path


def test_one_command_reproduces_the_paper(capsys):
    assert main(["--json"]) == 0
    analysis = json.loads(capsys.readouterr().out)
    counts = {
        key: (value["equal"], value["numbers"]) for key, value in analysis["reproduction"].items() if key != "slips"
    }
    assert counts == {
        "tables_1_2": (168, 176),
        "tables_1_2_plain": (123, 176),
        "table_3": (24, 24),
        "figure_7": (108, 108),
        "figure_7_pearson": (4, 108),
    }
    assert len(analysis["reproduction"]["slips"]) == 20
    assert len(analysis["models"]) == 16
    assert {name: len(entry["models"]) for name, entry in analysis["correlations"].items()} == {
        "all": 16,
        "CLIP": 6,
        "MLLM": 10,
    }
    spearman = analysis["correlations"]["all"]["spearman"]
    assert spearman["averages"]["PR"]["AVG-D"] == pytest.approx(0.96, abs=0.01)
    assert abs(spearman["averages"]["MSRVTT"]["AVG-D"]) < 0.2  # the best-known set predicts least
    matrix = spearman["abilities"]
    for one in matrix:
        assert matrix[one][one] == pytest.approx(1)
        assert all(matrix[one][other] == pytest.approx(matrix[other][one]) for other in matrix)


def test_tables_on_stdout(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "Correlation of abilities, CLIP (6 models), Spearman" in printed
    assert "Tables 1 and 2, abilities and averages by rule `paper`    168      176" in printed
    assert "the printed value is that of UniME-7B" in printed
    assert main(["--rule", "plain"]) == 0
    assert "GVE-7B           MLLM    0.602" in capsys.readouterr().out


def test_a_comparable_report_joins_everything(tmp_path, capsys):
    report = write_report(tmp_path / "mine.json", "org/mine", shift=0.01)
    out = tmp_path / "analysis"
    assert main([str(report), "--out", str(out), "--family", "CLIP"]) == 0
    assert "org/mine         CLIP" in capsys.readouterr().out
    analysis = json.loads((out / "analysis.json").read_text())
    assert {name: len(entry["models"]) for name, entry in analysis["correlations"].items()} == {
        "all": 17,
        "CLIP": 7,
        "MLLM": 10,
    }
    mine = analysis["models"][-1]
    assert (mine["name"], mine["official"]) == ("org/mine", True)
    assert mine["scores"]["AVG-D"] == pytest.approx(0.554)
    assert "| org/mine | CLIP |" in (out / "analysis.md").read_text()
    pictures = {"abilities_spearman", "abilities_pearson", "against_avg-d", "against_avg-a", "figure7", "models"}
    assert {path.stem for path in out.glob("*.png")} == pictures
    for path in out.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 500
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert not [path for path in out.iterdir() if path.suffix not in (".png", ".json", ".md")]


def test_reports_on_other_data_stay_apart(tmp_path, caplog):
    paths = [write_report(tmp_path / f"{n}.json", f"tiny-{n}", official=False, shift=n / 50) for n in range(3)]
    own = [read_report(path, "MLLM") for path in paths]
    entries = join_entries(paper_entries(), own)
    assert not any(entry.official for entry in own)
    groups = populations(entries)
    assert list(groups) == ["all", "CLIP", "MLLM", "uvrb, split unseen"]
    assert [entry.name for entry in groups["uvrb, split unseen"]] == ["tiny-0", "tiny-1", "tiny-2"]
    assert len(groups["all"]) == 16
    assert list(populations(entries[:-1])) == ["all", "CLIP", "MLLM"]  # two are too few
    analysis = analyse(entries)
    ours = analysis["correlations"]["uvrb, split unseen"]["spearman"]
    assert ours["averages"]["MSRVTT"]["AVG-A"] == pytest.approx(1)
    assert "| tiny-2 * | MLLM |" in to_markdown(analysis)
    assert "| GVE-7B | MLLM |" in to_markdown(analysis)
    draw_models(entries, "paper", "title", tmp_path / "models.png")
    assert main([str(paths[0])]) == 0
    assert "tiny-0: uvrb, split unseen has other numbers of queries" in caplog.text


def test_a_report_of_some_sets_counts_where_it_can(tmp_path):
    report = write_report(tmp_path / "part.json", None, names=("CRB-S", "VDC-O", "MS-TI"))
    (entry,) = [read_report(report, "MLLM")]
    assert entry.name == "part"
    values = entry.values("paper")
    assert values["S"] == pytest.approx(0.816)
    assert {name for name, value in values.items() if value is not None} == {"CRB-S", "VDC-O", "MS-TI", "S"}
    correlations = analyse(join_entries(paper_entries(), [entry]))["correlations"]["all"]
    alone = analyse(paper_entries())["correlations"]["all"]
    assert correlations["spearman"]["averages"]["S"] == alone["spearman"]["averages"]["S"]  # it has no average


def test_names_are_kept_apart(tmp_path):
    again = read_report(write_report(tmp_path / "again.json", "GVE-3B"), "MLLM")
    assert join_entries(paper_entries(), [again])[-1].name == "GVE-3B (own)"
    with pytest.raises(ValueError, match=r"reports: 'GVE-3B \(own\)' stands in two of them"):
        join_entries(paper_entries(), [again, again])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "gve-embeddings/1"}, "schema 'gve-embeddings/1'"),
        ({"sets": {}}, "sets none; names of UVRB's sets"),
        ({"sets": {"MSRVTT": {"score": 0.5}, "K700": {"score": 0.5}}}, r"sets \['K700'\]"),
        ({"sets": {"MSRVTT": {"score": 43.1}}}, "score 43.1 of MSRVTT; a number in 0..1"),
        ({"sets": {"MSRVTT": {"score": None}}}, "score None of MSRVTT"),
        ({"sets": ["MSRVTT"]}, "schema 'gve-report/1'"),
    ],
)
def test_broken_reports_are_named(tmp_path, capsys, changes, message):
    path = write_report(tmp_path / "bad.json", "bad", **changes)
    with pytest.raises(ValueError, match=f"bad.json: {message}"):
        read_report(path, "MLLM")
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"gve analyze: {path}")


def test_bad_usage(tmp_path, capsys):
    assert main([str(tmp_path / "none.json")]) == 2
    (tmp_path / "text.json").write_text("no json")
    assert main([str(tmp_path / "text.json")]) == 2
    assert "text.json: cannot be read as JSON" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "text.json")]) == 2
    assert main(["--out", str(tmp_path / "no" / "folder")]) == 2
    assert "--out: cannot write to" in capsys.readouterr().err
    assert main(["--family", "RNN"]) == 2
