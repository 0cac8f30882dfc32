"""A user's own copy of the official archives as a folder that our loader, `load_dataset` and MTEB read.

First everything that is written in the archives is checked, then the videos are read: each distinct one once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Features, List, Value

from gve.hub_datasets.uvrb.archive import COUNTS, MEDIA, POOLS, Archive, Problem, read_archive
from gve.hub_datasets.uvrb.card import SPLIT, archive_card
from gve.hub_datasets.uvrb.media import FrameSettings, fingerprint
from gve.hub_datasets.uvrb.shards import Shard, make_shards, write_shards
from gve.hub_datasets.uvrb.tasks import resolve
from gve.hub_datasets.world.files import write_rows, write_text

SCHEMA = "gve-conversion/1"
_TEXT = Value("string")
_QRELS = Features({"query-id": _TEXT, "corpus-id": _TEXT, "score": Value("int32")})
_TOP_RANKED = Features({"query-id": _TEXT, "corpus-ids": List(_TEXT)})


@dataclass(frozen=True)
class Leniency:
    """Which problems do not stop a conversion; each is reported all the same.

    Attributes:
        any_counts: Numbers of queries, videos or candidates other than the paper's.
        without_pools: Sets that need candidate pools and have none; they are stored and cannot be scored.
        allow_missing: Missing and broken media; what needs them is left out.
    """

    any_counts: bool = False
    without_pools: bool = False
    allow_missing: bool = False

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
    """Convert archives; what an earlier, interrupted run finished is kept.

    Args:
        source: Where the archives were unpacked.
        target: Where to; made if missing.
        sets: Names or slugs; None for all sixteen.
        settings: How videos are stored.
        leniency: Which problems do not stop it.
        workers: Processes that read videos.
        progress: Whether to show bars on stderr.

    Returns:
        What is also in `report.json`: settings, counts and bytes by set, and every problem. `complete` tells whether
        all sets are there; a set with broken media is not, unless that was allowed.

    Raises:
        ValueError: When the archives have a problem that is not allowed; all of them are in the report.
    """
    settings, leniency = settings or FrameSettings(), leniency or Leniency()
    if workers < 1:
        raise ValueError(f"workers: {workers}; 1 or more is accepted; raise it")
    target.mkdir(parents=True, exist_ok=True)
    archives = [read_archive(source, task) for task in resolve(sets)]
    _stop_at(archives, leniency, target, settings)
    prints: dict[Path, str] = {}
    corpora = _corpus_shards(target, archives, settings, prints)
    write_shards(_distinct(corpora), workers=workers, progress=progress, title="videos")
    queries = {}
    for archive in archives:
        name, folder = archive.task.name, target / f"{archive.task.slug}-queries"
        rows = _query_rows(archive, _lost(corpora[name], archive.corpus))
        queries[name] = make_shards(folder, rows, settings, query=True, prints=prints)
    write_shards(_distinct(queries), workers=workers, progress=progress, title="queries")
    for archive in archives:
        _note_broken(archive, [*corpora[archive.task.name], *queries[archive.task.name]])
    published = [archive for archive in archives if not any(map(leniency.stops, archive.problems))]
    for archive in published:
        _write_tables(target, archive, queries[archive.task.name])
    names = [archive.task.name for archive in published]
    write_text(target / "README.md", archive_card(target, published, _pick(corpora, names), _pick(queries, names)))
    _remove_others(target, [*_all(corpora), *_all(queries)])
    return _report(target, archives, settings, corpora, queries, names)


def _stop_at(archives: Sequence[Archive], leniency: Leniency, target: Path, settings: FrameSettings) -> None:
    """Stop, with a report of everything, at problems that are not allowed."""
    stopping = [problem for archive in archives for problem in archive.problems if leniency.stops(problem)]
    if not stopping:
        return
    _report(target, archives, settings, {}, {}, [])
    more = f" and {len(stopping) - 1} more" if len(stopping) > 1 else ""
    raise ValueError(f"{stopping[0]}{more}; all are in {target / 'report.txt'}; mend them or see --help")


def _note_broken(archive: Archive, shards: Sequence[Shard]) -> None:
    """Add the media that turned out to be broken to an archive's problems."""
    for shard in shards:
        for identity, reason in shard.broken().items():
            archive.note(MEDIA, f"{'query' if shard.query else 'corpus'} {identity!r}", reason)


def _all(shards: Mapping[str, Sequence[Shard]]) -> Iterable[Shard]:
    return (shard for several in shards.values() for shard in several)


def _distinct(shards: Mapping[str, Sequence[Shard]]) -> list[Shard]:
    """Each file once, though several sets share it."""
    return list({shard.path: shard for shard in _all(shards)}.values())


def _pick(shards: Mapping[str, list[Shard]], names: Sequence[str]) -> dict[str, list[Shard]]:
    return {name: shards[name] for name in names}


