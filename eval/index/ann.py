"""Approximate search in an index of many rows: built, measured against exact search, and tuned.

Shapes: S queries drawn to measure recall, N rows, D width.

Every road ends in exact cosines: the ANN index names `over` times k candidates, and their full vectors decide.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gve.eval.console import fail
from gve.eval.index.storage import vectors_of
from gve.eval.index.table import Index
from gve.media_gve import shown

KINDS = {"binary": "IvfRq", "int8": "IvfSq"}
"""Lance's index of each kind: one bit a dimension (RaBitQ), or one byte."""
LARGE = 100_000
"""Rows up to which every search is exact."""
TARGET = 0.95
"""Recall@10 that tuning looks for."""

_K, _LEAST, _PARTITION = 10, 1000, 8192  # rows of a partition
_TUNING, _REPORTED = 64, 128  # queries
_MARGIN = 0.01  # tuned for so much more, as other queries than the tuning's score a little lower
_PROBES, _OVER, _MOST = 8, 2, 128
_SHORT = "vector_"  # truncated vectors are in the column vector_<dims>


def build_ann(index: Index, *, kind: str = "auto", dims: int | None = None) -> dict[str, Any]:
    """Build the ANN index in place of the last one, tune it, and keep in the index how to search it.

    Recall@10 is the mean over queries that tuning has not seen. A query is a row moved by half the difference of two
    others, so it is as far from the rows as a new video is. A hit counts if its cosine reaches that of the tenth by exact
    search, so copies do no harm.

    Args:
        kind: One of KINDS, or "auto": "binary", or else "int8" if the recall stays under TARGET.
        dims: Search by so many leading dimensions, for Matryoshka models; None for all.

    Returns:
        `kind`, `dims`, `rows`, `recall`, `seconds` of building and tuning, `bytes` of the ANN index, `milliseconds` of
        one search, and the parameters (`search`, `over`) that `Index.search` goes by.

    Raises:
        ValueError: For an unknown kind, `dims` that are no fewer than D or do not fit the kind, or under 1,000 rows.
    """
    if kind not in ("auto", *KINDS):
        fail(f"kind: must be auto or one of {', '.join(KINDS)}, got {shown(kind)}.")
    if dims is not None and not 1 <= dims < index.width:
        fail(f"dims: must be between 1 and {index.width - 1}, got {dims}. Leave it out to search by all dimensions.")
    whole = (dims or index.width) % 8 == 0
    if kind == "binary" and not whole:
        fail(f"kind: binary needs a multiple of 8 dimensions, got {dims or index.width}. Use int8, or other dims.")
    if len(index) < _LEAST:
        fail(f"INDEX: has {len(index)} rows; an ANN index needs {_LEAST}. Search it exactly.")
    index.note("ann", None)  # a build that is killed leaves exact search
    _drop_others(index.segments, dims)
    queries, tenth = _queries(index)
    kinds = (kind,) if kind != "auto" else ("binary", "int8") if whole else ("int8",)
    for name in kinds:
        ann = _build(index, name, dims, queries, tenth)
        if ann["recall"] >= TARGET:
            break
    index.note("ann", ann)
    return ann


def keep_ann(index: Index) -> dict[str, Any] | None:
    """Build the ANN index if there are many rows now, or twice as many as it was built for; optimising takes in fewer."""
    ann = index.fact("ann")
    if len(index) > LARGE and (ann is None or len(index) > 2 * ann["rows"]):
        return build_ann(index, kind=ann["kind"] if ann else "auto", dims=ann["dims"] if ann else None)
    return ann


def with_short(rows: pa.Table, table: Any) -> pa.Table:
    """Rows to write, with the truncated vectors if the table has a column of them."""
    for name in _short_columns(table):
        kind = table.schema.field(name).type
        short = vectors_of(rows)[:, : kind.list_size]
        rows = rows.append_column(name, pa.FixedSizeListArray.from_arrays(pa.array(short.ravel()), type=kind))
    return rows


