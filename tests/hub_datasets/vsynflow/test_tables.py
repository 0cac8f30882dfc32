"""Tables of videos: every usual kind, encoding and cell is read, or refused by name."""

import base64
import bz2
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Image, Value, Video

from gve.hub_datasets.vsynflow.readers import RawCorpus, read_corpus
from gve.hub_datasets.vsynflow.records import Refused, read_place
from gve.hub_datasets.vsynflow.synth_command import main

ROWS = [{"id": "007", "video": "v/1.mp4", "text": "caf\u00e9, NA"}, {"id": "8", "video": "v/2.mp4", "text": "NA"}]


def read(path, kind="manifest", **options):
    source = RawCorpus(kind, str(path), "test", "CC0", **{"id_column": "id"} | options)
    rows = list(read_corpus(source, path.parent / "run"))
    for row in rows:
        if isinstance(row, Refused):
            raise ValueError(row.message)
    return rows


def texts(rows):
    return [(row["id"], row["text"]) for row in rows]


def csv_text(separator=","):
    lines = [separator.join(f'"{row[name]}"' for name in ("id", "video", "text")) for row in ROWS]
    return "\n".join([separator.join(("id", "video", "text")), *lines, ""])


LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
TABLE = pa.Table.from_pylist(ROWS)


def arrow_bytes():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write(TABLE)
    return sink.getvalue().to_pybytes()


def parquet_bytes():
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("T.CSV", csv_text().encode()),
        ("a [1]* b.csv", csv_text().encode("utf-8-sig")),
        ("t.csv", csv_text(";").encode("utf-16")),
        ("t.tsv", csv_text("\t").encode()),
        ("t.TSV.gz", gzip.compress(csv_text("\t").encode(), mtime=0)),
        ("t.csv.bz2", bz2.compress(csv_text().encode())),
        ("t.jsonl", LINES.encode()),
        ("t.ndjson.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("t.JSON", json.dumps(ROWS).encode()),
        ("t.json", json.dumps(ROWS).encode("utf-8-sig")),
        ("t.arrow", arrow_bytes()),
        ("t.PARQUET", parquet_bytes()),
    ],
    ids=str,
)
def test_every_usual_table_gives_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    rows = read(tmp_path / name)
    assert texts(rows) == texts(ROWS)
    assert [row["video"]["path"] for row in rows] == [str(tmp_path / row["video"]) for row in ROWS]


