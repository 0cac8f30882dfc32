"""Reads one UVRB set from a folder or Hub repository of parquet configurations and checks it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from gve.hub_datasets.uvrb.tasks import ScoredTask, resolve
from gve.media_gve import shown

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class EvaluationSet:
    """One set, ready to be encoded and ranked. Q queries, N corpus rows.

    Attributes:
        queries: Q rows with columns id, text, image, video; media are encoded bytes or paths.
        corpus: N rows with columns id, video; or id, text in classification.
        positives: Corpus rows that answer each query, int64, ascending, at least one.
        pools: Corpus rows each query is ranked against; None means all N.
    """

    task: ScoredTask
    queries: "Dataset"
    corpus: "Dataset"
    query_ids: list[str]
    corpus_ids: list[str]
    positives: list[np.ndarray]
    pools: list[np.ndarray] | None

    @property
    def num_candidates(self) -> np.ndarray:
        """(Q,) corpus rows each query is ranked against."""
        if self.pools is None:
            return np.full(len(self.queries), len(self.corpus), dtype=np.int64)
        return np.array([len(pool) for pool in self.pools], dtype=np.int64)

    @property
    def num_positives(self) -> np.ndarray:
        """(Q,) corpus rows that answer each query."""
        return np.array([len(rows) for rows in self.positives], dtype=np.int64)


def load_set(source: str | PathLike[str], name: str, split: str = "unseen") -> EvaluationSet:
    """Load and check one set by name or slug, from a local folder or a Hub dataset repository.

    Reads the configurations `<slug>-corpus`, `-queries`, `-qrels` and, with pools, `-top_ranked`.

    Raises:
        ValueError: If a configuration, column, split, modality or positive is missing, or ids are repeated, unknown or
            neither text nor whole numbers, or a positive is outside its query's pool.
    """
    (task,) = resolve([name])
    corpus = _load(source, f"{task.slug}-corpus", split)
    queries = _load(source, f"{task.slug}-queries", split)
    qrels = _load(source, f"{task.slug}-qrels", split)
    _check_modalities(queries, task.query_modalities, f"{task.slug}-queries")
    query_ids = _ids(queries, "id", f"{task.slug}-queries")
    corpus_ids = _ids(corpus, "id", f"{task.slug}-corpus")
    queries = _with_all_parts(_with_ids(queries, query_ids))
    corpus = _with_ids(corpus, corpus_ids)
    corpus_rows = _row_numbers(corpus_ids, f"{task.slug}-corpus")
    query_rows = _row_numbers(query_ids, f"{task.slug}-queries")
    positives = _read_positives(qrels, query_rows, corpus_rows, config=f"{task.slug}-qrels")
    pools = None
    if task.pool_size is not None:
        config = f"{task.slug}-top_ranked"
        pools = _read_pools(_load(source, config, split), query_rows, corpus_rows, config=config)
        _check_inside(positives, pools, query_ids, config)
    return EvaluationSet(task, queries, corpus, query_ids, corpus_ids, positives, pools)


def _load(source: str | PathLike[str], config: str, split: str) -> "Dataset":
    """One split of one configuration; errors name all three."""
    from datasets import load_dataset  # takes a second to import, and some commands need only the names of sets

    try:
        return load_dataset(str(source), config, split=split)
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"source: cannot read split {split!r} of configuration {config!r} from {shown(str(source))} ({reason}). "
            "It must be a folder or Hub repository in the UVRB layout. Check the path, the set and the split."
        ) from error


def id_text(value: Any, place: str) -> str:
    """An id as text, so that 7 and "7" match across files; ValueError names `place`."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:  # pandas' 7.0
        return str(int(value))
    what = "no id" if value is None else f"the id {shown(value)} ({type(value).__name__})"
    raise ValueError(f"{place}: got {what}; ids must be texts and whole numbers. Correct it.")


def _column(rows: "Dataset", name: str, config: str) -> Any:
    if name not in rows.column_names:
        raise ValueError(f"{config}: no column {name!r}; got {shown(rows.column_names)}; add it, or rename one")
    return rows[name]


def _ids(rows: "Dataset", name: str, config: str) -> list[str]:
    return [id_text(value, f"{config}: row {row}") for row, value in enumerate(_column(rows, name, config))]


def _with_ids(rows: "Dataset", ids: Sequence[str]) -> "Dataset":
    """Set ids as text; `cast_column` would rewrite every video."""
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo, Features, Value

    if rows.features["id"] == Value("string"):
        return rows
    table = rows.data.table
    table = table.set_column(table.column_names.index("id"), "id", pa.array(ids, pa.string()))
    return Dataset(table, info=DatasetInfo(features=Features(rows.features | {"id": Value("string")})))


