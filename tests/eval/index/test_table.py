"""An index against exact search in memory: ties, filters, snapshots, paths, and what it refuses."""

import os
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
from index_rows import make_index, rows_of, unit_vectors

from gve.eval.index.rows import Levels, Segment
from gve.eval.index.storage import SCHEMA, WRITER, check_columns, fact_rows, merge, real_path, stored_path, writing
from gve.eval.index.table import Index, is_index
from gve.eval.index.writing import Writer
from gve.eval.search import top_k


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """500 rows, of which the first twenty are one vector, beside their vectors in the order of ids."""
    vectors = unit_vectors(500)
    vectors[:20] = vectors[0]
    index = make_index(tmp_path_factory.mktemp("filled") / "index", columns={"note": pa.string()})
    rows = rows_of(500)
    for number, row in enumerate(rows):
        row["note"] = f"n{number % 5}"
    Writer(index).put(rows, vectors)
    return Index.open(index.where), rows, vectors


def test_search_equals_exact_search_in_memory(filled):
    index, rows, vectors = filled
    order = sorted(range(len(rows)), key=lambda number: rows[number]["id"])
    queries = vectors[[0, 100, 499]]
    places, scores = top_k(queries, vectors[order], 30)
    for k in (1, 7, 30):
        hits = index.search(queries, k)
        wanted = [[rows[order[place]]["path"] for place in line[:k]] for line in places]
        assert [[hit.path for hit in line] for line in hits] == wanted  # ties by id
        np.testing.assert_allclose([[hit.score for hit in line] for line in hits], scores[:, :k], atol=1e-6)
    assert len(index.search(queries[:1], 1000)[0]) == len(index) == 500
    (hit,), *_ = index.search(queries, 1, filters="duration > 400 AND note = 'n3'")
    assert (hit.start, hit.end, hit.kind, hit.level, hit.columns["note"]) == (0.0, 1.0, "video", "window", "n3")


def test_scan_gives_rows_under_a_filter_in_batches(filled):
    index, rows, _ = filled
    batches = list(index.scan(["id", "vector"], filters="duration < 100", batch_rows=40))
    assert sum(map(len, batches)) == 100 and max(map(len, batches)) <= 40
    assert {key for batch in batches for key in batch["id"].to_pylist()} == {row["id"] for row in rows[:100]}


