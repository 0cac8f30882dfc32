"""`gve leaderboard`: the paper's rows and the reports', their marks, and a page that loads nothing."""

import json
from html.parser import HTMLParser

import pytest
from hand_report import GOLDEN, make_report
from refusing import refused

from gve.eval.charts import draw_radars
from gve.eval.leaderboard import build_rows, to_html
from gve.eval.leaderboard_command import main
from gve.hub_datasets.uvrb import SETS

SETTINGS = {"num_frames": 8, "frame_tokens": 200, "instructions": "uvrb"}
VOID = ("meta", "img")


class Page(HTMLParser):
    """Rows of cells, attributes that could load something, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.loads, self.open, self.tags = [], [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def reports(tmp_path):
    """Under the paper's settings, under others, and on other data."""
    official = make_report("GVE-7B") | {"settings": SETTINGS}
    for name, entry in official["sets"].items():
        entry["num_candidates"] = SETS[name].pool_size or entry["num_candidates"]
    other = official | {"model": "<b>", "settings": SETTINGS | {"num_frames": 16, "videos": "frames averaged"}}
    world = json.loads(json.dumps(official | {"model": "tiny", "source": "world", "split": "unseen"}))
    world["sets"]["MSRVTT"]["num_queries"] = 3
    paths = []
    for name, report in (("official", official), ("other", other), ("world", world)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(report))
    return paths


def test_both_pages(reports, tmp_path, capsys):
    assert main([*map(str, reports), "--out", str(tmp_path / "board")]) == 0
    markdown = (tmp_path / "board" / "leaderboard.md").read_text()
    assert capsys.readouterr().out == markdown
    assert "1. num_frames 16 (paper: 8)\n2. videos frames averaged (paper: whole videos)" in markdown
    assert "| <b> (own) [1] [2] | 0.573 [0.400-0.500] |" in markdown
    page = Page((tmp_path / "board" / "leaderboard.html").read_text())
    assert "script" not in page.tags and "b" not in page.tags
    assert [load[:22] for load in page.loads] == ["data:image/png;base64,"]
    names = [row[0] for row in page.rows if row[0] != "model"]
    assert names[0] == "tiny (own)" and len(names) == 2 * (1 + 2 + 16)  # other data apart, two tables each
    own = next(row for row in page.rows if row[0] == "GVE-7B (own)")
    assert own[1].startswith("0.573[0.400-0.500]")
    paper = next(row for row in page.rows if row[0] == "GVE-7B")
    assert paper[1] == "0.573" and float(paper[3]) == GOLDEN["table2"]["GVE-7B"]["TXT"]


def test_sorted_and_complete(reports):
    rows = build_rows(reports[:1])
    averages = [row.values["AVG-D"] for row in rows]
    assert averages == sorted(averages, reverse=True) and len(rows) == 17
    assert "img" not in Page(to_html(rows)).tags


def test_refuses_what_is_no_report(reports, tmp_path, capsys):
    reports[0].write_text("{}")
    assert "not a report with sets" in refused(main, [reports[0], "--out", tmp_path / "board"], capsys)
    assert "--out: cannot write to" in refused(main, [reports[1], "--out", reports[1]], capsys)


def test_a_radar_needs_three_abilities_in_common(reports, tmp_path):
    first, second = (json.loads(path.read_text()) for path in reports[:2])
    draw_radars({"A": first, "B": second}, tmp_path / "radar.png")
    assert (tmp_path / "radar.png").stat().st_size > 10_000
    second["abilities"] = dict.fromkeys(second["abilities"])
    with pytest.raises(ValueError, match="radar: 0 abilities"):
        draw_radars({"A": first, "B": second}, tmp_path / "none.png")