def _row_numbers(ids: Sequence[str], config: str) -> dict[str, int]:
    """Row number by unique id."""
    rows = {identity: row for row, identity in enumerate(ids)}
    if not rows:
        raise ValueError(f"{config}: got no rows; at least one is needed; check the split")
    if len(rows) != len(ids):
        repeated = Counter(ids).most_common(1)[0][0]
        raise ValueError(
            f"{config}: id {shown(repeated)} appears more than once; ids must be unique. Remove the repetitions."
        )
    return rows


def _check_modalities(queries: "Dataset", modalities: Sequence[str], config: str) -> None:
    for modality in modalities:
        if modality not in queries.column_names:
            raise ValueError(f"{config}: no column {modality!r}; got {shown(queries.column_names)}; add it")
        missing = queries.data.column(modality).is_null().to_pylist()
        if any(missing):
            row = missing.index(True)
            raise ValueError(f"{config}: row {row} has no {modality}; every query of this set needs one; fill it in")


def _with_all_parts(queries: "Dataset") -> "Dataset":
    """Columns id, text, image, video: null where the set has no such part, images as encoded files."""
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo, Features, Image, Value

    table, features = queries.data.table, {}
    for column in ("id", "text", "image", "video"):
        if column in queries.column_names:
            features[column] = queries.features[column]
        else:  # add_column would leave blocks that cannot be selected from and added to once more
            features[column] = Value("string")
            table = table.append_column(column, pa.nulls(len(queries), pa.string()))
    if isinstance(features["image"], Image):
        features["image"] = Image(decode=False)
    return Dataset(table.select(list(features)), info=DatasetInfo(features=Features(features)))


def _lookup(rows: Mapping[str, int], identity: str, what: str, config: str) -> int:
    if identity not in rows:
        raise ValueError(f"{config}: unknown {what} id {shown(identity)}; ids of the {what} rows are accepted; fix it")
    return rows[identity]


def _read_positives(
    qrels: "Dataset", query_rows: Mapping[str, int], corpus_rows: Mapping[str, int], *, config: str
) -> list[np.ndarray]:
    """Corpus rows with a score above zero, by query."""
    found: list[set[int]] = [set() for _ in query_rows]
    pairs = zip(_ids(qrels, "query-id", config), _ids(qrels, "corpus-id", config), strict=True)
    scores = _column(qrels, "score", config)
    for number, ((query_id, corpus_id), score) in enumerate(zip(pairs, scores, strict=True)):
        query = _lookup(query_rows, query_id, "query", config)
        row = _lookup(corpus_rows, corpus_id, "corpus", config)
        if not isinstance(score, int | float):
            raise ValueError(f"{config}: row {number} has the score {shown(score)}; numbers are accepted; correct it")
        if score > 0:
            found[query].add(row)
    for query_id, rows in zip(query_rows, found, strict=True):
        if not rows:
            raise ValueError(
                f"{config}: query {shown(query_id)} has no positive; each query needs at least one. Add it."
            )
    return [np.array(sorted(rows), dtype=np.int64) for rows in found]


def _read_pools(
    top_ranked: "Dataset", query_rows: Mapping[str, int], corpus_rows: Mapping[str, int], *, config: str
) -> list[np.ndarray]:
    """Candidates by query, in file order."""
    pools: list[np.ndarray | None] = [None] * len(query_rows)
    listed = _column(top_ranked, "corpus-ids", config)
    for number, (query_id, values) in enumerate(zip(_ids(top_ranked, "query-id", config), listed, strict=True)):
        corpus_ids = [id_text(value, f"{config}: row {number}") for value in values or []]
        query = _lookup(query_rows, query_id, "query", config)
        if pools[query] is not None:
            raise ValueError(f"{config}: query {shown(query_id)} has two pools; one is accepted; remove the other")
        if len(set(corpus_ids)) != len(corpus_ids):
            raise ValueError(f"{config}: the pool of query {shown(query_id)} repeats an id; remove the repetition")
        pools[query] = np.array([_lookup(corpus_rows, row, "corpus", config) for row in corpus_ids], dtype=np.int64)
    complete = [pool for pool in pools if pool is not None]
    if len(complete) != len(pools):
        lacking = next(query_id for query_id, pool in zip(query_rows, pools, strict=True) if pool is None)
        raise ValueError(f"{config}: query {shown(lacking)} has no pool; every query of this set needs one; add it")
    return complete


def _check_inside(
    positives: Sequence[np.ndarray], pools: Sequence[np.ndarray], query_ids: Sequence[str], config: str
) -> None:
    """A positive outside its query's pool could never be found."""
    for query_id, rows, pool in zip(query_ids, positives, pools, strict=True):
        if not np.isin(rows, pool).all():
            raise ValueError(f"{config}: a positive of query {shown(query_id)} is not in its pool; add it to the pool")
