"""Loading a set from a parquet folder, and every way in which one may be broken."""

import numpy as np
import pytest
from uvrb_folder import NUM_CLIPS, clip_bytes, make_tables, write_uvrb

from gve.hub_datasets.uvrb import load_set


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "uvrb").mkdir()
    return tmp_path / "uvrb"


def test_reads_rows_and_relevance(folder):
    tables = make_tables("CMRB")
    tables["qrels"].append({"query-id": "q0", "corpus-id": "c5", "score": 1})
    tables["qrels"].append({"query-id": "q0", "corpus-id": "c7", "score": 0})  # judged irrelevant
    data = load_set(write_uvrb(folder, {"CMRB": tables}), "cmrb")
    assert data.task.name == "CMRB"
    assert data.pools is None
    assert data.positives[0].tolist() == [0, 5]
    assert [rows.tolist() for rows in data.positives[1:]] == [[row] for row in range(1, NUM_CLIPS)]
    assert data.num_candidates.tolist() == [NUM_CLIPS] * NUM_CLIPS
    assert data.num_positives.tolist() == [2] + [1] * (NUM_CLIPS - 1)
    assert data.corpus[3]["video"]["bytes"] == clip_bytes(3)
    assert data.queries[3]["text"] == "clip 3"
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


def unknown_corpus(tables):
    tables["qrels"][2]["corpus-id"] = "c99"


def unknown_query(tables):
    tables["qrels"][2]["query-id"] = "q99"


def no_positive(tables):
    del tables["qrels"][4]


def only_irrelevant(tables):
    tables["qrels"][4]["score"] = 0


def repeated_corpus(tables):
    tables["corpus"][1]["id"] = "c0"


def repeated_query(tables):
    tables["queries"][1]["id"] = "q0"


def no_image(tables):
    tables["queries"][3]["image"] = None


def outside_pool(tables):
    tables["top_ranked"][2]["corpus-ids"].remove("c2")


def no_pool(tables):
    del tables["top_ranked"][6]


def two_pools(tables):
    tables["top_ranked"][6]["query-id"] = "q5"


def repeated_candidate(tables):
    tables["top_ranked"][6]["corpus-ids"][1] = "c6"


def unknown_candidate(tables):
    tables["top_ranked"][6]["corpus-ids"][1] = "c99"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unknown_corpus, "ms-ti-qrels: unknown corpus id 'c99'"),
        (unknown_query, "ms-ti-qrels: unknown query id 'q99'"),
        (no_positive, "ms-ti-qrels: query 'q4' has no positive"),
        (only_irrelevant, "ms-ti-qrels: query 'q4' has no positive"),
        (repeated_corpus, "ms-ti-corpus: id 'c0' stands more than once"),
        (repeated_query, "ms-ti-queries: id 'q0' stands more than once"),
        (no_image, "ms-ti-queries: row 3 has no image"),
        (outside_pool, "ms-ti-top_ranked: a positive of query 'q2' is not in its pool"),
        (no_pool, "ms-ti-top_ranked: query 'q6' has no pool"),
        (two_pools, "ms-ti-top_ranked: query 'q5' has two pools"),
        (repeated_candidate, "ms-ti-top_ranked: the pool of query 'q6' repeats an id"),
        (unknown_candidate, "ms-ti-top_ranked: unknown corpus id 'c99'"),
    ],
)
def test_broken_data_are_named(folder, damage, message):
    tables = make_tables("MS-TI")
    damage(tables)
    with pytest.raises(ValueError, match=message):
        load_set(write_uvrb(folder, {"MS-TI": tables}), "MS-TI")


def test_missing_parts_are_named(folder, tmp_path):
    write_uvrb(folder, {"MSRVTT": make_tables("MSRVTT")})
    with pytest.raises(ValueError, match="source: cannot read split 'seen' of configuration 'msrvtt-corpus'"):
        load_set(folder, "MSRVTT", "seen")
    with pytest.raises(ValueError, match="source: cannot read split 'unseen' of configuration 'crb-g-corpus'"):
        load_set(folder, "CRB-G")
    with pytest.raises(ValueError, match=r"source: cannot read split 'unseen' .*nowhere"):
        load_set(tmp_path / "nowhere", "CRB-G")
    with pytest.raises(ValueError, match="unknown set 'imagenet'"):
        load_set(folder, "imagenet")