def _corpus_shards(
    target: Path, archives: Sequence[Archive], settings: FrameSettings, prints: dict[Path, str]
) -> dict[str, list[Shard]]:
    """Files of each set's corpus; a video that several sets have under one id lies in a file that they share."""
    owners: dict[tuple[str, str], list[str]] = {}
    paths: dict[tuple[str, str], Path] = {}
    for archive in archives:
        for identity, path in archive.corpus.items():
            if path is None:
                continue
            if path not in prints:
                prints[path] = f"{path.stem}|{fingerprint(path)}"
            key = (identity, prints[path])
            owners.setdefault(key, []).append(archive.task.slug)
            paths.setdefault(key, path)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key in sorted(owners):
        groups.setdefault(tuple(owners[key]), []).append({"id": key[0], "video": paths[key]})
    found: dict[str, list[Shard]] = {archive.task.name: [] for archive in archives}
    by_slug = {archive.task.slug: archive.task.name for archive in archives}
    for slugs, rows in groups.items():
        folder = target / ("_".join(slugs) + "-corpus")
        shards = make_shards(folder, rows, settings, query=False, prints=prints)
        for slug in slugs:
            found[by_slug[slug]] += shards
    return found


def _lost(shards: Sequence[Shard], corpus: Mapping[str, Path | None]) -> set[str]:
    """Ids of a corpus whose video is missing or could not be read."""
    broken = {identity for shard in shards for identity in shard.broken()}
    return {identity for identity, path in corpus.items() if path is None or identity in broken}


def _query_rows(archive: Archive, lost: set[str]) -> list[dict[str, Any]]:
    """Queries that still have a positive and all of their media."""
    rows = []
    for query in archive.queries:
        positives = [one for one in archive.positives.get(query["id"], []) if one not in lost]
        if not positives or any(query[part] is None for part in archive.task.query_modalities):
            continue
        pool = None if archive.pools is None else [one for one in archive.pools[query["id"]] if one not in lost]
        told = {"set": archive.task.name, "instruction": archive.task.instruction}
        rows.append({**query, **told, "positives": positives, "candidates": pool})
    return rows


def _write_tables(target: Path, archive: Archive, queries: Sequence[Shard]) -> None:
    """Relevance and pools of the queries that were stored."""
    rows = [row for shard in queries for row in shard.rows if row["id"] not in shard.broken()]
    slug = archive.task.slug
    relevance = ({"query-id": row["id"], "corpus-id": one, "score": 1} for row in rows for one in row["positives"])
    write_rows(target / f"{slug}-qrels" / f"{SPLIT}.parquet", relevance, _QRELS)
    if archive.pools is not None:
        pools = ({"query-id": row["id"], "corpus-ids": row["candidates"]} for row in rows)
        write_rows(target / f"{slug}-top_ranked" / f"{SPLIT}.parquet", pools, _TOP_RANKED)


def _remove_others(target: Path, shards: Sequence[Shard]) -> None:
    """Take away what other settings, other archives or killed processes left in the folders of videos."""
    kept = {path for shard in shards for path in (shard.path, shard.note)}
    for folder in {shard.path.parent for shard in shards}:
        for path in folder.iterdir():
            if path not in kept and path.is_file():
                path.unlink()


def _report(
    target: Path,
    archives: Sequence[Archive],
    settings: FrameSettings,
    corpora: Mapping[str, list[Shard]],
    queries: Mapping[str, list[Shard]],
    published: Sequence[str],
) -> dict[str, Any]:
    """Write down what was found and made, as JSON and as text."""
    problems = [problem for archive in archives for problem in archive.problems]
    files = {shard.path for shard in (*_all(corpora), *_all(queries)) if shard.path.exists()}
    entries = {}
    for archive in archives:
        name, task = archive.task.name, archive.task
        stored = [_count(shards.get(name, [])) for shards in (queries, corpora)]
        entries[name] = {
            "published": name in published,
            "queries": {"expected": task.official_queries, "found": len(archive.queries), "stored": stored[0]},
            "corpus": {
                "expected": task.official_corpus if task.pool_size is None else None,
                "found": len(archive.corpus),
                "stored": stored[1],
            },
            "pools": archive.pools is not None,
            "problems": len(archive.problems),
        }
    videos = _count(_distinct(corpora))
    size = sum(path.stat().st_size for path in files)
    report = {
        "schema": SCHEMA,
        "settings": asdict(settings),
        "complete": len(published) == len(archives),
        "sets": entries,
        "bytes": size,
        "corpus_videos": videos,
        "problems": [asdict(problem) for problem in problems],
    }
    write_text(target / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(target / "report.txt", _report_text(report, problems))
    return report


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


def _count(shards: Sequence[Shard]) -> int:
    return sum(pq.read_metadata(shard.path).num_rows for shard in shards if shard.path.exists())
