"""`gve synth report`: what a run kept, rejected, wrote and cost, on one HTML page."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gve.hub_datasets.files import read_json
from gve.hub_datasets.pages import html_histogram, html_page, html_table
from gve.hub_datasets.parquet import read_facts
from gve.hub_datasets.vsynflow.decontamination import NAME, WRITTEN
from gve.hub_datasets.vsynflow.prompts import FRAME_STYLES, VIDEO_STYLES
from gve.hub_datasets.vsynflow.record_sheets import STYLE, mark, reason, thumbnails
from gve.hub_datasets.vsynflow.records import Record, digest
from gve.hub_datasets.vsynflow.runner import RUN
from gve.hub_datasets.vsynflow.shards import CorpusPlan, read_manifest, read_plan
from gve.hub_datasets.vsynflow.status import read_table, run_status
from gve.hub_datasets.vsynflow.tasks import done_file

SHOWN = {"kept": 24, "rejected": 8, "failed": 8}  # records of a reason with a picture
PAIRS = 12  # duplicates beside what they repeat


class Score(NamedTuple):
    """A measured column with its limits; a part of a struct comes after a dot."""

    stage: str
    column: str
    limit: str
    judge: str = ""  # stage with the limit, if it is another one


SCORES = (
    Score("rectification", "caption.words", "words"),
    Score("rectification", "caption.unique", "least_unique"),
    Score("multiplicity", "same_caption", "most"),
    Score("near_captions", "caption_overlap", "most"),
    *(Score("integrity", name, name if name == "fps" else "seconds") for name in ("duration", "fps")),
    *(Score("integrity", name, f"most_{name}") for name in ("errors", "blank", "black")),
    *(Score("integrity", name, f"least_{name}") for name in ("frames", "motion", "moving")),
    Score("duplicates", "duplicate_bits", "most_bits"),
    Score("nsfw", "nsfw", "threshold"),
    Score("similarity", "similarity", "floor", "consistency"),
    Score("consistency", "similarity_rank", "least_share"),
    Score(NAME, "leak_bits", "most_bits"),
    Score(NAME, "leak_video", "most_video_similarity"),
    *(Score(gate, "leak_runs", "most_runs") for gate in (NAME, WRITTEN)),
    *(Score(gate, "leak_similarity", "most_similarity") for gate in (NAME, WRITTEN)),
)


def run_report(folder: Path) -> str:
    """The page of a run, finished or not.

    Raises:
        ValueError: If the folder holds no plan, or its flow has not begun.
    """
    plan, path = read_plan(folder), folder / RUN
    if not path.exists():
        raise ValueError(f"folder: {folder} holds no {RUN}. Run gve synth run first.")
    stages, status = read_json(path)["stages"], run_status(folder)
    left = {table: f"{count:,}" for table, count in status["ended"].items() if table != "retryable"}
    about = f"{plan.rows:,} records, {status['done']} of {len(plan.shards)} shards are done. "
    parts = [
        "<h1>V-SynFlow run</h1>",
        f"<p>{about}{' '.join(mark(table, count) for table, count in left.items())}</p>",
    ]
    parts += ["<h2>Cost</h2>", _costs(status["costs"]), "<h2>Counts by stage</h2>", _funnel(stages, status, plan.rows)]
    plots = [html_histogram(*found) for found in _scores(folder, plan, stages)]
    parts += ["<h2>Scores and limits</h2>", f'<div class="plots">{"".join(plots)}</div>']
    parts += ["<h2>Captions of kept records</h2>", *_captions(folder, plan)]
    parts += ["<h2>Duplicates</h2>", *_duplicates(folder, plan, stages)]
    leaks = {name: count for name, count in status["reasons"].items() if name.startswith(NAME)}
    refused = html_table(("net", "records"), leaks.items()) if leaks else "<p>None.</p>"
    parts += ["<h2>Leaks refused</h2>", refused if NAME in stages else "<p>The flow has no gate.</p>"]
    parts += ["<h2>Records</h2>", *_sheets(folder, plan)]
    return html_page("V-SynFlow run", parts, STYLE)


def _costs(costs: Mapping[str, Any]) -> str:
    thousand = costs.get("per_1000_pairs", {})
    names = [name for name, value in costs.items() if isinstance(value, (int, float))]
    rows = [(name.replace("_", " "), f"{costs[name]:,}", thousand.get(name, "")) for name in names]
    return html_table(("", "so far", "a thousand pairs"), rows)


def _results(stages: Mapping[str, Any], stage: str) -> str:
    """The folder of a stage's results, which `stages.fingerprint` names."""
    described = stages[stage]
    return f"{stage}-{digest(stage, described['version'], described['params'], '')[:12]}"


def _funnel(stages: Mapping[str, Any], status: Mapping[str, Any], records: int) -> str:
    rows = []
    for stage in stages:
        lost = {name: count for name, count in status["reasons"].items() if name.startswith(f"{stage}: ")}
        records -= sum(lost.values())
        codes = ", ".join(f"{name.partition(': ')[2]} {count:,}" for name, count in lost.items())
        stored = status["stages"].get(_results(stages, stage), {})
        met = sum(count for name, count in stored.items() if name != "shards")
        rows.append((stage, f"{met:,}", f"{sum(lost.values()):,}", f"{records:,}", codes))
    return html_table(("stage", "measured so far", "lost", "left", "why, in shards that are done"), rows)


