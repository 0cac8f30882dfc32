"""Reads and checks the official archives as they unpack: jsonl files beside folders of videos, frames and images.

One archive a set, in `<NAME>/UVRB/<NAME>/`, with `jsonl/queries.jsonl`, `corpus.jsonl` and `instances.jsonl`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gve.hub_datasets.uvrb.media import MediaIndex
from gve.hub_datasets.uvrb.tasks import RetrievalSet
from gve.media_gve import shown

STRUCTURE, COUNTS, POOLS, MEDIA = "structure", "counts", "pools", "media"
"""Kinds of problems: wrong content; numbers that differ from the paper's; no pools; missing or broken files."""

_QUERY_KEYS = ("qid", "query_id", "query-id", "query", "id")
_POSITIVE_KEYS = ("pos", "positives", "positive", "pos_ids", "positive_ids")
_NEGATIVE_KEYS = ("neg", "negs", "negatives", "negative", "neg_ids", "negative_ids", "hard_neg", "hard_negatives")
_POOL_KEYS = ("candidates", "candidate", "cands", "cand", "pool", "candidate_ids", "candidate_list", "cand_ids")


@dataclass(frozen=True)
class Problem:
    """One fault of an archive; `where` is a file and line, or a row."""

    set: str
    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.set}: {self.where}: {self.what}"


@dataclass
class Archive:
    """One set as the archive has it."""

    task: RetrievalSet
    queries: list[dict[str, Any]] = field(default_factory=list)  # id, text, image, video; media are paths or None
    corpus: dict[str, Path | None] = field(default_factory=dict)  # path by id, None if missing
    positives: dict[str, list[str]] = field(default_factory=dict)  # corpus ids by query
    pools: dict[str, list[str]] | None = None  # candidate ids by query
    problems: list[Problem] = field(default_factory=list)

    def note(self, kind: str, where: str, what: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(self.task.name, kind, where, what))


def find_archive(source: Path, task: RetrievalSet) -> Path | None:
    """The folder of a set that holds `jsonl`, or None."""
    name = task.name
    for folder in (source / name / "UVRB" / name, source / "UVRB" / name, source / name):
        if (folder / "jsonl").is_dir():
            return folder
    return None


def read_archive(source: Path, task: RetrievalSet) -> Archive:
    """Read one set and collect every problem that shows without decoding."""
    archive = Archive(task)
    folder = find_archive(source, task)
    if folder is None:
        archive.note(
            STRUCTURE,
            str(source),
            f"no folder {task.name}/UVRB/{task.name}/jsonl; unpack it, or choose others by --sets",
        )
        return archive
    index = MediaIndex(folder)
    _read_corpus(archive, folder, index)
    _read_queries(archive, folder, index)
    _read_instances(archive, folder)
    _check_counts(archive)
    return archive


