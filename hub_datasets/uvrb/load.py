"""Reads one UVRB set from a folder or Hub repository of parquet configurations and checks it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image, Value, load_dataset

from gve.hub_datasets.uvrb.tasks import ScoredTask, resolve


@dataclass(frozen=True)
class EvaluationSet:
    """One set, ready to be encoded and ranked. Q queries, N corpus rows.

    Attributes:
        task: The set's entry in the table.
        queries: Q rows with columns id, text, image, video; media are encoded bytes or paths.
        corpus: N rows with columns id, video; or id, text where the queries are videos to classify.
        query_ids: The Q ids of `queries`.
        corpus_ids: The N ids of `corpus`.
        positives: For each query the corpus rows that answer it, int64, ascending, at least one.
        pools: For each query the corpus rows that it is ranked against, or None: against all N.
    """

    task: ScoredTask
    queries: Dataset
    corpus: Dataset
    query_ids: list[str]
    corpus_ids: list[str]
    positives: list[np.ndarray]
    pools: list[np.ndarray] | None

    @property
    def num_candidates(self) -> np.ndarray:
        """(Q,) how many corpus rows each query is ranked against."""
        if self.pools is None:
            return np.full(len(self.queries), len(self.corpus), dtype=np.int64)
        return np.array([len(pool) for pool in self.pools], dtype=np.int64)

    @property
    def num_positives(self) -> np.ndarray:
        """(Q,) how many corpus rows answer each query."""
        return np.array([len(rows) for rows in self.positives], dtype=np.int64)


def load_set(source: str | PathLike[str], name: str, split: str = "unseen") -> EvaluationSet:
    """Load and check one set (configurations `<slug>-corpus`, `-queries`, `-qrels` and, with pools, `-top_ranked`).

    Args:
        source: A local folder or a Hub dataset repository.
        name: The set's name or slug.
        split: "seen" or "unseen".

    Returns:
        The set with its relevance as row numbers.

    Raises:
        ValueError: When the source, a configuration or the split is missing, when ids are repeated or unknown, when
            a query lacks a modality or a positive, or when a positive is not among its query's candidates.
    """
    (task,) = resolve([name])
    corpus = _load(source, f"{task.slug}-corpus", split)
    queries = _load(source, f"{task.slug}-queries", split)
    qrels = _load(source, f"{task.slug}-qrels", split)
    _check_modalities(queries, task.query_modalities, f"{task.slug}-queries")
    queries = _with_all_parts(queries)
    corpus_ids, query_ids = list(corpus["id"]), list(queries["id"])
    corpus_rows = _row_numbers(corpus_ids, f"{task.slug}-corpus")
    query_rows = _row_numbers(query_ids, f"{task.slug}-queries")
    positives = _read_positives(qrels, query_rows, corpus_rows, config=f"{task.slug}-qrels")
    pools = None
    if task.pool_size is not None:
        config = f"{task.slug}-top_ranked"
        pools = _read_pools(_load(source, config, split), query_rows, corpus_rows, config=config)
        _check_inside(positives, pools, query_ids, config)
    return EvaluationSet(task, queries, corpus, query_ids, corpus_ids, positives, pools)


def _load(source: str | PathLike[str], config: str, split: str) -> Dataset:
    """One split of one configuration, with an error that names all three."""
    try:
        return load_dataset(str(source), config, split=split)
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"source: cannot read split {split!r} of configuration {config!r} from {str(source)!r} ({reason}); "
            "a folder or Hub repository in the UVRB layout is needed; check the path, the set and the split"
        ) from error


def _row_numbers(ids: Sequence[str], config: str) -> dict[str, int]:
    """Map ids to row numbers; every id may stand once."""
    rows = {identity: row for row, identity in enumerate(ids)}
    if not rows:
        raise ValueError(f"{config}: got no rows; at least one is needed; check the split")
    if len(rows) != len(ids):
        repeated = Counter(ids).most_common(1)[0][0]
        raise ValueError(
            f"{config}: id {repeated!r} stands more than once; ids must be unique; remove the repetitions"
        )
    return rows


def _check_modalities(queries: Dataset, modalities: Sequence[str], config: str) -> None:
    """Every query must hold what the set's queries are made of."""
    for modality in modalities:
        if modality not in queries.column_names:
            raise ValueError(f"{config}: no column {modality!r}; got {queries.column_names}; add it")
        missing = queries.data.column(modality).is_null().to_pylist()
        if any(missing):
            row = missing.index(True)
            raise ValueError(f"{config}: row {row} has no {modality}; every query of this set needs one; fill it in")


def _with_all_parts(queries: Dataset) -> Dataset:
    """The columns id, text, image, video: null where the set has no such part, images as encoded files."""
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
    """A row number, or an error that names the unknown id."""
    if identity not in rows:
        raise ValueError(f"{config}: unknown {what} id {identity!r}; only ids of the {what} rows are accepted; fix it")
    return rows[identity]


def _read_positives(
    qrels: Dataset, query_rows: Mapping[str, int], corpus_rows: Mapping[str, int], *, config: str
) -> list[np.ndarray]:
    """The corpus rows with a score above zero, for each query."""
    found: list[set[int]] = [set() for _ in query_rows]
    for query_id, corpus_id, score in zip(qrels["query-id"], qrels["corpus-id"], qrels["score"], strict=True):
        query = _lookup(query_rows, query_id, "query", config)
        row = _lookup(corpus_rows, corpus_id, "corpus", config)
        if score > 0:
            found[query].add(row)
    for query_id, rows in zip(query_rows, found, strict=True):
        if not rows:
            raise ValueError(f"{config}: query {query_id!r} has no positive; each query needs at least one; add it")
    return [np.array(sorted(rows), dtype=np.int64) for rows in found]


def _read_pools(
    top_ranked: Dataset, query_rows: Mapping[str, int], corpus_rows: Mapping[str, int], *, config: str
) -> list[np.ndarray]:
    """The candidates of each query, in the order of the file."""
    pools: list[np.ndarray | None] = [None] * len(query_rows)
    for query_id, corpus_ids in zip(top_ranked["query-id"], top_ranked["corpus-ids"], strict=True):
        query = _lookup(query_rows, query_id, "query", config)
        if pools[query] is not None:
            raise ValueError(f"{config}: query {query_id!r} has two pools; one is accepted; remove the other")
        if len(set(corpus_ids)) != len(corpus_ids):
            raise ValueError(f"{config}: the pool of query {query_id!r} repeats an id; remove the repetition")
        pools[query] = np.array([_lookup(corpus_rows, row, "corpus", config) for row in corpus_ids], dtype=np.int64)
    complete = [pool for pool in pools if pool is not None]
    if len(complete) != len(pools):
        lacking = next(query_id for query_id, pool in zip(query_rows, pools, strict=True) if pool is None)
        raise ValueError(f"{config}: query {lacking!r} has no pool; every query of this set needs one; add it")
    return complete


def _check_inside(
    positives: Sequence[np.ndarray], pools: Sequence[np.ndarray], query_ids: Sequence[str], config: str
) -> None:
    """A positive outside its query's pool could never be found."""
    for query_id, rows, pool in zip(query_ids, positives, pools, strict=True):
        if not np.isin(rows, pool).all():
            raise ValueError(f"{config}: a positive of query {query_id!r} is not in its pool; add it to the pool")
