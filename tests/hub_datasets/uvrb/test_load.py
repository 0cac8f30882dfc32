import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from uvrb_folder import NUM_CLIPS, clip_bytes, make_tables, numbered, write_uvrb

from gve.hub_datasets.uvrb import load_set
from gve.hub_datasets.uvrb.load import id_text


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "uvrb"
    folder.mkdir()
    return folder


def test_reads_rows_and_relevance(folder):
    tables = make_tables("CMRB")
    tables["qrels"].append({"query-id": "q0", "corpus-id": "c5", "score": 1})
    tables["qrels"].append({"query-id": "q0", "corpus-id": "c7", "score": 0})  # judged irrelevant
    data = load_set(write_uvrb(folder, {"CMRB": tables}), "cmrb")
    assert data.task.name == "CMRB" and data.pools is None
    assert data.positives[0].tolist() == [0, 5]
    assert [rows.tolist() for rows in data.positives[1:]] == [[row] for row in range(1, NUM_CLIPS)]
    assert data.num_candidates.tolist() == [NUM_CLIPS] * NUM_CLIPS
    assert data.num_positives.tolist() == [2] + [1] * (NUM_CLIPS - 1)
    assert data.corpus[3]["video"]["bytes"] == clip_bytes(3) and data.queries[3]["text"] == "clip 3"
    assert (data.query_ids[3], data.corpus_ids[3]) == ("q3", "c3")


def test_reads_pools_in_the_order_of_queries(folder):
    tables = make_tables("MS-TI")
    tables["top_ranked"].reverse()
    data = load_set(write_uvrb(folder, {"MS-TI": tables}, split="seen"), "MS-TI", "seen")
    assert [pool.tolist() for pool in data.pools] == [
        [(number + step) % NUM_CLIPS for step in range(10)] for number in range(NUM_CLIPS)
    ]
    assert all(np.isin(rows, pool).all() for rows, pool in zip(data.positives, data.pools, strict=True))
    assert data.num_candidates.tolist() == [10] * NUM_CLIPS


ALL = ("corpus", "queries", "qrels", "top_ranked")
KINDS = [(kind, ALL) for kind in (pa.int64(), pa.uint8(), pa.float64(), pa.large_string())]


@pytest.mark.parametrize(("kind", "only"), [*KINDS, (pa.int64(), ("corpus", "top_ranked"))])
def test_ids_of_any_type_become_texts(folder, kind, only):
    wanted = load_set(write_uvrb(folder, {"MS-TI": make_tables("MS-TI")}), "MS-TI")
    again = folder / "again"
    again.mkdir()
    write_uvrb(again, {"MS-TI": make_tables("MS-TI")})
    numbered(again, kind, only)
    numbered(again, pa.string(), set(ALL) - set(only))
    data = load_set(again, "MS-TI")
    assert data.query_ids == data.corpus_ids == [str(number) for number in range(NUM_CLIPS)]
    assert data.queries["id"][:] == data.query_ids and data.corpus["id"][:] == data.corpus_ids
    for name in ("positives", "pools"):
        for rows, expected in zip(getattr(data, name), getattr(wanted, name), strict=True):
            np.testing.assert_array_equal(rows, expected)
    assert data.corpus[3]["video"]["bytes"] == clip_bytes(3)
    assert data.queries[3]["image"]["bytes"] and data.queries[3]["text"] == "clip 3"


def test_ids_that_are_none_are_refused_with_their_row():
    odd = {"no id": None, "1.5": 1.5, "nan": float("nan"), "True": True, "bytes": b"x", "list": []}
    for told, value in odd.items():
        with pytest.raises(ValueError, match=f"^msrvtt-queries: row 3: got .*{told}.*texts and whole numbers"):
            id_text(value, "msrvtt-queries: row 3")
    with pytest.raises(ValueError) as told:
        id_text({"x": "y" * 10_000}, "msrvtt-queries: row 3")
    assert len(str(told.value)) < 400


