"""The demo's own data: V-SynFlow on the raw corpus with weak titles, and the pairs it makes.

The captioner is the world's own, which looks up what a video shows. Everything else is what any corpus goes through:
quality control, decontamination against the demo's own benchmark, captions in five styles, pairs of all seven tasks.
"""

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, get_dataset_config_names

from gve.hub_datasets.pair_media import load_pairs
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.vsynflow.config import make_config, make_flow
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.fingerprints import make_fingerprints
from gve.hub_datasets.vsynflow.readers import RawCorpus, read_corpus
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.status import read_table, verify_run
from gve.hub_datasets.vsynflow.uvrb_items import uvrb_items
from gve.hub_datasets.vsynflow.uvrd import build_uvrd
from gve.trainers.demo.workspace import Workspace

SUFFIX = "-synflow"
SHARD_ROWS = 64
HASH_FRAMES = 8
"""Frames hashed of a benchmark video: clips of two seconds have sixteen frames."""
LEAST_ROWS = 16
"""Least pairs of a task for a source of their own: with fewer, one batch would hold most of them."""


def synthesise(workspace: Workspace) -> dict[str, Any]:
    """Take the raw corpus through V-SynFlow; finished work of an earlier call is kept.

    Returns:
        For the report: `records` (raw), `kept`, `rejected` and `failed` (by stage and code), `gate` (caught by net),
        `rows` (pairs by task) and `seconds` (by part).
    """
    folder, raw, seconds = workspace.synflow, workspace.root / "data" / "raw", {}
    marks, run = folder / "fingerprints.safetensors", folder / "run"
    begun = time.monotonic()
    if not marks.is_file():
        with TemporaryDirectory() as scratch:
            items = uvrb_items(str(workspace.uvrb), Path(scratch))
            make_fingerprints("demo", items, hash_frames=HASH_FRAMES).save(marks)
    seconds["fingerprints"] = round(time.monotonic() - begun, 1)
    source = RawCorpus(
        "manifest", str(raw / "titles.csv"), "world", "CC0-1.0", None, "file", "title", media=str(raw / "videos")
    )
    make_plan(run, read_corpus(source, run), asdict(source), shard_rows=SHARD_ROWS)
    captioner = {"kind": "world", "folder": str(raw)}
    flow = make_flow(
        make_config({"profile": "world", "seed": workspace.seed, "captioner": captioner, "fingerprints": str(marks)})
    )
    # in this process: another would take longer to import the package than to do the work
    run_flow(run, flow, InlineEngine(), progress=True)
    verdict = verify_run(run)
    if verdict.errors:
        raise RuntimeError(f"V-SynFlow's run is not sound: {verdict.errors[0]}. Delete {run} and resume.")
    seconds["run"] = round(time.monotonic() - begun - seconds["fingerprints"], 1)
    report = build_uvrd(run, folder / "uvrd", quotas=dict.fromkeys(TASKS, 1))
    seconds["build"] = round(time.monotonic() - begun - sum(seconds.values()), 1)
    assert report.decontamination is not None
    found = {
        "records": verdict.records,
        "kept": verdict.kept,
        "rejected": _reasons(run, "rejected"),
        "failed": _reasons(run, "failed"),
        "gate": report.decontamination["caught"],
        "rows": report.rows,
        "seconds": seconds,
    }
    workspace.write(f"  V-SynFlow: {verdict.records} videos, {verdict.kept} kept, {sum(report.rows.values())} pairs")
    return found


def load_synflow(folder: Path) -> dict[str, Dataset]:
    """The pairs by source, such as "t2v-synflow"; tasks with too few rows are left out."""
    there = get_dataset_config_names(str(folder))
    found = load_pairs(str(folder), [task for task in TASKS if task in there])
    return {f"{task}{SUFFIX}": rows for task, rows in found.items() if len(rows) >= LEAST_ROWS}


def to_markdown(found: dict[str, Any]) -> str:
    """What became of the raw corpus, as a section of the report."""
    rejected, failed = (sum(found[kind].values()) for kind in ("rejected", "failed"))
    counts = f"{found['kept']} were kept, {rejected} rejected, {failed} failed"
    lines = ["", "## V-SynFlow on the raw corpus", ""]
    lines += [f"{found['records']} videos with weak titles went in; {counts}. The captioner is the world's own, which"]
    lines += ["looks up what a video shows.", "", "| outcome | stage: code | videos |", "|---|---|---:|"]
    lines += [
        f"| {kind} | {code} | {count} |" for kind in ("rejected", "failed") for code, count in found[kind].items()
    ]
    lines += [
        "",
        "| task | pairs |",
        "|---|---:|",
        *(f"| {task} | {count} |" for task, count in found["rows"].items()),
    ]
    return "\n".join(lines) + "\n"


def _reasons(run: Path, table: str) -> dict[str, int]:
    counts = Counter(f"{row['stage']}: {row['code']}" for row in read_table(run, table))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