def _stored(
    folder: Path, plan: CorpusPlan, stages: Mapping[str, Any], stage: str, columns: list[str]
) -> pa.Table | None:
    """Columns of a stage's results for the run's own records; None if there are none."""
    if stage not in stages:
        return None
    place, tables = folder / "stages" / _results(stages, stage), []
    for shard in plan.shards:
        path = place / f"{shard.name}.parquet"
        if path.exists():  # the rows of earlier configurations come last
            found = pq.read_table(path, columns=columns, partitioning=None)
            tables.append(found.slice(0, sum(read_facts(path)["counts"].values())))
    return pa.concat_tables(tables) if tables else None


def _scores(
    folder: Path, plan: CorpusPlan, stages: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray, tuple[float, ...]]]:
    for score in SCORES:
        name, _, part = score.column.partition(".")
        table = _stored(folder, plan, stages, score.stage, [name])
        if table is None:
            continue
        found = table[name].combine_chunks()
        values = (found.field(part) if part else found).drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
        limit = stages.get(score.judge or score.stage, {"limits": {}})["limits"].get(score.limit, ())
        limits = tuple(limit) if isinstance(limit, (list, tuple)) else (limit,)
        if len(values):
            yield f"{score.stage}: {score.column}", values, limits


def _captions(folder: Path, plan: CorpusPlan) -> Iterator[str]:
    """Lengths and repetitions of what the captioner wrote, by style."""
    for title, column, styles in (("video", "captions", VIDEO_STYLES), ("frame", "frame_captions", FRAME_STYLES)):
        texts: list[list[str]] = []
        for path in _tables(folder, plan, "kept"):
            if column in pq.read_schema(path).names:
                texts += pq.read_table(path, columns=[column], partitioning=None)[column].drop_null().to_pylist()
        if not texts:
            continue
        rows, plots = [], []
        for style, written in zip(styles, zip(*texts, strict=True), strict=True):
            words = np.array([len(text.split()) for text in written], np.float64)
            different = len(set(written)) / len(written)
            rows.append(
                (style.name, len(written), f"{words.mean():.1f}", f"{style.low}-{style.high}", f"{different:.0%}")
            )
            plots.append(html_histogram(f"{title}, {style.name}: words", words, (style.low, style.high)))
        head = (f"style of a {title}", "captions", "words, mean", "words asked for", "different texts")
        yield html_table(head, rows)
        yield f'<div class="plots">{"".join(plots)}</div>'


def _tables(folder: Path, plan: CorpusPlan, table: str) -> list[Path]:
    done = [shard for shard in plan.shards if done_file(folder, shard).exists()]
    return [folder / table / f"{shard.name}.parquet" for shard in done]


def _duplicates(folder: Path, plan: CorpusPlan, stages: Mapping[str, Any]) -> Iterator[str]:
    table = _stored(folder, plan, stages, "duplicates", ["_id", "duplicate_of", "duplicate_bits"])
    if table is None:
        yield "<p>Not looked for yet.</p>"
        return
    most = stages["duplicates"]["limits"]["most_bits"]
    found = table.filter(pc.less_equal(table["duplicate_bits"], most)).to_pylist()
    yield f"<p>{len(found):,} of {len(table):,} videos repeat an earlier one; each copy stands before its original.</p>"
    shown = sorted(found, key=lambda row: digest(row["_id"]))[:PAIRS]
    records = _raw(folder, plan, {name for row in shown for name in (row["_id"], row["duplicate_of"])})
    for row in shown:
        pictures = [_picture(records.get(name), name) for name in (row["_id"], row["duplicate_of"])]
        yield f'<div class="sheet">{"".join(pictures)}<p>{row["duplicate_bits"]} of 256 bits differ</p></div>'


def _sheets(folder: Path, plan: CorpusPlan) -> Iterator[str]:
    """Contact sheets by reason, of records drawn by a digest of their ids."""
    chosen: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for table, most in SHOWN.items():
        for row in read_table(folder, table):
            why = "" if table == "kept" else f"{row['stage']}: {row['code'].partition(': ')[0]}"
            counts[table, why] += 1
            short = {name: row.get(name) for name in ("id", "origin", "stage", "code", "score", "text")}
            chosen[table, why] = sorted([*chosen[table, why], short], key=lambda one: digest(one["id"]))[:most]
    records = _raw(folder, plan, {row["origin"] for rows in chosen.values() for row in rows})
    for (table, why), rows in sorted(chosen.items(), key=lambda item: (item[0][0] != "kept", -counts[item[0]])):
        pictures = [
            _picture(records[row["origin"]], row["id"], "" if table == "kept" else reason(row)) for row in rows
        ]
        yield f"<h3>{mark(table, why)} {counts[table, why]:,}</h3>" + f'<div class="sheet">{"".join(pictures)}</div>'


def _raw(folder: Path, plan: CorpusPlan, names: set[str]) -> dict[str, Record]:
    """Raw records by id; as many as a page shows."""
    found: dict[str, Record] = {}
    for shard in plan.shards:
        if len(found) < len(names):
            found |= {row["id"]: row for row in read_manifest(folder, shard) if row["id"] in names}
    return found


def _picture(record: Record | None, name: str, words: str = "") -> str:
    picture = "".join(thumbnails(record, 1)) if record else ""
    told = [name, *([words] if words else []), record["text"] if record else ""]
    return f"<figure>{picture or '<p>no frame decodes</p>'}{'<br>'.join(escape(one) for one in told)}</figure>"
