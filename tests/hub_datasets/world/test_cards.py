import io
import re
import sys

import av
import pytest
import yaml
from datasets import Video, load_dataset
from PIL import Image

from gve.hub_datasets.uvrb import SETS, load_set
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import Sizes
from gve.hub_datasets.world.spec import SPLITS

SMALL = Sizes(base=3, groups=1, programs=2, themes=2, longs=2, composed=2)
POOLED = [name for name, task in SETS.items() if task.pool_size is not None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    build_world(root, seed=5, pairs={}, raw=0, workers=1, progress=False, sizes=SMALL)
    return root / "uvrb"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(sys.modules, "torchcodec", None)  # importing it fails, as where it is not installed
        yield


@pytest.fixture(scope="module")
def everything(folder):
    return load_dataset(str(folder))


def plain(rows):
    """Rows with the text and the sizes of the media, which compare."""
    return [
        row | {"image": row["image"] and row["image"].size, "video": row["video"] and len(row["video"]["bytes"])}
        for row in rows
    ]


def test_the_cards_own_lines_run(folder):
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    assert code.count("org/uvrb") == 3
    names = {}
    exec(compile(code.replace("org/uvrb", str(folder)), "card", "exec"), names)
    assert names["queries"].column_names[:3] == ["id", "set", "instruction"]
    assert set(names["queries"]["set"]) == {"MSRVTT"}
    assert {row for rows in names["queries"]["positives"] for row in rows} <= set(names["videos"]["id"])


def test_without_a_configuration_every_query_comes_with_what_it_needs(folder, everything):
    assert list(everything) == list(SPLITS)
    for split, rows in everything.items():
        assert list(dict.fromkeys(rows["set"])) == list(SETS)
        for row in rows:
            task = SETS[row["set"]]
            assert row["instruction"] == task.instruction
            assert tuple(m for m in ("text", "image", "video") if row[m] is not None) == task.query_modalities
            assert row["positives"] and (row["candidates"] is not None) == (row["set"] in POOLED)
            assert set(row["positives"]) <= set(row["candidates"] or row["positives"])
        data = load_set(folder, "LoVR-TH", split)
        told = {row["id"]: row["positives"] for row in rows if row["set"] == "LoVR-TH"}
        for query, found in zip(data.query_ids, data.positives, strict=True):
            assert told[query] == [data.corpus_ids[row] for row in found]


def test_a_set_by_its_name_is_its_part_of_everything_and_bare_queries_hold_their_contents_alone(folder, everything):
    for name in ("MSRVTT", "MSRVTT-I2V", "MS-TI", "LoVR-C2V"):
        rows = load_dataset(str(folder), SETS[name].slug, split="unseen")
        assert plain(rows) == plain(row for row in everything["unseen"] if row["set"] == name)
        rows = load_dataset(str(folder), f"{SETS[name].slug}-queries", split="seen")
        assert rows.column_names == ["id", *SETS[name].query_modalities]


def test_media_read_without_torchcodec(everything):
    row = next(row for row in everything["unseen"] if row["set"] == "MS-TV")
    assert everything["unseen"].features["video"] == Video(decode=False)
    with av.open(io.BytesIO(row["video"]["bytes"])) as video:
        assert sum(1 for _ in video.decode(video=0)) == 16
    row = next(row for row in everything["unseen"] if row["set"] == "MS-TI")
    assert isinstance(row["image"], Image.Image) and row["image"].size == (48, 48)


def test_front_matter_names_every_file_once_for_each_use_and_the_card_the_columns(folder, everything):
    text = (folder / "README.md").read_text()
    card = yaml.safe_load(text.split("---\n")[1])
    (line,) = re.findall(r"^\| `default`, `<set>` \| (.*) \|$", text, flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", line) == everything["seen"].column_names
    names = [config["config_name"] for config in card["configs"]]
    assert len(names) == len(set(names)) == 1 + len(SETS) * 4 + len(POOLED)
    assert [config["config_name"] for config in card["configs"] if config.get("default")] == ["default"]
    named = set()
    for config in card["configs"]:
        assert [part["split"] for part in config["data_files"]] == list(SPLITS)
        for part in config["data_files"]:
            named |= {part["path"]} if isinstance(part["path"], str) else set(part["path"])
    assert named == {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}
    assert card["license"] == "apache-2.0"