def test_ids_that_are_equal_as_texts_are_refused(folder):
    """JSON lines may hold numbers and texts in one column."""
    lines = ["---", "configs:"]
    for kind in ("corpus", "queries", "qrels"):
        rows = {"queries": [{"id": identity, "text": "clip 1"} for identity in (1, "x", "1")]}.get(kind, [{"id": 1}])
        (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        lines += [f"- config_name: msrvtt-{kind}", "  data_files:", "  - split: unseen", f"    path: {kind}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    with pytest.raises(ValueError, match="msrvtt-queries: id '1' appears more than once"):
        load_set(folder, "MSRVTT")


DAMAGES = {
    "qrels: unknown corpus id 'c99'": lambda tables: tables["qrels"][2].update({"corpus-id": "c99"}),
    "qrels: unknown query id 'q99'": lambda tables: tables["qrels"][2].update({"query-id": "q99"}),
    "qrels: query 'q4' has no positive": lambda tables: tables["qrels"].pop(4),
    "qrels: query 'q5' has no positive": lambda tables: tables["qrels"][5].update(score=0),
    "qrels: row 4 has the score None": lambda tables: tables["qrels"][4].update(score=None),
    "corpus: row 5: got no id": lambda tables: tables["corpus"][5].update(id=None),
    "corpus: id 'c0' appears more than once": lambda tables: tables["corpus"][1].update(id="c0"),
    "queries: id 'q0' appears more than once": lambda tables: tables["queries"][1].update(id="q0"),
    "queries: row 3 has no image": lambda tables: tables["queries"][3].update(image=None),
    "top_ranked: a positive of query 'q6' is": lambda tables: tables["top_ranked"][6].update({"corpus-ids": None}),
    "top_ranked: a positive of query 'q2' is": lambda tables: tables["top_ranked"][2]["corpus-ids"].remove("c2"),
    "top_ranked: query 'q6' has no pool": lambda tables: tables["top_ranked"].pop(6),
    "top_ranked: query 'q5' has two pools": lambda tables: tables["top_ranked"][6].update({"query-id": "q5"}),
    "top_ranked: the pool of query 'q6' repeats": lambda tables: tables["top_ranked"][6]["corpus-ids"].append("c6"),
    "top_ranked: unknown corpus id 'c99'": lambda tables: tables["top_ranked"][6]["corpus-ids"].append("c99"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_broken_data_are_named(folder, message):
    tables = make_tables("MS-TI")
    DAMAGES[message](tables)
    with pytest.raises(ValueError, match=f"ms-ti-{message}"):
        load_set(write_uvrb(folder, {"MS-TI": tables}), "MS-TI")


@pytest.mark.parametrize(("kind", "column"), [("qrels", "corpus-id"), ("top_ranked", "corpus-ids"), ("corpus", "id")])
def test_missing_columns_are_named(folder, kind, column):
    write_uvrb(folder, {"MS-TI": make_tables("MS-TI")})
    path = folder / f"ms-ti-{kind}" / "unseen.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None).rename_columns({column: "_id"}), path)
    with pytest.raises(ValueError, match=f"ms-ti-{kind}: no column '{column}'; got .*'_id'"):
        load_set(folder, "MS-TI")


def test_missing_parts_are_named(folder, tmp_path):
    write_uvrb(folder, {"MSRVTT": make_tables("MSRVTT")})
    for source, name, split, message in (
        (folder, "MSRVTT", "seen", "cannot read split 'seen' of configuration 'msrvtt-corpus'"),
        (folder, "CRB-G", "unseen", "cannot read split 'unseen' of configuration 'crb-g-corpus'"),
        (folder, "imagenet", "unseen", "unknown set 'imagenet'"),
        (tmp_path / "nowhere", "CRB-G", "unseen", "source: cannot read split 'unseen' .*nowhere"),
    ):
        with pytest.raises(ValueError, match=message):
            load_set(source, name, split)