def _lines(archive: Archive, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a jsonl file with their places."""
    if not path.is_file():
        archive.note(STRUCTURE, path.name, "missing from the archive; unpack it again")
        return
    with path.open(encoding="utf-8", errors="strict") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}, line {number}"
            if not line.strip():
                continue
            try:
                value = json.loads(line, parse_constant=_refuse)
            except ValueError as error:
                archive.note(STRUCTURE, where, f"not JSON ({error}); one object a line is needed")
                continue
            if isinstance(value, dict):
                yield where, value
            else:
                archive.note(STRUCTURE, where, f"got {type(value).__name__}; one object a line is needed")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _identity(archive: Archive, where: str, row: Mapping[str, Any], taken: Mapping[str, Any]) -> str | None:
    """A row's id as text; None if absent or taken."""
    identity = row.get("id")
    if not isinstance(identity, str | int) or identity == "":
        archive.note(STRUCTURE, where, f"id {shown(identity)}; a text or whole number is needed")
        return None
    if str(identity) in taken:
        archive.note(STRUCTURE, where, f"id {shown(str(identity))} appears more than once; ids must be unique")
        return None
    return str(identity)


def _read_corpus(archive: Archive, folder: Path, index: MediaIndex) -> None:
    for where, row in _lines(archive, folder / "jsonl" / "corpus.jsonl"):
        identity = _identity(archive, where, row, archive.corpus)
        if identity is not None:
            archive.corpus[identity] = _medium(archive, where, row, "video", index.video)


def _read_queries(archive: Archive, folder: Path, index: MediaIndex) -> None:
    taken: dict[str, None] = {}
    needed = archive.task.query_modalities
    for where, row in _lines(archive, folder / "jsonl" / "queries.jsonl"):
        identity = _identity(archive, where, row, taken)
        if identity is None:
            continue
        taken[identity] = None
        query: dict[str, Any] = {"id": identity, "text": None, "image": None, "video": None}
        if "text" in needed:
            query["text"] = row.get("text")
            if not isinstance(query["text"], str) or not query["text"].strip():
                archive.note(
                    STRUCTURE, where, f"text {shown(query['text'])} of query {shown(identity)}; words are needed"
                )
        for modality, find in (("image", index.image), ("video", index.video)):
            if modality in needed:
                query[modality] = _medium(archive, where, row, modality, find)
        archive.queries.append(query)


def _medium(
    archive: Archive, where: str, row: Mapping[str, Any], modality: str, find: Callable[[str], Path | None]
) -> Path | None:
    name = row.get(modality)
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    if not isinstance(name, str) or not name:
        archive.note(
            STRUCTURE, where, f"{modality} {shown(name)} of {shown(row.get('id'))}; the name of a file is needed"
        )
        return None
    path = find(name)
    if path is None:
        archive.note(
            MEDIA, where, f"{modality} {shown(name)} of {shown(row.get('id'))} is missing; no such file or frames"
        )
    return path


def _read_instances(archive: Archive, folder: Path) -> None:
    """Positives and pools; a query may have several lines."""
    known = {query["id"]: None for query in archive.queries}
    pools: dict[str, dict[str, None]] = {}
    for where, row in _lines(archive, folder / "jsonl" / "instances.jsonl"):
        query = str(_first(row, _QUERY_KEYS))
        if query not in known:
            archive.note(STRUCTURE, where, f"unknown query {shown(query)}; ids of queries.jsonl are accepted")
            continue
        positives = _ids(archive, where, _first(row, _POSITIVE_KEYS))
        archive.positives.setdefault(query, []).extend(
            one for one in positives if one not in archive.positives.get(query, [])
        )
        others = _ids(archive, where, _first(row, _NEGATIVE_KEYS)) + _ids(archive, where, _first(row, _POOL_KEYS))
        if others:
            pools.setdefault(query, {}).update(dict.fromkeys([*positives, *others]))
    for query in known:
        if not archive.positives.get(query):
            archive.note(
                STRUCTURE, "instances.jsonl", f"query {shown(query)} has no positive; each needs at least one"
            )
    if archive.task.pool_size is not None:
        _take_pools(archive, pools, known)


def _take_pools(archive: Archive, pools: Mapping[str, Mapping[str, None]], known: Mapping[str, None]) -> None:
    lacking = [query for query in known if query not in pools]
    if lacking:
        archive.note(
            POOLS,
            "instances.jsonl",
            f"{len(lacking)} of {len(known)} queries have no candidates, the first {shown(lacking[0])}; one of "
            f"{', '.join((*_NEGATIVE_KEYS, *_POOL_KEYS))} is read; without pools the set cannot be scored",
        )
        return
    archive.pools = {query: sorted(pools[query]) for query in known}
    size = archive.task.pool_size
    wrong = [query for query, pool in archive.pools.items() if len(pool) != size]
    if wrong:
        got = len(archive.pools[wrong[0]])
        archive.note(
            COUNTS, "instances.jsonl", f"{len(wrong)} pools of another size than {size}; {shown(wrong[0])} has {got}"
        )


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _ids(archive: Archive, where: str, value: Any) -> list[str]:
    """Known corpus ids from one id, a list of ids, or a list of rows with an id."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    found = [str(one.get("id") if isinstance(one, dict) else one) for one in values]
    for identity in found:
        if identity not in archive.corpus:
            archive.note(STRUCTURE, where, f"unknown corpus id {shown(identity)}; ids of corpus.jsonl are accepted")
    return [identity for identity in dict.fromkeys(found) if identity in archive.corpus]


def _check_counts(archive: Archive) -> None:
    task = archive.task
    expected = [("queries", len(archive.queries), task.official_queries)]
    if task.pool_size is None:  # with pools, the paper gives their size alone
        expected.append(("corpus", len(archive.corpus), task.official_corpus))
    for name, got, wanted in expected:
        if got != wanted:
            archive.note(COUNTS, f"{name}.jsonl", f"{got} rows; the paper has {wanted}; unpack it again")
