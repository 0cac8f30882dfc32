import gzip
import io
import os
import tarfile
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gve.hub_datasets.vsynflow.quality.duplicates import Duplicates
from gve.hub_datasets.vsynflow.readers import RawCorpus, read_corpus, read_items
from gve.hub_datasets.vsynflow.records import read_place
from gve.hub_datasets.vsynflow.shards import make_plan


def read(tmp_path, kind, path, **options):
    source = RawCorpus(kind, str(path), "test", "CC0", **options)
    return list(read_corpus(source, tmp_path / "run"))


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
    assert [read_place(row["video"]) for row in rows] == [b"video a", b"video c", b"video b"]
    assert {(row["source"], row["licence"], row["parent"]) for row in rows} == {("test", "CC0", None)}


def test_a_folder_is_read_by_content_and_what_is_passed_over_is_counted(tmp_path, caplog):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    transport = (b"\x47" + bytes(187)) * 6
    (corpus / "00001.MTS").write_bytes(transport)
    (corpus / "1.m2ts").write_bytes(transport)
    (corpus / "2 without suffix").write_bytes(transport)
    (corpus / "3.mp4").write_bytes(b"\xff\xd8\xff a picture")
    still, moving = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "red")
    still.save(corpus / "4.gif")
    still.save(corpus / "5.gif", save_all=True, append_images=[moving])
    (corpus / "6.pdf").write_bytes(b"")
    (corpus / "00001.TXT").write_bytes("\ufeffa box\n".encode("utf-16-le"))
    (corpus / os.fsdecode(b"7\xe9.mts")).write_bytes(transport)
    rows = read(tmp_path, "folder", corpus)
    assert [row["id"] for row in rows] == ["00001.MTS", "1.m2ts", "2 without suffix", "5.gif"]
    assert [row["text"] for row in rows] == ["a box", "", "", ""]
    assert "7\\udce9.mts': its name is not UTF-8" in caplog.text
    assert caplog.records[-1].getMessage().endswith(".mp4 (1), .gif (1), .pdf (1), no UTF-8 (1)")
    assert make_plan(tmp_path / "run", rows, {}).rows == 4


@pytest.mark.parametrize("kind", ["folder", "manifest", "webdataset"])
def test_a_corpus_without_videos_is_refused(tmp_path, kind):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.pdf").write_bytes(b"")
    (tmp_path / "corpus" / "a.csv").write_text("video,text\n")
    with tarfile.open(tmp_path / "corpus" / "a.tar", "w"):
        pass
    path = tmp_path / "corpus" / {"folder": "", "manifest": "a.csv", "webdataset": "a.tar"}[kind]
    passed = r"\(passed over: .*\.pdf \(1\)" if kind == "folder" else r"\(passed over: nothing\)"
    source = RawCorpus(kind, str(path), "test", "CC0")
    with pytest.raises(ValueError, match=f"gives no video.*{passed}"):
        make_plan(tmp_path / "run", read_corpus(source, tmp_path / "run"), asdict(source))
    assert not (tmp_path / "run" / "plan.json").exists()


def test_webdataset_members_are_read_in_place_whatever_their_suffix_and_case(tmp_path):
    moving = io.BytesIO()
    Image.new("RGB", (4, 4)).save(moving, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")])
    content = {
        "k/1.MTS": b"first",
        "k/1.TXT": b"one",
        "k/1.jpg": b"\xff\xd8\xff",
        "2.json": b'{"text": ["two", "a two", "two two"]}',
        "2.gif": moving.getvalue(),
        os.fsdecode(b"3\xe9.mp4"): b"third",
        "4.mp4": b"fourth",
    }
    path = tmp_path / "A.TAR"
    with tarfile.open(path, "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    rows = read(tmp_path, "webdataset", tmp_path)
    assert [(row["id"], row["text"], read_place(row["video"])) for row in rows] == [
        ("A.TAR/k/1", "one", b"first"),
        ("A.TAR/2", "two", moving.getvalue()),
        ("A.TAR/4", "", b"fourth"),
    ]
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match="cannot be read as a plain tar file"):
        read(tmp_path, "webdataset", tmp_path)


CAPTIONS = ["a cat", "a man plays a guitar", "a man plays an old guitar", "a man sits and plays a guitar"]


def test_of_several_captions_the_typical_one_is_planned_and_all_are_fingerprinted(tmp_path):
    """One record a caption would not survive: `Duplicates` drops all but the first record of a video."""
    table = pa.table({"video": ["1.mp4", "2.mp4"], "text": [CAPTIONS, [None, "b"]]})
    pq.write_table(table, tmp_path / "m.parquet")
    rows = read(tmp_path, "manifest", tmp_path / "m.parquet")
    assert [(row["id"], row["text"]) for row in rows] == [("1.mp4", "a man plays a guitar"), ("2.mp4", "b")]
    source = RawCorpus("manifest", str(tmp_path / "m.parquet"), "test", "CC0")
    items = list(read_items(source, tmp_path))
    assert [item["texts"] for item in items] == [CAPTIONS, ["b"]]
    assert items[0]["ids"] == ["1.mp4", str(tmp_path / "1.mp4")]
    twice = [{**rows[0], "digest": "x", "hashes": ["0" * 64] * 8, "mirrored": ["f" * 64] * 8} for _ in range(2)]
    first, second = Duplicates().run(twice, None)
    assert Duplicates().judge(second.columns) and not Duplicates().judge(first.columns)


def test_what_is_not_there_is_said(tmp_path):
    for kind, path, match in (
        ("folder", tmp_path / "nowhere", "nowhere does not exist"),
        ("zip", tmp_path, "folder, manifest, webdataset, dataset, got"),
        ("folder", tmp_path / os.fsdecode(b"\xe9"), r"path: got '.*\\udce9', which is not UTF-8"),
    ):
        with pytest.raises(ValueError, match=match):
            read(tmp_path, kind, path)
    (tmp_path / "m.csv").write_text(f"video,text\n{'x' * 999}.mp4,a\n{'x' * 999}.mp4,b\n")
    with pytest.raises(ValueError, match="twice") as caught:
        make_plan(tmp_path / "run", read(tmp_path, "manifest", tmp_path / "m.csv"), {})
    assert len(str(caught.value)) < 400


def test_a_large_manifest_is_planned_shard_by_shard(tmp_path):
    columns = {"video": [f"v/{i}.mp4" for i in range(30_000)], "text": [f"text {i}" for i in range(30_000)]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    plan = make_plan(tmp_path / "run", read(tmp_path, "manifest", tmp_path / "m.parquet"), {}, shard_rows=8000)
    assert [shard.rows for shard in plan.shards] == [8000, 8000, 8000, 6000] and plan.rows == 30_000
