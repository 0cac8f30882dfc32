"""A UVRD of one row whose target is stored apart: what is unpacked, what stays, and what is refused."""

import pytest
from datasets import Dataset

from gve.hub_datasets.pair_media import load_pairs, media_name, named_media, stored_features
from gve.hub_datasets.schema import media, pair_features

CLIP, STILL = b"a clip", b"a picture"
NAME, OTHER = media_name(CLIP, ".MKV"), media_name(STILL, ".png")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "gve-media"


def write(folder, *, named=(NAME, OTHER), stored=((NAME, None, CLIP), (OTHER, STILL, None))):
    video, image = ({"bytes": None, "path": name} for name in named)
    row = dict.fromkeys(pair_features()) | {"id": "i2v-1", "task": "i2v", "query_facts": [], "target_facts": []}
    row |= {
        "query": media() | {"image": image},
        "target": media() | {"video": video},
        "negatives": [media(video=b"own")],
    }
    Dataset.from_list([row], features=pair_features()).to_parquet(folder / "i2v" / "train-0.parquet")
    rows = [media(None, *files) | {"name": name} for name, *files in stored]
    rows = [{key: row[key] for key in stored_features()} for row in rows]
    Dataset.from_list(rows, features=stored_features()).to_parquet(folder / "media" / "train-0.parquet")
    configs = [
        f"- config_name: {name}\n  data_files: [{{split: train, path: {name}/*.parquet}}]\n"
        for name in ("i2v", "media")
    ]
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    return str(folder)


def test_media_are_unpacked_once_and_restored_if_they_are_gone(tmp_path, cache):
    assert NAME.endswith(".mkv") and media_name(CLIP, "a b") == media_name(CLIP, ".mp4")
    folder = write(tmp_path / "uvrd")
    assert named_media(tmp_path / "uvrd" / "i2v" / "train-0.parquet") == {NAME, OTHER}
    (row,) = load_pairs(folder, ["i2v"])["i2v"]
    video, image = cache / NAME[:2] / NAME, cache / OTHER[:2] / OTHER
    assert row["target"]["video"] == {"bytes": None, "path": str(video)} and video.read_bytes() == CLIP
    assert row["query"]["image"]["path"] == str(image) and image.read_bytes() == STILL
    assert row["negatives"][0]["video"] == {"bytes": b"own", "path": None}
    video.unlink()
    kept = image.stat().st_mtime_ns
    assert load_pairs(write(tmp_path / "moved"), ["i2v"])["i2v"][0] == row
    assert video.read_bytes() == CLIP and image.stat().st_mtime_ns == kept


def test_damaged_foreign_and_missing_media_are_refused(tmp_path, cache):
    evil = "../../../" + NAME
    for number, (named, stored, match) in enumerate(
        (
            ((NAME, OTHER), [(NAME, None, CLIP[:-1]), (OTHER, STILL, None)], f"media: '{NAME}' is damaged"),
            ((NAME, OTHER), [(NAME, None, None)], "is damaged"),
            ((NAME, OTHER), [(evil, None, CLIP)], r"media: names must be a digest and a suffix, got '\.\./"),
            ((evil, OTHER), [(NAME, None, CLIP), (OTHER, STILL, None)], "must be a digest and a suffix"),
            (
                (NAME, media_name(b"lost", ".png")),
                [(NAME, None, CLIP)],
                r"row 'i2v-1' names .*\.png, which .* not hold",
            ),
        )
    ):
        folder = write(tmp_path / str(number), named=named, stored=stored)
        with pytest.raises(ValueError, match=match):
            load_pairs(folder, ["i2v"])
    assert not [path for path in tmp_path.rglob("*.mkv") if cache not in path.parents]
