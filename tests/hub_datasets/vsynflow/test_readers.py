import io
import json
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Value, Video

from gve.hub_datasets.vsynflow.readers import Source, read_source
from gve.hub_datasets.vsynflow.records import read_video
from gve.hub_datasets.vsynflow.shards import make_plan


def read(tmp_path, kind, path, **options):
    source = Source(kind, str(path), "test", "CC0", **options)
    return list(read_source(source, tmp_path / "run"))


def test_folder(tmp_path):
    deep = tmp_path / "corpus" / "\u00fcn\u00efcode \u7403" / ("x" * 200)
    deep.mkdir(parents=True)
    (deep / "b.MP4").write_bytes(b"video b")
    (deep / "b.txt").write_text(" a ball \n", encoding="utf-8")
    (tmp_path / "corpus" / "a#1.webm").write_bytes(b"video a")
    (tmp_path / "corpus" / "a#1.json").write_text('{"text": "a box"}')
    (tmp_path / "corpus" / "c.mp4").write_bytes(b"video c")
    (tmp_path / "corpus" / "c.json").write_text("{broken")
    (tmp_path / "corpus" / "notes.pdf").write_bytes(b"")
    rows = read(tmp_path, "folder", tmp_path / "corpus")
    assert [row["text"] for row in rows] == ["a box", "", "a ball"]
    assert "#" not in rows[0]["id"]
    assert rows[2]["id"].startswith("\u00fcn\u00efcode \u7403/")
    assert [read_video(row) for row in rows] == [b"video a", b"video c", b"video b"]
    assert {(row["source"], row["licence"], row["parent"]) for row in rows} == {("test", "CC0", None)}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_manifest(tmp_path, suffix):
    table = pa.table(
        {"name": ["x", "y"], "file": ["v/1.mp4", "v/2.mp4"], "title": ["eins, zwei", None], "licence": ["BY", ""]}
    )
    path = tmp_path / f"titles.{suffix}"
    if suffix == "csv":
        path.write_text('name,file,title,licence\nx,v/1.mp4,"eins, zwei",BY\ny,v/2.mp4,,\n')
    else:
        pq.write_table(table, path)
    rows = read(tmp_path, "manifest", path, id_column="name", video_column="file", text_column="title")
    assert [(row["id"], row["text"], row["licence"]) for row in rows] == [("x", "eins, zwei", "BY"), ("y", "", "CC0")]
    assert rows[0]["video"]["path"] == str((tmp_path / "v/1.mp4").resolve())
    with pytest.raises(ValueError, match="no 'video' in row 0"):
        read(tmp_path, "manifest", path)


def test_webdataset_members_are_read_in_place(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (
            ("k/1.mp4", b"first"),
            ("k/1.txt", b"one"),
            ("k/2.json", json.dumps({"text": "two"}).encode()),
            ("k/2.mp4", b"second"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    rows = read(tmp_path, "webdataset", tmp_path)
    assert [(row["id"], row["text"], read_video(row)) for row in rows] == [
        ("a.tar/k/1", "one", b"first"),
        ("a.tar/k/2", "two", b"second"),
    ]


def test_dataset_videos_are_written_once(tmp_path):
    features = Features({"video": Video(decode=False), "text": Value("string")})
    rows = {"video": [{"bytes": b"same", "path": None}] * 2, "text": ["a", "b"]}
    (tmp_path / "data").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    found = read(tmp_path, "dataset", tmp_path / "data")
    assert [read_video(row) for row in found] == [b"same", b"same"]
    assert len([path for path in (tmp_path / "run" / "media").rglob("*") if path.is_file()]) == 1


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not there"):
        read(tmp_path, "folder", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="folder, manifest, webdataset, dataset are accepted"):
        read(tmp_path, "zip", tmp_path)


def test_a_manifest_of_100k_rows_is_planned_in_seconds(tmp_path):
    rows = range(100_000)
    pq.write_table(
        pa.table({"video": [f"v/{i}.mp4" for i in rows], "text": [f"text {i}" for i in rows]}), tmp_path / "m.parquet"
    )
    source = Source("manifest", str(tmp_path / "m.parquet"), "test", "CC0")
    start = time.process_time()
    plan = make_plan(tmp_path / "run", read_source(source, tmp_path / "run"), source.describe())
    assert plan.rows == 100_000
    assert time.process_time() - start < 10