def describe(ann: Mapping[str, Any]) -> str:
    """One line about an ANN index."""
    by = f"{ann['dims']} dimensions" if ann["dims"] else "all dimensions"
    return (
        f"ANN index: {ann['kind']} by {by}, {ann['rows']:,} rows, {ann['bytes'] / 2**20:,.0f} MiB, built in "
        f"{ann['seconds']:.0f} s; recall@{_K} {ann['recall']:.3f} against exact search, "
        f"{ann['milliseconds']:.1f} ms a search."
    )


def _short_columns(table: Any) -> list[str]:
    return [name for name in table.schema.names if name.startswith(_SHORT)]


def _drop_others(table: Any, dims: int | None) -> None:
    """Make the column of truncated vectors, and remove what an earlier ANN index was built on."""
    for each in table.list_indices():
        if each.columns[0].startswith("vector"):
            table.drop_index(each.name)
    wanted = f"{_SHORT}{dims}" if dims else None
    for name in _short_columns(table):
        if name != wanted:
            table.drop_columns([name])
    if wanted and wanted not in table.schema.names:
        short = f"arrow_cast(array_slice(vector, 1, {dims}), 'FixedSizeList({dims}, Float32)')"
        table.add_columns({wanted: short})  # not of unit length: the metric is the cosine


def _build(index: Index, kind: str, dims: int | None, queries: np.ndarray, tenth: np.ndarray) -> dict[str, Any]:
    import lancedb.index

    start, table, column = time.perf_counter(), index.segments, f"{_SHORT}{dims}" if dims else "vector"
    partitions = -(-len(index) // _PARTITION)
    config = getattr(lancedb.index, KINDS[kind])(distance_type="cosine", num_partitions=partitions)
    table.create_index(column, config=config, replace=True, name="ann")
    ann = {"kind": kind, "dims": dims, "column": column, "metric": "cosine", "rows": len(index)}
    seen, unseen = slice(0, _TUNING), slice(_TUNING, None)

    def recall(part: slice, probes: int, over: int) -> float:
        ann.update(_parameters(probes, over, dims))
        reached = [
            int((index.near(table, ann, query, _K, None)[0] > least - 1e-6).sum())
            for query, least in zip(queries[part], tenth[part], strict=True)
        ]
        return sum(reached) / _K / len(reached)

    probes, over = tune(lambda probes, over: recall(seen, probes, over), most_probes=partitions)
    built = time.perf_counter() - start
    ann["recall"] = recall(unseen, probes, over)
    ann["milliseconds"] = 1e3 * (time.perf_counter() - start - built) / _REPORTED
    size = next(each.size_bytes for each in table.list_indices() if each.name == "ann")
    return ann | {"seconds": built, "bytes": size}


def _parameters(probes: int, over: int, dims: int | None) -> dict[str, Any]:
    """Partitions to look into, more only where a filter leaves fewer rows than asked for, and candidates to rescore."""
    search = {"maximum_nprobes": 0, "minimum_nprobes": probes}
    if dims is None:  # Lance rescores by the column that it searched
        return {"search": search | {"refine_factor": over}, "over": 1}
    return {"search": search, "over": over}


def tune(recall: Callable[[int, int], float], *, most_probes: int, most_over: int = _MOST) -> tuple[int, int]:
    """Probes and candidates: double whichever raises `recall(probes, over)` more, until it is high enough."""
    probes, over = _PROBES, min(_OVER, most_over)
    reached = recall(probes, over)
    while reached < TARGET + _MARGIN:
        steps = [(2 * probes, over)] * (probes < most_probes) + [(probes, 2 * over)] * (over < most_over)
        if not steps:
            break
        reached, probes, over = max((recall(*step), *step) for step in steps)
    return probes, over


def _queries(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """Queries (S, D), and for each the score of the tenth row (S,), from one pass over all."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(index), 3 * (_TUNING + _REPORTED), replace=False)
    rows = vectors_of(index.segments.take_offsets(chosen.tolist()).select(["vector"]).to_arrow())
    row, one, other = rng.permutation(rows).reshape(3, -1, index.width)
    queries = row + 0.5 * (one - other)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    best = np.full((len(queries), _K), -np.inf, np.float32)
    for batch in index.scan(["vector"]):
        scores = np.concatenate([best, queries @ vectors_of(batch).T], axis=1)
        best = np.partition(scores, -_K, axis=1)[:, -_K:]
    return queries, best.min(axis=1)
