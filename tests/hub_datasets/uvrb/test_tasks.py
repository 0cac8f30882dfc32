"""The table of sets against the paper's Tables 4 and 5."""

import json
from pathlib import Path

import pytest

from gve.hub_datasets.uvrb import ABILITIES, SETS, resolve

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "uvrb_tables.json").read_text())


def test_names_and_order():
    assert list(SETS) == GOLDEN["datasets"]
    assert [task.slug for task in SETS.values()] == [name.lower() for name in GOLDEN["datasets"]]


@pytest.mark.parametrize("name", GOLDEN["datasets"])
def test_entry_equals_the_paper(name):
    task, asked, counted = SETS[name], GOLDEN["table5"][name], GOLDEN["table4"][name]
    assert task.instruction == asked["prompt"]
    assert task.metric == asked["metric"]
    assert list(task.query_modalities) == asked["query_modalities"]
    assert [task.corpus_modality] == asked["corpus_modalities"]
    assert (task.official_queries, task.official_corpus) == (counted["queries"], counted["corpus"])
    assert task.pool_size == (10 if name.startswith("MS-") else None)


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
    with pytest.raises(ValueError, match="nearest: none; use one of msrvtt, didemo"):
        resolve(["zzzzzzzz"])
    with pytest.raises(ValueError, match="got no name"):
        resolve([])
