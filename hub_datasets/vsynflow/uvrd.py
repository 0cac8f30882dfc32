"""UVRD on disk: one configuration a task in parquet, and a card that says how it came about.

The layout "once" stores each medium once, in the configuration `media`; rows name it, and `pair_media.load_pairs` joins
them. With "embed" the rows hold the bytes. Both train as they are, and both may be moved, copied and published.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from gve.hub_datasets.files import read_json, write_json, write_text
from gve.hub_datasets.pair_media import MEDIA
from gve.hub_datasets.schema import COUNTERFACTUALS, TASKS, pair_features, task_of
from gve.hub_datasets.vsynflow.decontamination import gate_report
from gve.hub_datasets.vsynflow.extension.counterfactuals import count_margins
from gve.hub_datasets.vsynflow.extension.edits import EDITS
from gve.hub_datasets.vsynflow.extension.pairs import (
    PairRow,
    PairSide,
    choose,
    choose_counterfactuals,
    lineage,
    rows_of,
    source_fact,
)
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.runner import RUN
from gve.hub_datasets.vsynflow.settings import LAYOUTS
from gve.hub_datasets.vsynflow.status import read_table, verify_run
from gve.hub_datasets.vsynflow.uvrd_card import uvrd_card
from gve.hub_datasets.vsynflow.uvrd_store import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    SHARD_BYTES,
    SHARD_ROWS,
    MediaStore,
    cut,
    row_bytes,
    write_shard,
)

FACTS = "facts.json"


def uvrd_features() -> Features:
    """Columns of a row: the schema's, and where the row comes from."""
    origin = {name: Value("string") for name in ("record", "origin", "captioner", "prompt", "raw_text")}
    places = {name: Value("float64") for name in ("frame_time", "clip_start", "clip_end")}
    ranks = {name: Value("float32") for name in ("text_rank", "reference_rank", "both_rank")}
    lines = {**origin, **places, "negatives": List(Value("string"))}
    return Features(
        {
            **pair_features(),
            "source": Value("string"),
            "licence": Value("string"),
            **ranks,
            "changes": List(Value("string")),
            "lineage": lines,
        }
    )


@dataclass
class UvrdFacts:
    """What went into a UVRD and what did not; the card and facts.json are made from it."""

    rejected: Mapping[str, int] = field(default_factory=dict)  # records by reason
    failed: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)  # by stage
    captioner: str = ""
    decontamination: Mapping[str, Any] | None = None  # the gate's report
    seed: int = 0
    media: str = LAYOUTS[0]
    local: bool = False  # any other set needs a passed gate
    records: int = 0  # this and the rest are counted as the rows are written
    rows: dict[str, int] = field(default_factory=dict)  # by task
    stored: dict[str, int] = field(default_factory=lambda: {"files": 0, "bytes": 0})  # media beside rows
    tokens: dict[str, int] = field(default_factory=dict)  # read and written
    licences: dict[str, int] = field(default_factory=dict)  # rows by licence
    sources: dict[str, dict[str, int]] = field(default_factory=dict)  # rows by source and licence
    counterfactuals: dict[str, list[int]] = field(default_factory=dict)  # kind: [known to be wrong, unknown]
    needing_both: dict[str, list[int]] = field(default_factory=dict)  # task: [ranked rows, those that need both parts]


def build_uvrd(
    work: Path,
    folder: Path,
    *,
    media: str = LAYOUTS[0],
    local: bool = False,
    quotas: Mapping[str, int] | None = None,
    total: int | None = None,
) -> UvrdFacts:
    """Write the UVRD of a finished run (see `write_uvrd`); ValueError if the run is unsound or had no captioner."""
    verdict = verify_run(work)
    if verdict.errors:
        raise ValueError(f"work: {verdict.errors[0]}. Run it to its end, then verify it.")
    described = read_json(work / RUN)
    if "mining" not in described["stages"]:
        raise ValueError(
            f"work: the run's stages must include enrichment and extension, got {', '.join(described['stages'])}. "
            "Name a captioner and run again."
        )
    facts = UvrdFacts(
        rejected=_reasons(work, "rejected"),
        failed=_reasons(work, "failed"),
        limits={name: stage["limits"] for name, stage in described["stages"].items() if stage["limits"]},
        captioner=_captioners(described["stages"]),
        decontamination=gate_report(work),
        seed=described["seed"],
        media=media,
        local=local,
    )
    return write_uvrd(list(read_table(work, "kept")), work, folder, facts=facts, quotas=quotas, total=total)


def _captioners(stages: Mapping[str, Any]) -> str:
    names = [stages["enrichment"]["params"]["captioner"], stages["compositions"]["params"].get("writer")]
    return " and ".join(filter(None, names))


def _reasons(work: Path, table: str) -> dict[str, int]:
    counts = Counter(f"{row['stage']}: {row['code']}" for row in read_table(work, table))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_uvrd(
    records: Sequence[Record],
    work: Path,
    folder: Path,
    *,
    facts: UvrdFacts,
    quotas: Mapping[str, int] | None = None,
    total: int | None = None,
) -> UvrdFacts:
    """Make pairs of records and write them; the same records give the same parquet bytes in the same folder.

    Args:
        folder: Where UVRD goes; an earlier build is replaced.
        facts: Of the run; counts are filled in.
        quotas: Proportions of the tasks; None for the paper's.
        total: Rows in all; None for as many as possible.

    Raises:
        ValueError: If the set is neither publishable nor local, a record is unusable, or the folder holds other files.
    """
    _check(records, facts)
    _clear(folder)
    by_id = {record["id"]: record for record in records}
    found = [candidate for record in records for candidate in rows_of(record, facts.seed)]
    chosen = choose(found, seed=facts.seed, quotas=quotas, total=total)
    if "counterfactual_texts" in records[0]:
        counts = {task: len(rows) for task, rows in chosen.items()}
        chosen |= choose_counterfactuals(records, counts, seed=facts.seed)
        facts.counterfactuals = count_margins(records)
    write_json(folder / FACTS, {})  # first, so that a build that was stopped is known for one
    store = MediaStore(work, embed=facts.media == "embed")
    for task, rows in chosen.items():
        _write_task(folder / task, rows, by_id, store)
    facts.stored = dict(zip(("files", "bytes"), store.write(folder / MEDIA), strict=True))
    _count(facts, records, chosen)
    write_json(folder / FACTS, asdict(facts))
    write_text(folder / "README.md", uvrd_card(folder, facts, uvrd_features()))
    return facts


