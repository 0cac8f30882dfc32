"""Approximate search against exact search: recall, filters, truncated vectors, new and changed rows, and refusals."""

from unittest.mock import Mock

import numpy as np
import pytest
from index_rows import make_index, rows_of, unit_vectors

from gve.eval.index import ann as module
from gve.eval.index.ann import build_ann, describe, keep_ann, tune
from gve.eval.index.table import Index
from gve.eval.index.writing import Writer

ROWS = 3000


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """3,000 rows and their vectors; few queries for tuning, as tests need no exact recall."""
    monkeypatch.setattr(module, "_TUNING", 16)
    monkeypatch.setattr(module, "_REPORTED", 32)
    vectors = unit_vectors(ROWS)
    index = make_index(tmp_path / "index")
    Writer(index).put(rows_of(ROWS), vectors)
    return Index.open(index.where), vectors


def recall(index, queries, **options):
    found, best = index.search(queries, 10, **options), index.search(queries, 10, exact=True, **options)
    pairs = zip(found, best, strict=True)
    return np.mean([len({hit.path for hit in one} & {hit.path for hit in other}) for one, other in pairs]) / 10


@pytest.mark.parametrize(("kind", "dims"), [("auto", None), ("int8", None), ("binary", None), ("int8", 6)])
def test_each_road_finds_what_exact_search_finds_with_exact_scores(filled, kind, dims):
    index, vectors = filled
    ann = build_ann(index, kind=kind, dims=dims)
    assert index.fact("ann") == ann and ann["rows"] == ROWS and ann["bytes"] > 0
    assert ann["recall"] >= 0.9
    assert f"recall@10 {ann['recall']:.3f}" in describe(ann) and f"{ROWS:,} rows" in describe(ann)
    queries = vectors[:40] + vectors[100:140]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    assert recall(index, queries) >= 0.9
    assert recall(index, queries, filters="duration < 40") >= 0.9  # few rows in any partition
    assert [len(hits) for hits in index.search(queries[:3], 10, filters="duration < 4")] == [4, 4, 4]
    assert index.search(queries[:2], 10, filters="duration < 0") == [[], []]
    for hits, query in zip(index.search(queries[:5], 10), queries, strict=False):
        numbers = [int(hit.path.removeprefix("/x/").removesuffix(".mp4")) for hit in hits]
        np.testing.assert_allclose([hit.score for hit in hits], vectors[numbers] @ query, atol=1e-6)


def test_the_reported_recall_is_measured_and_not_assumed(filled, monkeypatch):
    index, _ = filled
    monkeypatch.setattr(module, "tune", lambda recall, **limits: (1, 1))
    monkeypatch.setattr(module, "_PARTITION", 100)
    poor = build_ann(index, kind="binary")
    assert poor["recall"] < 0.7
    assert build_ann(index, kind="auto")["kind"] == "int8"  # the first did not reach the target


def test_tuning_doubles_what_helps_until_the_recall_is_reached():
    asked = []

    def by_candidates(probes, over):
        asked.append((probes, over))
        return min(1.0, 0.2 + over / 40 + probes / 1e6)

    assert tune(by_candidates, most_probes=1000) == (8, 32)
    assert tune(lambda probes, over: probes / 70, most_probes=1000)[0] == 128
    assert tune(lambda probes, over: 0.5, most_probes=8, most_over=8) == (8, 8)  # at the end of both
    assert len(asked) == 9


def test_rows_that_are_added_and_changed_later_are_found(filled):
    index, _ = filled
    build_ann(index, kind="int8", dims=6)
    rows, fresh = rows_of(ROWS + 50)[ROWS - 50 :], unit_vectors(ROWS + 100)[ROWS:]
    writer = Writer(index)
    writer.put(rows, fresh)  # fifty with other vectors than before, fifty new
    for _ in range(2):
        hits = index.search(fresh, 1)
        assert [line[0].path for line in hits] == [row["path"] for row in rows]
        assert min(line[0].score for line in hits) > 0.999999
        writer.tidy()
    table = index.segments.to_arrow()
    short = np.array(table["vector_6"].to_pylist())
    np.testing.assert_array_equal(short, np.array(table["vector"].to_pylist())[:, :6])
    assert "vector_6" not in index.columns


def test_the_ann_index_is_built_at_a_size_and_again_at_twice_that(filled, monkeypatch):
    index, vectors = filled
    assert keep_ann(index) is None and index.fact("ann") is None
    monkeypatch.setattr(module, "LARGE", 2000)
    assert keep_ann(index)["rows"] == ROWS
    build_ann(index, kind="int8", dims=6)
    more = rows_of(2 * ROWS + 1)
    Writer(index).put(more[ROWS : 2 * ROWS], vectors)
    assert keep_ann(index)["rows"] == ROWS
    Writer(index).put(more[-1:], vectors[:1])
    again = keep_ann(index)
    assert (again["rows"], again["kind"], again["dims"]) == (2 * ROWS + 1, "int8", 6)


def test_another_road_leaves_nothing_of_the_last(filled):
    index, _ = filled
    build_ann(index, kind="int8", dims=6)
    build_ann(index, kind="int8", dims=4)
    assert [name for name in index.segments.schema.names if name.startswith("vector")] == ["vector", "vector_4"]
    build_ann(index, kind="binary")
    assert [name for name in index.segments.schema.names if name.startswith("vector")] == ["vector"]
    assert [(each.columns, each.index_type) for each in index.segments.list_indices()] == [(["vector"], "IvfRq")]


def test_a_build_that_is_killed_leaves_exact_search(filled, monkeypatch):
    index, vectors = filled
    build_ann(index, kind="int8")
    monkeypatch.setattr(module, "tune", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_ann(index, kind="binary", dims=None)
    assert index.fact("ann") is None
    assert index.search(vectors[:1], 1)[0][0].path == "/x/0.mp4"


def test_what_building_refuses(filled, tmp_path):
    index, _ = filled
    small = make_index(tmp_path / "small")
    Writer(small).put(rows_of(10), unit_vectors(10))
    for where, options, message in (
        (index, {"kind": "pq"}, "kind: must be auto or one of binary, int8"),
        (index, {"dims": 0}, "dims: must be between 1 and 7, got 0"),
        (index, {"dims": 8}, "dims: must be between 1 and 7, got 8"),
        (index, {"kind": "binary", "dims": 6}, "kind: binary needs a multiple of 8 dimensions, got 6"),
        (small, {}, "has 10 rows; an ANN index needs 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            build_ann(where, **options)
    assert index.fact("ann") is None
