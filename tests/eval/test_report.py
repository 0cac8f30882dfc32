"""Tables and charts of a hand-made report."""

import numpy as np
import pytest
from hand_report import GOLDEN, make_report
from PIL import Image

from gve.eval.charts import draw_radar, draw_scaling
from gve.eval.report import to_markdown, to_table, write_report
from gve.hub_datasets.uvrb import SETS


def make_curve():
    """A report over frames and tokens, the second setting with the scores of the smaller model."""
    report = make_report("GVE-7B")
    points = [(4, 8, "GVE-7B"), (2, 8, "GVE-3B")]
    report["scaling"] = [
        {"num_frames": frames, "frame_tokens": tokens, "throughput": {"encode_seconds": 1.23}} | make_report(model)
        for frames, tokens, model in points
    ]
    return report


def test_markdown_shows_the_papers_numbers():
    text = to_markdown(make_report("GVE-7B"))
    assert text.startswith("## UVRB scores of `GVE-7B`\n")
    assert "| MSRVTT | TXT CG | recall@1 | 0.464 | 0.013 | 0.400 - 0.500 | 0.010 | 1000 | 1000 | yes |" in text
    for name, value in {**GOLDEN["table2"]["GVE-7B"], "AVG-D": 0.573}.items():
        assert f"| {name} | {value:.3f} | 0.013 | 0.400 - 0.500 | 0.010 | yes |" in text


def test_table_is_aligned_and_has_the_plain_rule_beside():
    lines = to_table(make_report("GVE-7B")).splitlines()
    scores, column = GOLDEN["table1"]["GVE-7B"], lines[0].index("score")
    assert [line[column : column + 5] for line in lines[1:17]] == [f"{scores[name]:.3f}" for name in SETS]
    assert lines[17] == ""
    fine = np.mean([scores[name] for name, task in SETS.items() if "FG" in task.abilities])
    row = next(line for line in lines if line.startswith("FG "))
    assert f"{fine:.3f}" == row.split()[-1] != row.split()[1]


def test_missing_sets_are_dashes_and_groups_have_rows():
    report = make_report("GVE-3B")
    for name in ("MS-TI", "MS-TV"):
        del report["sets"][name]
    report["abilities"]["CMP"] = report["averages"]["AVG-A"] = report["averages"]["AVG-D"] = None
    group = {"metric": "precision@1", "score": 0.25, "standard_error": 0.04, "chance": 0.25, "num_queries": 128}
    report["sets"]["CRB-S"]["in_group"] = group | {"group_size": 4.0, "above_chance": False}
    text = to_markdown(report)
    assert "| CMP | - | - | - | - | - | - |" in text
    assert "| AVG-D | - | - | - | - | - | - |" in text
    assert "| CRB-S in group |  | precision@1 | 0.250 | 0.040 | - | 0.250 | 128 | 4 | no |" in text
    assert "MS-TI" not in text


def test_every_file_is_written(tmp_path):
    report = make_curve()
    written = write_report(report, tmp_path)
    assert [path.name for path in written] == ["report.json", "report.md", "bars.png", "radar.png", "scaling.png"]
    for path in written[2:]:
        assert np.asarray(Image.open(path)).std() > 10
    text = written[1].read_text()
    assert "| frames | tokens a frame | TXT |" in text
    assert f"| 2 | 8 | {GOLDEN['table2']['GVE-3B']['TXT']:.3f} |" in text


def test_what_cannot_be_drawn_is_refused(tmp_path):
    report = make_curve()
    with pytest.raises(ValueError, match="scaling: 1 settings; at least two"):
        draw_scaling(report | {"scaling": report["scaling"][:1]}, tmp_path / "s.png")
    report["abilities"] = {name: report["abilities"][name] for name in ("LC", "CMP")}
    with pytest.raises(ValueError, match=r"radar: 2 abilities have all their sets \(CMP, LC\); at least 3"):
        draw_radar(report, tmp_path / "radar.png")
    assert not list(tmp_path.iterdir())
