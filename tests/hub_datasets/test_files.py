import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Value

from gve.hub_datasets import files
from gve.hub_datasets.parquet import read_facts, read_rows, write_rows, write_table


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"a": "\u00e4"})
    assert files.read_json(path) == {"a": "\u00e4"}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*a\.json"):
            files.write_text(path, "new")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert files.read_json(path) == {"a": "\u00e4"} and list(path.parent.iterdir()) == [path]


def test_only_leftovers_of_killed_writers_are_removed(tmp_path):
    for name in ("a.json.123.tmp", "mine.tmp", "a.json"):
        files.write_atomic(tmp_path / "deep" / name, b"x")
    assert files.remove_leftovers(tmp_path) == 1
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.json", "mine.tmp"]


def test_rows_come_back_with_their_types(tmp_path):
    rows = [{"id": number, "text": None if number % 2 else "x"} for number in range(300)]
    write_rows(tmp_path / "a.parquet", iter(rows), Features({"id": Value("int64"), "text": Value("string")}))
    assert read_rows(tmp_path / "a.parquet") == rows
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert file.num_row_groups == 3
    columns = {"id": pa.int64(), "text": pa.string()}
    for name in ("b", "c"):
        write_table(tmp_path / name, rows, columns, {"rows": 300})
    assert read_rows(tmp_path / "b") == rows and read_facts(tmp_path / "b") == {"rows": 300}
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    with pytest.raises(ValueError, match="id: values must be int64"):
        write_table(tmp_path / "d", [{"id": "x"}], columns, {})