def test_another_encoding_is_named_by_row_and_read_when_given(tmp_path):
    for name, content in (("t.csv", csv_text()), ("t.jsonl", LINES)):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=r"row 0 of .* is not text .*--encoding"):
            read(tmp_path / name)
        assert texts(read(tmp_path / name, encoding="cp1252")) == texts(ROWS)
    with pytest.raises(ValueError, match=r"encoding must .*got 'klingon'"):
        read(tmp_path / "t.csv", encoding="klingon")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("t.xlsx", b"", r"path must be a table \(\.csv, \.tsv.*got '.*t\.xlsx'"),
        ("t", b"", "path must be a table"),
        ("t.csv", b"", "cannot be read as csv"),
        ("t.parquet", b"video", "cannot be read as parquet"),
        ("t.jsonl", b'{"id": "1", "video": "a", "text": "b"}\n{"id": ', "cannot be read as json"),
        ("t.csv", b"id,video,text\n1,a.mp4,a man, a dog\n", "row 0 has more cells than the 3 of the header"),
        ("t.csv", b"id,video,text\n1,a.mp4,x\n2,b.mp4,a man, a dog\n", "cannot be read as csv .*line 3, saw 4"),
        ("t.csv.gz", gzip.compress(csv_text().encode(), mtime=0)[:-9], "cannot be read as csv"),
        ("t.csv.gz", b"no gzip", "cannot be read as csv"),
        ("t.json", json.dumps({"1": ROWS[0]}).encode(), "column 'video' is not in row 0"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read(tmp_path / name)


LONG = "data:video/mp4;base64," + base64.b64encode(b"data" * 9000).decode()


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"text": {"caption": "x"}}, r"text must .*got dict .* in row 0 of"),
        ({"text": 7}, r"text must .*got int 7 in row 0 "),
        ({"text": [["x"]]}, r"text must .*got list"),
        ({"video": ["a.mp4"]}, r"video must .*got list .* in row 0 of"),
        ({"video": None}, r"video must .*got nothing in row 0"),
        ({"video": {"bytes": None, "path": None}}, "video: row 0 of .*one of them must be set"),
        ({"video": LONG[:-2] + "!"}, "video: row 0 of .*data address that cannot be read"),
        ({"id": None}, r"id must .*got nothing in row 0"),
        ({"id": 1.5}, r"id must .*got float 1.5"),
        ({"id": True}, r"id must .*got bool True"),
        ({"licence": [LONG]}, r"licence must .*got list"),
    ],
)
def test_cells_of_other_types_are_refused_by_row(tmp_path, row, match):
    good = {"id": "1", "video": "1.mp4", "text": "fine", "licence": None}
    pq.write_table(pa.Table.from_pylist([good | row]), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=match) as caught:
        read(tmp_path / "t.parquet")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_numbers_and_what_is_missing(tmp_path):
    columns = {
        "id": [1.0, 2.0, 3.0],
        "video": ["1.mp4", "file:///somewhere/2.mp4", "https://example.org/3.mp4"],
        "text": [float("nan")] * 3,
        "license": [4, None, 0],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    rows = read(tmp_path / "t.parquet")
    assert texts(rows) == [("1", ""), ("2", ""), ("3", "")]
    assert [row["licence"] for row in rows] == ["4", "CC0", "CC0"]
    places = [str(tmp_path / "1.mp4"), "/somewhere/2.mp4", "https://example.org/3.mp4"]
    assert [row["video"]["path"] for row in rows] == places


EMBEDDED = {
    "bytes": ([b"one", b"two"], Value("binary")),
    "struct": ([{"bytes": b"one", "path": "1.mp4"}, {"bytes": b"two", "path": None}], None),
    "feature": ([{"bytes": b"one", "path": None}, {"bytes": b"two", "path": None}], Video()),
    "address": ([f"data:video/mp4;base64,{base64.b64encode(data).decode()}" for data in (b"one", b"two")], None),
}


@pytest.mark.parametrize("form", EMBEDDED)
@pytest.mark.parametrize("kind", ["manifest", "dataset"])
def test_videos_in_a_table_are_written_out_once(tmp_path, kind, form):
    videos, feature = EMBEDDED[form]
    columns = {"video": [*videos, videos[0]], "text": ["a", "b", "c"], "still": [None] * 3}
    data = Dataset.from_dict(columns).cast_column("still", Image())
    data = data if feature is None else data.cast_column("video", feature)
    (tmp_path / "data").mkdir()
    data.to_parquet(tmp_path / "data" / "train.parquet")
    path = tmp_path / "data" if kind == "dataset" else tmp_path / "data" / "train.parquet"
    rows = read(path, kind, id_column=None)
    assert [read_place(row["video"]) for row in rows] == [b"one", b"two", b"one"]
    assert [row["id"] for row in rows] == ["00000000", "00000001", "00000002"]
    assert sum(file.is_file() for file in (path.parent / "run" / "media").rglob("*")) == 2


def test_plan_says_what_is_wrong_with_a_table(tmp_path, capsys):
    (tmp_path / "t.csv").write_bytes(csv_text().encode("latin-1"))
    arguments = ["plan", str(tmp_path / "run"), str(tmp_path / "t.csv"), "--kind", "manifest", "--licence", "CC0"]
    assert main(arguments) == 2
    assert "--encoding" in capsys.readouterr().err
    assert main([*arguments, "--encoding", "latin-1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"records": 2, "shards": 1, "refused": {}}
