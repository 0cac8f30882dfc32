"""Tables of a hand-made report."""

import json
from pathlib import Path

from gve.eval.averages import aggregate
from gve.eval.report import to_markdown, to_table
from gve.hub_datasets.uvrb import SETS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "uvrb_tables.json").read_text())


def make_report(model):
    """A report with the paper's scores of a model; its averages unrounded."""
    scores = {name: GOLDEN["table1"][model][name] for name in SETS}
    common = {
        "chance": 0.01,
        "standard_error": 0.0125,
        "chance_error": 0.004,
        "above_chance": True,
        "interval": [0.4, 0.5],
    }
    sets = {
        name: {
            "metric": SETS[name].metric,
            "abilities": list(SETS[name].abilities),
            "score": score,
            "num_queries": SETS[name].official_queries,
            "num_candidates": SETS[name].official_corpus,
            "in_group": None,
            **common,
        }
        for name, score in scores.items()
    }
    values = {name: {"score": value, **common} for name, value in aggregate(scores).items()}
    averages = {name: values.pop(name) for name in ("AVG-D", "AVG-A")}
    return {
        "schema": "gve-report/1",
        "model": model,
        "source": "uvrb",
        "split": "test",
        "sets": sets,
        "abilities": values,
        "averages": averages,
    }


def test_markdown_shows_the_papers_numbers():
    text = to_markdown(make_report("GVE-7B"))
    assert text.startswith("## UVRB scores of `GVE-7B`\n")
    assert "| MSRVTT | TXT CG | recall@1 | 0.464 | 0.013 | 0.400 - 0.500 | 0.010 | 1000 | 1000 | yes |" in text
    for name, value in {**GOLDEN["table2"]["GVE-7B"], "AVG-D": 0.573}.items():
        assert f"| {name} | {value:.3f} | 0.013 | 0.400 - 0.500 | 0.010 | yes |" in text


def test_table_is_aligned():
    lines = to_table(make_report("GVE-3B")).splitlines()
    sets = lines[:17]
    column = sets[0].index("score")
    assert [line[column : column + 5] for line in sets[1:3]] == [
        "0.431",
        f"{GOLDEN['table1']['GVE-3B']['DiDeMo']:.3f}",
    ]
    assert lines[17] == ""
    assert lines[18].split() == ["ability", "score", "SE", "95", "%", "chance", "above", "chance", "plain"]


def test_missing_sets_are_dashes_and_groups_have_rows():
    report = make_report("GVE-3B")
    for name in ("MS-TI", "MS-TV"):
        del report["sets"][name]
    report["abilities"]["CMP"] = report["averages"]["AVG-A"] = report["averages"]["AVG-D"] = None
    report["sets"]["CRB-S"]["in_group"] = {
        "metric": "precision@1",
        "score": 0.25,
        "standard_error": 0.04,
        "chance": 0.25,
        "num_queries": 128,
        "group_size": 4.0,
        "above_chance": False,
    }
    text = to_markdown(report)
    assert "| CMP | - | - | - | - | - | - |" in text
    assert "| AVG-D | - | - | - | - | - | - |" in text
    assert "| CRB-S in group |  | precision@1 | 0.250 | 0.040 | - | 0.250 | 128 | 4 | no |" in text
    assert "MS-TI" not in text


def test_plain_rule_stands_beside():
    scores = GOLDEN["table1"]["GVE-7B"]
    fine = [scores[name] for name, task in SETS.items() if "FG" in task.abilities]
    row = next(line for line in to_table(make_report("GVE-7B")).splitlines() if line.startswith("FG "))
    assert row.split()[-1] == f"{sum(fine) / len(fine):.3f}"
    assert row.split()[-1] != row.split()[1]
