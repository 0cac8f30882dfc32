"""The table of sets against the paper's Tables 4 and 5."""

import ast
import json
from pathlib import Path

import pytest

from gve.hub_datasets.uvrb import ABILITIES, SETS, instructions, resolve

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "hub_datasets" / "uvrb" / "tasks.py"
FOLDERS = ("modeling_gve", "trainers", "hub_datasets", "eval", "model_cards")
CODE = sorted({path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")} - {TABLE})
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "uvrb_tables.json").read_text())


def test_names_and_order():
    assert list(SETS) == GOLDEN["datasets"]
    assert [task.slug for task in SETS.values()] == [name.lower() for name in GOLDEN["datasets"]]


def test_entries_equal_the_paper():
    for name, task in SETS.items():
        asked, counted = GOLDEN["table5"][name], GOLDEN["table4"][name]
        assert (task.instruction, task.metric) == (asked["prompt"], asked["metric"])
        assert list(task.query_modalities) == asked["query_modalities"]
        assert [task.corpus_modality] == asked["corpus_modalities"]
        assert (task.official_queries, task.official_corpus) == (counted["queries"], counted["corpus"])
        assert task.pool_size == (10 if name.startswith("MS-") else None)


def test_instructions_are_those_of_the_paper_by_slug():
    expected = {name.lower(): GOLDEN["table5"][name]["prompt"] for name in GOLDEN["datasets"]}
    assert instructions() == expected and list(instructions()) == list(expected) and len(expected) == 16


def test_abilities_equal_the_paper():
    assert {ability: list(names) for ability, names in ABILITIES.items()} == GOLDEN["ability_datasets"]


def test_resolve_accepts_names_and_slugs():
    assert [task.name for task in resolve(["crb-s", "MSRVTT", "CRB-S"])] == ["CRB-S", "MSRVTT"]
    assert [task.name for task in resolve("lovr-c2v")] == ["LoVR-C2V"]
    assert [task.name for task in resolve()] == GOLDEN["datasets"]


def test_resolve_names_the_nearest():
    with pytest.raises(ValueError, match=r"sets: unknown set 'MSR-VTT'; nearest: msrvtt"):
        resolve(["MSR-VTT"])
    with pytest.raises(ValueError, match=r"unknown set 'CRB_G'; nearest: crb-g"):
        resolve(["CRB_G"])
    with pytest.raises(ValueError, match=r"nearest: none\. Use one of msrvtt, didemo"):
        resolve(["zzzzzzzz"])
    with pytest.raises(ValueError, match="got no name"):
        resolve([])


def test_every_set_has_a_source_with_its_terms():
    used = {task.source.name for task in SETS.values()}
    assert len(used) == 10
    assert {name for name, task in SETS.items() if task.source.name == "CaReBench"} == {"CRB-G", "CRB-S", "CRB-T"}
    for task in SETS.values():
        assert task.source.homepage.startswith("https://") and all(vars(task.source).values())
        assert task.source.may_rehost in ("nothing", "annotations", "annotations and some videos")
    free = {task.source.name for task in SETS.values() if "videos" in task.source.may_rehost}
    assert free == {"DiDeMo"}  # the only one with videos under CC BY and BY-SA


def test_no_second_list_of_the_sets():
    """Whatever needs the sets takes them from the table; a part of them may be named for what it alone is."""
    known = {name.lower() for name in SETS}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict | ast.List | ast.Set | ast.Tuple | ast.Call):
                words = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                assert len({word.lower() for word in words} & known) < len(known) / 2, f"{path}, line {node.lineno}"
