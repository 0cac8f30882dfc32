"""Converts a user's copy of the official archives to a folder that our loader, `load_dataset` and MTEB read.

All text in the archives is checked first; then each distinct video is read once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Features, List, Value

from gve.hub_datasets.files import remove_leftovers, write_text
from gve.hub_datasets.parquet import write_rows
from gve.hub_datasets.parts import write_parts
from gve.hub_datasets.uvrb.archive import COUNTS, MEDIA, POOLS, Problem, read_archive
from gve.hub_datasets.uvrb.card import SPLIT, archive_card
from gve.hub_datasets.uvrb.media import FrameSettings
from gve.hub_datasets.uvrb.shards import ConversionShard, ConvertedSet, make_shards, print_of
from gve.hub_datasets.uvrb.tasks import resolve

SCHEMA = "gve-conversion/1"
_TEXT = Value("string")
_QRELS = Features({"query-id": _TEXT, "corpus-id": _TEXT, "score": Value("int32")})
_TOP_RANKED = Features({"query-id": _TEXT, "corpus-ids": List(_TEXT)})


@dataclass(frozen=True)
class Leniency:
    """Which problems do not stop a conversion; all are reported."""

    any_counts: bool = False  # queries, videos or candidates differ from the paper
    without_pools: bool = False  # such sets are stored but cannot be scored
    allow_missing: bool = False  # drops rows whose media are missing or broken

    def stops(self, problem: Problem) -> bool:
        """Whether a problem stops the conversion."""
        allowed = {COUNTS: self.any_counts, POOLS: self.without_pools, MEDIA: self.allow_missing}
        return not allowed.get(problem.kind, False)


def convert(
    source: Path,
    target: Path,
    *,
    sets: Iterable[str] | None = None,
    settings: FrameSettings | None = None,
    leniency: Leniency | None = None,
    workers: int = 2,
    progress: bool = True,
) -> dict[str, Any]:
    """Convert archives, or the named sets; finished parts of an interrupted run are kept.

    Returns:
        The content of `report.json`; `complete` is False if a set was not stored.

    Raises:
        ValueError: If a problem is not allowed; the report lists all of them.
    """
    settings, leniency = settings or FrameSettings(), leniency or Leniency()
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}. Raise it.")
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    found = [ConvertedSet(read_archive(source, task)) for task in resolve(sets)]
    if stopping := [problem for one in found for problem in one.archive.problems if leniency.stops(problem)]:
        _report(target, found, settings)
        more = f" and {len(stopping) - 1} more" if len(stopping) > 1 else ""
        raise ValueError(f"{stopping[0]}{more}. All are in {target / 'report.txt'}. Repair them, or see --help.")
    prints: dict[Path, str] = {}
    _add_corpora(found, target, settings, prints)
    options = {"workers": workers, "progress": progress, "unit": "row"}
    write_parts(_distinct(one.corpus for one in found), title="videos", **options)
    for one in found:
        folder = target / f"{one.archive.task.slug}-queries"
        one.queries = make_shards(folder, _query_rows(one), settings, prints, query=True)
    write_parts(_distinct(one.queries for one in found), title="queries", **options)
    for one in found:
        one.note_broken()
        one.published = not any(map(leniency.stops, one.archive.problems))
        if one.published:
            _write_tables(target, one)
    write_text(target / "README.md", archive_card(target, [one for one in found if one.published]))
    _remove_others(_distinct([*one.corpus, *one.queries] for one in found))
    return _report(target, found, settings)


def _distinct(shards: Iterable[Sequence[ConversionShard]]) -> list[ConversionShard]:
    """Each file once, though several sets share it."""
    return list({shard.path: shard for several in shards for shard in several}.values())


def _add_corpora(sets: Sequence[ConvertedSet], target: Path, settings: FrameSettings, prints: dict[Path, str]) -> None:
    """Plan the corpus files; a video that several sets hold under one id goes into a shared file."""
    owners: dict[tuple[str, str], list[int]] = {}
    paths: dict[tuple[str, str], Path] = {}
    for place, one in enumerate(sets):
        for identity, path in one.archive.corpus.items():
            if path is not None:
                key = (identity, print_of(path, prints))
                owners.setdefault(key, []).append(place)
                paths.setdefault(key, path)
    groups: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for key in sorted(owners):
        groups.setdefault(tuple(owners[key]), []).append({"id": key[0], "video": paths[key]})
    for places, rows in groups.items():
        folder = target / ("_".join(sets[place].archive.task.slug for place in places) + "-corpus")
        shards = make_shards(folder, rows, settings, prints, query=False)
        for place in places:
            sets[place].corpus += shards


def _query_rows(one: ConvertedSet) -> list[dict[str, Any]]:
    """Queries that kept a positive and all their media."""
    archive, lost, rows = one.archive, one.lost(), []
    for query in archive.queries:
        positives = [found for found in archive.positives.get(query["id"], []) if found not in lost]
        if not positives or any(query[part] is None for part in archive.task.query_modalities):
            continue
        pool = archive.pools and [found for found in archive.pools[query["id"]] if found not in lost]
        about = {"set": archive.task.name, "instruction": archive.task.instruction}
        rows.append({**query, **about, "positives": positives, "candidates": pool})
    return rows


def _write_tables(target: Path, one: ConvertedSet) -> None:
    rows = [row for shard in one.queries for row in shard.rows if row["id"] not in shard.broken()]
    slug = one.archive.task.slug
    relevance = ({"query-id": row["id"], "corpus-id": found, "score": 1} for row in rows for found in row["positives"])
    write_rows(target / f"{slug}-qrels" / f"{SPLIT}.parquet", relevance, _QRELS)
    if one.archive.pools is not None:
        pools = ({"query-id": row["id"], "corpus-ids": row["candidates"]} for row in rows)
        write_rows(target / f"{slug}-top_ranked" / f"{SPLIT}.parquet", pools, _TOP_RANKED)


def _remove_others(shards: Sequence[ConversionShard]) -> None:
    """Delete leftovers of other settings, other archives or killed processes."""
    kept = {path for shard in shards for path in (shard.path, shard.note)}
    for folder in {shard.path.parent for shard in shards}:
        for path in folder.iterdir():
            if path not in kept and path.is_file():
                path.unlink()


def _report(target: Path, sets: Sequence[ConvertedSet], settings: FrameSettings) -> dict[str, Any]:
    problems = [problem for one in sets for problem in one.archive.problems]
    corpora = _distinct(one.corpus for one in sets)
    files = {shard.path for shard in (*corpora, *(shard for one in sets for shard in one.queries))}
    report = {
        "schema": SCHEMA,
        "settings": asdict(settings),
        "complete": all(one.published for one in sets),
        "sets": {one.archive.task.name: _entry(one) for one in sets},
        "bytes": sum(path.stat().st_size for path in files if path.exists()),
        "corpus_videos": _count(corpora),
        "problems": [asdict(problem) for problem in problems],
    }
    write_text(target / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(target / "report.txt", _report_text(report, problems))
    return report


def _entry(one: ConvertedSet) -> dict[str, Any]:
    archive, task = one.archive, one.archive.task
    corpus = task.official_corpus if task.pool_size is None else None
    return {
        "published": one.published,
        "queries": {"expected": task.official_queries, "found": len(archive.queries), "stored": _count(one.queries)},
        "corpus": {"expected": corpus, "found": len(archive.corpus), "stored": _count(one.corpus)},
        "pools": archive.pools is not None,
        "problems": len(archive.problems),
    }


def _report_text(report: Mapping[str, Any], problems: Sequence[Problem]) -> str:
    lines = [f"{'set':<12}{'queries':>22}{'corpus':>22}  state"]
    for name, entry in report["sets"].items():
        cells = ["{stored} of {found} ({expected})".format(**entry[part]) for part in ("queries", "corpus")]
        state = "stored" if entry["published"] else "not stored"
        state += "" if not entry["problems"] else f", {entry['problems']} problems"
        lines.append(f"{name:<12}{cells[0]:>22}{cells[1]:>22}  {state}")
    lines += ["", f"{report['corpus_videos']} videos of the corpora, {report['bytes'] / 1e6:.1f} MB in all", ""]
    lines += [f"{problem.kind:<10} {problem}" for problem in problems] or ["no problems"]
    return "\n".join(lines) + "\n"


def _count(shards: Sequence[ConversionShard]) -> int:
    return sum(pq.read_metadata(shard.path).num_rows for shard in shards if shard.path.exists())
