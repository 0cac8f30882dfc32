import json
from pathlib import Path

import pytest

from gve.hub_datasets.uvrb import ABILITIES, SETS, instructions, resolve

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "uvrb_tables.json").read_text())


def test_entries_and_abilities_equal_the_paper():
    assert list(SETS) == GOLDEN["datasets"] and len(SETS) == 16
    assert [task.slug for task in SETS.values()] == [name.lower() for name in GOLDEN["datasets"]]
    assert list(instructions().items()) == [(task.slug, task.instruction) for task in SETS.values()]
    assert {ability: list(names) for ability, names in ABILITIES.items()} == GOLDEN["ability_datasets"]
    for name, task in SETS.items():
        asked, counted = GOLDEN["table5"][name], GOLDEN["table4"][name]
        assert (task.instruction, task.metric) == (asked["prompt"], asked["metric"])
        assert list(task.query_modalities) == asked["query_modalities"]
        assert [task.corpus_modality] == asked["corpus_modalities"]
        assert (task.official_queries, task.official_corpus) == (counted["queries"], counted["corpus"])
        assert task.pool_size == (10 if name.startswith("MS-") else None)


def test_resolve_accepts_names_and_slugs():
    assert [task.name for task in resolve(["crb-s", "MSRVTT", "CRB-S"])] == ["CRB-S", "MSRVTT"]
    assert [task.name for task in resolve("lovr-c2v")] == ["LoVR-C2V"]
    assert [task.name for task in resolve()] == GOLDEN["datasets"]


def test_resolve_names_the_nearest():
    for names, message in (
        (["MSR-VTT"], "sets: unknown set 'MSR-VTT'; nearest: msrvtt"),
        (["CRB_G"], "unknown set 'CRB_G'; nearest: crb-g"),
        (["zzzzzzzz"], r"nearest: none\. Use one of msrvtt, didemo"),
        ([], "got no name"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(names)


def test_every_set_has_a_source_with_its_terms():
    used = {task.source.name for task in SETS.values()}
    assert len(used) == 10
    assert {name for name, task in SETS.items() if task.source.name == "CaReBench"} == {"CRB-G", "CRB-S", "CRB-T"}
    for task in SETS.values():
        assert task.source.homepage.startswith("https://") and all(vars(task.source).values())
        assert task.source.may_rehost in ("nothing", "annotations", "annotations and some videos")
    free = {task.source.name for task in SETS.values() if "videos" in task.source.may_rehost}
    assert free == {"DiDeMo"}  # the only one with videos under CC BY and BY-SA
