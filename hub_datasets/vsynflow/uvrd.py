"""UVRD on disk: one configuration a task in parquet, media stored once, a card that says how all of it came about.

`load_dataset(folder, "t2v")` gives rows that train as they are. In the "reference" layout they name files of the
folder by their whole paths, each file there once; in the "embed" layout, which is for publishing, they hold the bytes.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from gve.hub_datasets.schema import TASKS, pair_features
from gve.hub_datasets.vsynflow.extension.pairs import Candidate, Side, candidates_of, choose, lineage, source_fact
from gve.hub_datasets.vsynflow.files import commit_json
from gve.hub_datasets.vsynflow.records import Record, read_video
from gve.hub_datasets.vsynflow.uvrd_card import uvrd_card
from gve.hub_datasets.world.files import write_rows, write_text

LAYOUTS = ("reference", "embed")
SHARD_ROWS = 1000
FACTS = "facts.json"


def uvrd_features() -> Features:
    """Columns of a row: those of the schema, and where the row comes from."""
    origin = {name: Value("string") for name in ("record", "origin", "captioner", "prompt", "raw_text")}
    places = {name: Value("float64") for name in ("frame_time", "clip_start", "clip_end")}
    ranks = {name: Value("float32") for name in ("text_rank", "reference_rank", "both_rank")}
    lines = {**origin, **places, "negatives": List(Value("string"))}
    return Features(
        {**pair_features(), "source": Value("string"), "licence": Value("string"), **ranks, "lineage": lines}
    )


@dataclass
class Report:
    """What went into a UVRD and what did not; the card and facts.json are made of it.

    Attributes:
        rejected: Records by the code that they were rejected with.
        failed: Records by the code that they failed with.
        limits: Limits of the filters, by stage.
        captioner: Who wrote the captions.
        decontamination: The gate's report, with its "passed"; None where it was not run.
        seed: Seed of the run.
        media: One of LAYOUTS.
        rows: Rows by task; filled in when they are written.
        tokens: Tokens read and written by the captioner; likewise.
        licences: Rows by licence; likewise.
        needing_both: Composed rows whose parts were ranked, and of them those that need both; likewise.
    """

    rejected: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    captioner: str = ""
    decontamination: Mapping[str, Any] | None = None
    seed: int = 0
    media: str = "reference"
    records: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    licences: dict[str, int] = field(default_factory=dict)
    needing_both: dict[str, list[int]] = field(default_factory=dict)


def write_uvrd(
    records: Sequence[Record],
    work: Path,
    folder: Path,
    *,
    report: Report,
    quotas: Mapping[str, int] | None = None,
    total: int | None = None,
) -> Report:
    """Make pairs of records and write them; the same records give the same parquet bytes in the same folder.

    Args:
        records: Records that passed every stage; their `frame` and `clip` name files of the work folder.
        work: The run's work folder.
        folder: Where UVRD goes; files of an earlier build are replaced.
        report: What is known of the run; counts are filled in.
        quotas: Proportions of the tasks; None for the paper's.
        total: Rows in all; None for as many as possible.

    Returns:
        The report.

    Raises:
        ValueError: If there is no record, a record lacks a licence, ids repeat, the layout is unknown, or the folder
            holds anything but an earlier build.
    """
    _check(records, report)
    _clear(folder)
    by_id = {record["id"]: record for record in records}
    found = [candidate for record in records for candidate in candidates_of(record, report.seed)]
    chosen = choose(found, seed=report.seed, quotas=quotas, total=total)
    commit_json(folder / FACTS, {})  # first, so that a build that was stopped is known for one
    store = _Store(work, folder.resolve(), embed=report.media == "embed")
    for task, rows in chosen.items():
        shards = -(-len(rows) // SHARD_ROWS)
        for shard in range(shards):
            part = rows[shard * SHARD_ROWS : (shard + 1) * SHARD_ROWS]
            path = folder / task / f"train-{shard:05d}-of-{shards:05d}.parquet"
            write_rows(path, _rows(part, by_id, store), uvrd_features())
    _count(report, records, chosen)
    commit_json(folder / FACTS, asdict(report))
    write_text(folder / "README.md", uvrd_card(folder, report))
    return report


def _check(records: Sequence[Record], report: Report) -> None:
    if report.media not in LAYOUTS:
        raise ValueError(f"media: got {report.media!r}; {', '.join(LAYOUTS)} are accepted; embed is for publishing")
    if report.media == "embed" and not (report.decontamination or {}).get("passed"):
        raise ValueError(
            "decontamination: got no report of a passed gate; a set with embedded media is for publishing and needs "
            "one; run the gate, or build with media='reference'"
        )
    if not records:
        raise ValueError("records: got none; at least one that passed every stage is needed; see what was rejected")
    double = [name for name, count in Counter(record["id"] for record in records).items() if count > 1]
    if double:
        raise ValueError(f"records: id {double[0]!r} stands more than once; unique ids are accepted; rename one")
    bare = [record["id"] for record in records if not record["licence"]]
    if bare:
        raise ValueError(f"licence: record {bare[0]!r} has none; every row needs one; name it when reading the corpus")


def _clear(folder: Path) -> None:
    """Take an earlier build away, so that none of its rows or media stay."""
    if folder.exists() and any(folder.iterdir()) and not (folder / FACTS).is_file():
        raise ValueError(
            f"folder: {folder.name} holds files of something else; an empty folder or an earlier build of UVRD is accepted"
        )
    for name in (*TASKS, "media"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _rows(chosen: Sequence[Candidate], by_id: Mapping[str, Record], store: "_Store") -> Iterator[dict[str, Any]]:
    for one in chosen:
        record, ranks = one.record, one.ranks or {}
        fact = source_fact(record)
        yield {
            "id": one.id,
            "task": one.task,
            "kind": one.kind,
            "instruction": one.instruction,
            "query": store.side(record, one.query),
            "target": store.side(record, one.target),
            # a negative that a later stage dropped is gone with its record
            "negatives": [store.side(by_id[n], Side(shows="video")) for n in one.negatives if n in by_id],
            "group": "",
            "query_facts": [fact],
            "target_facts": [fact],
            "source": record["source"],
            "licence": record["licence"],
            **{f"{name}_rank": ranks.get(name) for name in ("text", "reference", "both")},
            "lineage": lineage(record, one),
        }


class _Store:
    """Media files of a UVRD: each once, under the name of its content."""

    def __init__(self, work: Path, folder: Path, *, embed: bool) -> None:
        self.work, self.folder, self.embed = work, folder, embed
        self._videos: dict[str, Path] = {}

    def side(self, record: Record, side: Side) -> dict[str, Any]:
        """One side of a pair in the form of the schema."""
        shown = None if side.shows is None else self._media(record, side.shows)
        image = shown if side.shows == "frame" else None
        return {"text": side.text, "image": image, "video": None if image else shown}

    def _media(self, record: Record, shows: str) -> dict[str, Any]:
        if self.embed:
            content = read_video(record) if shows == "video" else (self.work / record[shows]["path"]).read_bytes()
            return {"bytes": content, "path": None}
        path = self._video(record) if shows == "video" else self._placed(self.work / record[shows]["path"])
        return {"bytes": None, "path": str(path)}

    def _video(self, record: Record) -> Path:
        """A record's video in the folder, copied at its first use."""
        name = repr(sorted(record["video"].items()))
        if name not in self._videos:
            content = read_video(record)
            digest = blake2b(content, digest_size=16).hexdigest()
            suffix = Path(record["video"]["path"]).suffix if record["video"]["offset"] is None else ".mp4"
            path = self.folder / "media" / digest[:2] / f"{digest}{suffix or '.mp4'}"
            if not path.is_file():
                _write(path, content)
            self._videos[name] = path
        return self._videos[name]

    def _placed(self, source: Path) -> Path:
        """A file of the work folder, whose name is a digest of its content already."""
        path = self.folder / "media" / source.parent.name / source.name
        if not path.is_file():
            _write(path, source.read_bytes())
        return path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _count(report: Report, records: Sequence[Record], chosen: Mapping[str, Sequence[Candidate]]) -> None:
    report.records = len(records)
    report.rows = {task: len(rows) for task, rows in chosen.items()}
    report.licences = dict(sorted(Counter(one.record["licence"] for rows in chosen.values() for one in rows).items()))
    report.tokens = {
        kind: sum(record[f"{part}_{kind}_tokens"] or 0 for record in records for part in ("caption", "composition"))
        for kind in ("input", "output")
    }
    for task, rows in chosen.items():
        ranked = [one.ranks for one in rows if one.ranks is not None]
        if ranked:
            needing = sum(ranks["both"] < min(ranks["text"], ranks["reference"]) for ranks in ranked)
            report.needing_both[task] = [len(ranked), int(needing)]
