import pytest
import yaml
from hub_server import ask_here
from huggingface_hub import DatasetCard, RepoCard
from snippets import ROOT

from gve.hub_datasets.card_parts import feature_table, size_category, slip_lines, source_table
from gve.hub_datasets.schema import pair_features
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.card import archive_card
from gve.hub_datasets.vsynflow.uvrd import UvrdFacts, uvrd_features
from gve.hub_datasets.vsynflow.uvrd_card import uvrd_card as made_uvrd_card
from gve.hub_datasets.world.cards import uvrb_card, uvrd_card

METRIC = (ROOT / "eval" / "video_retrieval" / "README.md").read_text(encoding="utf-8")
ROW = {"metric": "recall@1", "queries": 700, "candidates": 3, "positives": 1, "chance": 0.333}
GATE = {"passed": True, "videos": 0}


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    sets = {split: [{"name": name, **ROW} for name in SETS] for split in ("seen", "unseen")}
    sources = {"corpus": {"CC0-1.0": 3, "CC-BY-4.0": 1}, "others": {"MIT": 1}}
    report = UvrdFacts(captioner="a model", decontamination=GATE, records=5, rows={"t2v": 5}, sources=sources)
    report.licences, report.tokens = {"CC0-1.0": 3, "CC-BY-4.0": 1, "MIT": 1}, {"input": 1, "output": 2}
    return {
        "uvrb": uvrb_card(folder, sets, "seed 5"),
        "uvrd": uvrd_card(folder, {"t2v": 40, "i2v": 2}, "seed 5"),
        "made": made_uvrd_card(folder, report, uvrd_features()),
        "converted": archive_card(folder, []),
        "metric": METRIC,
    }


def test_the_hub_takes_them(cards, hub, monkeypatch):
    ask_here(monkeypatch, hub)
    for name, text in cards.items():
        card = RepoCard(text, ignore_metadata_errors=False)
        card.validate(repo_type="space" if name == "metric" else "dataset")
        assert RepoCard(str(card)).data.to_dict() == card.data.to_dict(), name
        assert text.isascii() and "None" not in card.text, name
    assert len(hub.requests("validate-yaml")) == len(cards), "the Hub was asked"


def test_what_a_data_card_says(cards):
    for name, size in (("uvrb", "10K<n<100K"), ("uvrd", "n<1K"), ("made", "n<1K")):
        card = DatasetCard(cards[name])
        data = card.data.to_dict()
        assert data["license"] and data["configs"] is not None and data["task_categories"] == ["feature-extraction"]
        assert data["size_categories"] == [size]
        for heading in ("## Columns", "## Decontamination", *(() if name == "uvrd" else ("## Known slips",))):
            assert f"\n{heading}" in card.text, name
        assert "\n## How it was made" in card.text or "made by V-SynFlow" in card.text
    for name in ("uvrb", "uvrd"):
        assert "Of the 48 combinations of colour and shape, 12 are in the split `unseen` alone" in cards[name]
        assert "the 60 of shape and action, 8: no training pair shows them." in cards[name]
    for line in ("| corpus | CC0-1.0 | 3 |", "| corpus | CC-BY-4.0 | 1 |", "| others | MIT | 1 |"):
        assert line in cards["made"]
    lines = source_table(SETS.values())
    for task in SETS.values():
        (line,) = [line for line in lines if f"[{task.source.name}](" in line]
        assert task.name in line and task.source.may_rehost in line and line in cards["uvrb"]
    sizes = [size_category(rows) for rows in (0, 999, 1000, 99_999, 10**6)]
    assert sizes == ["n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "n>1M"]
    assert "MS-TI 10, MS-TV 10" in "\n".join(slip_lines(SETS.values()))
    assert "corpus" not in "\n".join(slip_lines([SETS["MSRVTT"]]))
    with pytest.raises(ValueError, match=r"meanings.*group, task"):
        feature_table(pair_features(), dict.fromkeys(set(pair_features()) - {"task", "group"}, "x"))


def test_the_citation_is_of_this_version_and_paper():
    import gve

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["version"] == gve.__version__
    assert cited["license"] == "Apache-2.0" and cited["message"] and cited["authors"]
    paper, readme = cited["references"][0], (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in readme
    names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    assert names in readme
