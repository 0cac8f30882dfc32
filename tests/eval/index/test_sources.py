"""What an index is made of besides folders: tables, data sets, vectors of `gve encode`; names of any bytes."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour_encoder import COLOURS
from index_rows import NAMED, contents, refresh
from PIL import Image

from gve.eval.index.building import add, remove
from gve.eval.index.storage import MEDIA
from gve.eval.index.table import Index
from gve.eval.store import FileEmbeddings, file_stamp, save_embeddings


def test_tables_give_their_columns_and_update_follows_them(encoder, folder, tmp_path):
    where = str(tmp_path / "index")
    rows = [{"path": f"media/{name}.png", "Title": name, "age": place} for place, name in enumerate(COLOURS)]
    tables = {suffix: tmp_path / f"table.{suffix}" for suffix in ("csv", "jsonl", "parquet")}
    tables["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables["csv"].write_text("path,Title,age\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tables["parquet"])
    add(where, [str(folder)], encoder, **NAMED)
    seen = encoder.documents
    for table in tables.values():
        report = add(where, [str(table)], encoder, **NAMED)
        assert (encoder.documents, Index.open(where).columns) == (seen, {"title": pa.string(), "age": pa.int64()})
    assert report.kept == 4
    (hits,) = Index.open(where).search(np.eye(3)[:1], 5, filters="age >= 1 AND title <> 'green'")
    assert sorted(hit.columns["title"] for hit in hits) == ["blue", "dark blue"]
    tables["csv"].unlink()
    assert remove(where, [str(tables["csv"])]) == 0
    for kept in ("jsonl", "parquet"):
        tables[kept].write_text("") if kept == "jsonl" else None
    tables["jsonl"].write_text(json.dumps(rows[0] | {"age": 77}) + "\n")
    remove(where, [str(tables["parquet"])])
    refresh(where, encoder)
    assert len(list(Index.open(where).scan(["id"], filters="age = 77"))) == 1
    assert encoder.documents == seen
    for line, message in (
        ('{"path": "a.png", "duration": 3}', "columns: 'duration' is a name that the index uses itself"),
        ('{"file": "a.png"}', "one must be named path, video or image"),
        ('{"path": null, "x": 1}', "has a row without a path"),
        ('{"path": "a.png", "age": "old"}', "'age' holds int64 in the index and string here"),
        ("{", "is no readable jsonl"),
    ):
        tables["jsonl"].write_text(line + "\n")
        with pytest.raises(ValueError, match=message):
            add(where, [str(tables["jsonl"])], encoder, **NAMED)


def test_data_sets_give_paths_or_bytes(encoder, folder, tmp_path):
    from datasets import Dataset, DatasetDict, Video

    where = str(tmp_path / "index")
    named = Dataset.from_dict({"video": [str(folder / "clip.mp4")]}).cast_column("video", Video())
    DatasetDict({"train": named}).save_to_disk(tmp_path / "named")
    (tmp_path / "held").mkdir()
    content = (folder / "red.png").read_bytes()
    with_bytes = pa.table({"image": [{"bytes": content, "path": "red.png"}], "text": ["a red one"], "tags": [["a"]]})
    pq.write_table(with_bytes, tmp_path / "held" / "rows.parquet")
    add(where, [str(tmp_path / "held" / "rows.parquet"), f"{tmp_path}/named:train"], encoder, **NAMED)
    (red,), (clip,) = (
        Index.open(where).search(np.eye(3)[:1], 1, filters=f"kind = '{kind}'")[0] for kind in ("image", "video")
    )
    assert Path(red.path).parent == tmp_path / "index" / MEDIA and Path(red.path).read_bytes() == content
    assert (red.columns["text"], Path(clip.path).read_bytes()) == ("a red one", (folder / "clip.mp4").read_bytes())
    assert refresh(where, encoder).kept == 2
    with pytest.raises(ValueError, match=r"no split 'test'\. Choose one of train"):
        add(where, [f"{tmp_path}/named:test"], encoder, **NAMED)
    report = add(where, [f"{tmp_path}/held:default:train"], encoder, **NAMED)  # as a data set of the Hub lies on disk
    assert (report.kept, report.rows, len(Index.open(where).sources)) == (1, 2, 3)
    with pytest.raises(ValueError, match="need an index in a local folder"):
        add(f"file://{tmp_path}/remote", [str(tmp_path / "held" / "rows.parquet")], encoder, **NAMED)


def test_vectors_of_gve_encode_are_taken_as_they_are(encoder, folder, tmp_path):
    where, made = str(tmp_path / "index"), tmp_path / "made.safetensors"
    paths = [folder / "red.png", folder / "green.png", folder / "blue.png"]
    vectors = np.array([[0.6, 0.8, 0], [0, 0.6, 0.8], [np.nan, 0, 0]], np.float32)
    stamps = [file_stamp(path) for path in paths]
    save_embeddings(FileEmbeddings([str(path) for path in paths], vectors, stamps, {}, "stub", "f" * 32), made)
    report = add(where, [str(made)], encoder, **NAMED)
    assert (report.added, encoder.documents, list(report.failed)) == (2, 0, [str(folder / "blue.png")])
    assert {Path(row[1]).name: row[-1] for row in contents(where).values()}["red.png"] == vectors[0].tobytes()
    made.unlink()
    Image.new("RGB", (4, 4), (0, 250, 0)).save(folder / "green.png")
    report = refresh(where, encoder)
    assert (report.changed, report.rows, encoder.documents) == (1, 2, 1)
    (folder / "red.png").unlink()
    assert refresh(where, encoder).rows == 1
    save_embeddings(FileEmbeddings([str(paths[1])], vectors[:1], stamps[:1], {}, "other", "0" * 32), made)
    with pytest.raises(ValueError, match="has vectors of 'other', which is not the model"):
        add(where, [str(made)], encoder, **NAMED)


def test_names_of_any_bytes(encoder, folder, tmp_path):
    odd = folder / os.fsdecode(b"red \xe9.png")
    try:
        (folder / "red.png").rename(odd)
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    where = str(tmp_path / "index")
    add(where, [str(folder)], encoder, **NAMED)
    (hit,) = Index.open(where).search(np.eye(3)[:1], 1)[0]
    assert hit.path == str(odd)
    assert refresh(where, encoder).kept == 5
    assert remove(where, [str(odd)]) == 1