def test_what_a_search_refuses(filled):
    index, _, vectors = filled
    for queries, k, filters, message in (
        (vectors, 0, None, "k: must be at least 1, got 0"),
        (vectors[0], 1, None, r"queries: must be \(Q, 8\)"),
        (vectors[:, :3], 1, None, r"got shape \(500, 3\)"),
        (vectors * np.nan, 1, None, "must be finite"),
        (vectors[:1], 1, "lenght > 3", "no column 'lenght'. The columns are id, path, .*, note"),
        (vectors[:1], 1, "duration >", "--where: 'duration >' cannot be read"),
        (vectors[:1], 1, "path > 5", "--where: 'path > 5' cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(queries, k, filters=filters)
    with pytest.raises(ValueError, match="no column 'lenght'"):
        list(index.scan(["id"], filters="lenght > 3"))


def test_a_reader_sees_what_a_writer_adds_and_a_held_table_does_not_change(tmp_path):
    made = make_index(tmp_path / "index")
    reader = Index.open(made.where)
    held = reader.segments
    Writer(made).put(rows_of(3), unit_vectors(3))
    assert (len(reader), held.count_rows()) == (3, 0)
    Writer(made).put(rows_of(3), unit_vectors(3))
    assert len(reader) == 3  # the same ids
    assert made.fact("thing") is None
    made.note("thing", {"a": 1})
    assert reader.fact("thing") == {"a": 1} and reader.fact("ann") is None


def test_create_refuses_other_folders_and_open_what_is_no_index(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"INDEX: .* holds 'notes.txt'"):
        make_index(tmp_path / "full")
    for place in ("full", "nowhere"):
        with pytest.raises(ValueError, match=r"is no index\. Make one with `gve index add`"):
            Index.open(str(tmp_path / place))
    assert not is_index(str(tmp_path / "full"))
    index = make_index(tmp_path / "index", levels=Levels(window=6, stride=3))
    assert is_index(index.where) and Index.open(index.where).levels == Levels(window=6, stride=3)
    merge(index._table("facts"), "name", fact_rows({"schema": "gve-index/0"}))
    with pytest.raises(ValueError, match=f"has the schema 'gve-index/0'; this version reads '{SCHEMA}'"):
        Index.open(index.where)


def test_a_creation_that_was_killed_is_no_index_and_is_made_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("gve.eval.index.table.fact_rows", Mock(side_effect=KeyboardInterrupt))
        make_index(tmp_path / "index")
    assert not is_index(str(tmp_path / "index"))
    assert len(make_index(tmp_path / "index")) == 0


def test_columns_of_the_users_own(tmp_path):
    index = make_index(tmp_path / "index", columns={"note": pa.string()})
    writer = Writer(index)
    writer.widen({"note": pa.string(), "size": pa.int64()})
    assert index.columns == {"note": pa.string(), "size": pa.int64()}
    with pytest.raises(ValueError, match="'note' holds string in the index and int64 here"):
        writer.widen({"note": pa.int64()})
    for name, message in (("duration", "uses itself"), ("vector_2", "uses itself"), ("my name", "must be lower-case")):
        with pytest.raises(ValueError, match=message):
            check_columns({name: pa.string()})


def test_any_path_comes_back(tmp_path):
    names = [
        "/a/b.mp4",
        os.fsdecode(b"/a/\xe9\xff.mp4"),
        r"/a\udce9.mp4",
        r"/a\udc5c\x" + os.fsdecode(b"\xe9"),
        "/\u00fc'",
    ]
    stored = [stored_path(name) for name in names]
    assert [real_path(name) for name in stored] == names
    assert len(set(stored)) == len(names) and "".join(stored).encode()
    index = make_index(tmp_path / "index")
    rows = [row | {"path": name} for row, name in zip(rows_of(len(names)), stored, strict=True)]
    Writer(index).put(rows, unit_vectors(len(names)))
    assert {hit.path for hit in index.search(unit_vectors(1), 10)[0]} == set(names)
    Writer(index).drop(stored[1:])
    assert len(index) == 1
    assert Segment("window", 0.0, 6.0).key(names[1]) != Segment("window", 0.0, 6.0).key(names[2])


def test_one_writer_at_a_time(tmp_path):
    where = str(make_index(tmp_path / "index").where)
    with (
        writing(where),
        pytest.raises(ValueError, match=f"is being written by process {os.getpid()} on .* since 2"),
        writing(where),
    ):
        pass
    with writing(where):
        assert (tmp_path / "index" / WRITER).read_text().startswith("process")


def test_two_writers_at_an_address_lose_and_double_nothing(tmp_path):
    """An address has no lock: Lance commits one after the other, and rows have keys."""
    from concurrent.futures import ThreadPoolExecutor

    where = make_index(f"file://{tmp_path}/index").where
    with writing(where), writing(where), ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            both = [pool.submit(Writer(Index.open(where)).put, rows_of(30), unit_vectors(30)) for _ in range(2)]
            assert [each.result() for each in both] == [None, None]
    rows = [key for batch in Index.open(where).scan(["id"]) for key in batch["id"].to_pylist()]
    assert len(rows) == len(set(rows)) == 30


def test_levels_refuse_what_cannot_be():
    for given, message in (
        ({"window": -1.0}, "--window: must be seconds above 0, got -1.0"),
        ({"window": float("nan")}, "--window"),
        ({"stride": 1.0}, "--stride: given without --window"),
        ({"window": 2.0, "stride": 3.0}, "longer than the window"),
        ({"files": False}, "--no-files: leaves nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            Levels(**given)
