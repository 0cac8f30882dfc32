import hashlib
import json

import pytest
from datasets import load_dataset

from gve.hub_datasets.schema import TASKS, pair_features
from gve.hub_datasets.uvrb import SETS, load_set
from gve.hub_datasets.world import build as build_module
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import Sizes, build_sets
from gve.hub_datasets.world.world_command import main

PAIRS = dict.fromkeys(TASKS, 6)
SMALL = Sizes(base=4, groups=2, programs=3, themes=4, longs=2, composed=2)


def build(folder, **changes):
    arguments = {"seed": 3, "pairs": PAIRS, "raw": 3, "workers": 1, "progress": False, "sizes": SMALL} | changes
    return build_world(folder, **arguments)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return folder, build(folder)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(build_module, "_RAW_PART", 2)


def test_every_task_loads(world, tmp_path):
    for task in TASKS:
        rows = load_dataset(str(world[0] / "uvrd"), task, split="train", cache_dir=str(tmp_path))
        assert set(rows["task"]) == {task} and len(rows) == 6
        assert rows.features == pair_features()


@pytest.mark.parametrize("split", ["seen", "unseen"])
def test_every_set_loads_with_its_positives(world, split):
    for name, mini in build_sets(split, 3, SMALL).items():
        loaded = load_set(world[0] / "uvrb", name, split)
        assert loaded.corpus_ids == list(mini.corpus) and loaded.query_ids == list(mini.queries)
        for query, rows in zip(loaded.query_ids, loaded.positives, strict=True):
            assert tuple(loaded.corpus_ids[row] for row in rows) == mini.positives[query]
        assert (loaded.pools is not None) == (SETS[name].pool_size is not None)
        assert loaded.corpus[0]["video"]["bytes"][4:8] == b"ftyp"


def test_numbers_are_written_down_and_videos_have_plain_names(world):
    folder, returned = world
    assert json.loads((folder / "world.json").read_text()) == returned
    chance = {row["name"]: row["chance"] for row in returned["sets"]["unseen"]}
    assert (chance["MSRVTT"], chance["CRB-T"], chance["MS-TV"]) == (0.25, 0.125, 0.1)
    assert "| CRB-T | recall@1 | 8 | 8 | 1 | 0.125 |" in (folder / "uvrb" / "README.md").read_text()
    videos = {path.name: path.read_bytes() for path in (folder / "uvrb" / "videos").iterdir()}
    assert len(set(videos.values())) == len(videos) == 4 + 8 + 8 + 9 + 8 + 2 + 2 * 10 + 2 * 10
    assert "crb-s-g01-2.mp4" in videos


def test_shards_join_to_the_same_rows(world, tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "SHARD_ROWS", 5)
    build(tmp_path / "shards", pairs={"t2i": 6}, sets=False, raw=0)
    assert len(list((tmp_path / "shards").rglob("train-*-of-00002.parquet"))) == 2
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    joined = load_dataset(str(tmp_path / "shards" / "uvrd"), "t2i", **options)
    assert joined.to_list() == load_dataset(str(world[0] / "uvrd"), "t2i", **options).to_list()


def test_an_interrupted_build_goes_on_in_two_processes_to_the_same_bytes(world, tmp_path, monkeypatch):
    folder = tmp_path / "cut"
    real = build_module.write_rows

    def fail_on_the_third(path, rows, features):
        if path.parent.name == "t2v":
            path.parent.mkdir(parents=True)
            path.with_name(path.name + ".7.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        real(path, rows, features)

    monkeypatch.setattr(build_module, "write_rows", fail_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(folder)
    kept = folder / "uvrd" / "t2i" / "train-00000-of-00001.parquet"
    before = kept.stat().st_mtime_ns
    monkeypatch.setattr(build_module, "write_rows", real)
    build(folder, workers=2)
    assert kept.stat().st_mtime_ns == before and digest(folder) == digest(world[0])


def test_another_world_in_the_same_folder_and_unknown_tasks_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match="built with other arguments"):
        build(world[0], seed=4)
    with pytest.raises(ValueError, match="got task 'v2t'"):
        build(tmp_path, pairs={"v2t": 3})
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, capsys):
    code = main([str(tmp_path), "--pairs-scale", "0.001", "--raw", "1", "--no-sets", "--workers", "1", "--quiet"])
    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["arguments"]["pairs"] == {"t2t": 3, "t2i": 4, "t2v": 12, "ti2v": 3, "tv2v": 2, "i2v": 2, "v2v": 2}
    assert (tmp_path / "raw" / "titles.csv").exists()