def _check(records: Sequence[Record], facts: UvrdFacts) -> None:
    if facts.media not in LAYOUTS:
        raise ValueError(f"media must be one of {', '.join(LAYOUTS)}, got {facts.media!r}.")
    if not facts.local and not (facts.decontamination or {}).get("passed"):
        raise ValueError(
            "decontamination: a set that may be published needs a passed gate. Name fingerprints of the benchmark and run "
            "again, or build for this machine (--local)."
        )
    if not records:
        raise ValueError("records: got none. See in gve synth status why all were rejected.")
    double = [name for name, count in Counter(record["id"] for record in records).items() if count > 1]
    if double:
        raise ValueError(f"records: ids must be unique, got {double[0]!r} more than once. Rename one.")
    bare = [record["id"] for record in records if not record["licence"]]
    if bare:
        raise ValueError(f"licence: record {bare[0]!r} has none. Name one when you plan the corpus.")


def _clear(folder: Path) -> None:
    """Delete an earlier build, so that none of its rows or media stay."""
    if folder.exists() and any(folder.iterdir()) and not (folder / FACTS).is_file():
        raise ValueError(f"folder must be empty or hold an earlier UVRD, but {folder.name} holds other files.")
    for name in (*TASKS, *COUNTERFACTUALS, MEDIA):
        shutil.rmtree(folder / name, ignore_errors=True)


def require_publishable(folder: Path) -> dict[str, Any]:
    """Read the facts of a UVRD folder; ValueError if it may not be published."""
    path = folder / FACTS
    facts = read_json(path) if path.is_file() else {}
    gate = facts.get("decontamination") or {"passed": False}
    if not facts or facts["local"] or facts["media"] not in LAYOUTS or not gate["passed"]:
        reason = "not a finished UVRD" if not facts else "local" if facts["local"] else "without a passed gate"
        raise ValueError(f"folder: {folder} is {reason}. Build a UVRD from a run with fingerprints (gve synth build).")
    return facts


def _write_task(folder: Path, rows: Sequence[PairRow], by_id: Mapping[str, Record], store: MediaStore) -> None:

    def size(one: PairRow) -> int:
        return row_bytes(one, by_id, store)

    shards = cut(rows, size, most_rows=SHARD_ROWS, most_bytes=SHARD_BYTES)
    for number, shard in enumerate(shards):
        blocks = cut(shard, size, most_rows=BLOCK_ROWS, most_bytes=BLOCK_BYTES)
        path = folder / f"train-{number:05d}-of-{len(shards):05d}.parquet"
        write_shard(path, ([_row(one, by_id, store) for one in block] for block in blocks), uvrd_features())


def _row(one: PairRow, by_id: Mapping[str, Record], store: MediaStore) -> dict[str, Any]:
    record, ranks = one.record, one.ranks or {}
    shown = one.target.shows if one.target.shows in EDITS else ""
    fact = source_fact(record, shown)
    wrong = [store.side(record, side) for side in one.wrong]
    return {
        "id": one.id,
        "task": task_of(one.task),
        "kind": one.kind,
        "instruction": one.instruction,
        "query": store.side(record, one.query),
        "target": store.side(record, one.target),
        # a negative that a later stage dropped is gone with its record
        "negatives": [store.side(by_id[n], PairSide(shows="video")) for n in one.negatives if n in by_id] + wrong,
        "group": record["id"] if one.wrong else "",
        "query_facts": [fact],
        "target_facts": [fact],
        "source": record["source"],
        "licence": record["licence"],
        **{f"{name}_rank": ranks.get(name) for name in ("text", "reference", "both")},
        "changes": list(one.changes),
        "lineage": lineage(record, one),
    }


def _count(facts: UvrdFacts, records: Sequence[Record], chosen: Mapping[str, Sequence[PairRow]]) -> None:
    facts.records = len(records)
    facts.rows = {task: len(rows) for task, rows in chosen.items()}
    facts.licences = dict(sorted(Counter(one.record["licence"] for rows in chosen.values() for one in rows).items()))
    for source in sorted({one.record["source"] for rows in chosen.values() for one in rows}):
        found = (one.record["licence"] for rows in chosen.values() for one in rows if one.record["source"] == source)
        facts.sources[source] = dict(sorted(Counter(found).items()))
    facts.tokens = {
        kind: sum(
            record.get(f"{part}_{kind}_tokens") or 0
            for record in records
            for part in ("caption", "composition", "counterfactual")
        )
        for kind in ("input", "output")
    }
    for task, rows in chosen.items():
        ranked = [one.ranks for one in rows if one.ranks is not None]
        if ranked:
            needing = sum(ranks["both"] < min(ranks["text"], ranks["reference"]) for ranks in ranked)
            facts.needing_both[task] = [len(ranked), int(needing)]
