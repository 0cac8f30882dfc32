"""`gve synth try`: a few records through the whole flow, on one HTML page, before money is spent on all of them."""

import json
import shutil
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from gve.hub_datasets.files import write_text
from gve.hub_datasets.pages import html_page, html_table
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.record_sheets import STYLE, answers_table, mark, reason, thumbnails
from gve.hub_datasets.vsynflow.records import Record, digest
from gve.hub_datasets.vsynflow.results import Results
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import PLAN, CorpusPlan, CorpusShard, make_plan, read_manifest, read_plan
from gve.hub_datasets.vsynflow.stages import Kept
from gve.hub_datasets.vsynflow.status import read_table

TRIAL = "try"  # folder in a run's; the next trial replaces it
_FRAMES = 8


def try_records(folder: Path, flow: Flow, count: int) -> list[str]:
    """Run `count` records of a plan, evenly spread, and show them; their answers are kept for the run.

    Returns:
        One section of HTML for each record, in the plan's order.
    """
    plan, trial = read_plan(folder), folder / TRIAL
    if not 1 <= count <= plan.rows:
        raise ValueError(f"records: must be from 1 to the plan's {plan.rows}, got {count}.")
    chosen = _spread(folder, plan, count)
    _collect(folder)  # of a trial that was killed
    shutil.rmtree(trial, ignore_errors=True)
    source = {"trial": [[record["id"], home.name] for home, record in chosen]}
    shards = make_plan(trial, [record for _, record in chosen], source, shard_rows=1).shards
    for (home, _), shard in zip(chosen, shards, strict=True):
        if (folder / "journal" / home.name).is_dir():
            shutil.copytree(folder / "journal" / home.name, trial / "journal" / shard.name)
    try:
        run_flow(trial, flow, InlineEngine())
    finally:
        said = _collect(folder)
    ended = {row["origin"]: (name, row) for name in ("rejected", "failed", "kept") for row in read_table(trial, name)}
    return [
        _section(record, *ended[record["id"]], _gates(trial, flow, shard), answers)
        for (_, record), shard, answers in zip(chosen, shards, said, strict=True)
    ]


def trial_page(sections: Iterable[str], costs: Mapping[str, Any], tried: int, records: int) -> str:
    """The page: costs, and what they would be for the whole corpus, then the records."""
    names = [name for name in ("calls", "input_tokens", "output_tokens", "cost") if costs[name] is not None]
    rows = [
        (name.replace("_", " "), f"{costs[name]:,.6g}", f"{costs[name] / tried * records:,.{2 * (name == 'cost')}f}")
        for name in names
    ]
    about = (
        f"{tried} of {records} records, evenly spread. Stages that compare records with the whole corpus saw these alone. "
        "Answers that were paid for before cost nothing here."
    )
    parts = ["<h1>Trial</h1>", f"<p>{about}</p>", html_table(("", "this trial", "all records, about"), rows)]
    return html_page("Trial", [*parts, *sections], STYLE)


def _spread(folder: Path, plan: CorpusPlan, count: int) -> list[tuple[CorpusShard, Record]]:
    """Records from the middles of `count` equal parts of the plan, with their shards."""
    places, start = [int((part + 0.5) / count * plan.rows) for part in range(count)], 0
    found = []
    for shard in plan.shards:
        inside = [place - start for place in places if start <= place < start + shard.rows]
        rows = read_manifest(folder, shard) if inside else []
        found += [(shard, rows[place]) for place in inside]
        start += shard.rows
    return found


def _collect(folder: Path) -> list[list[str]]:
    """Give a trial's answers to the run's journal; returns the texts of each record."""
    trial = folder / TRIAL
    if not (trial / PLAN).exists():
        return []
    plan, journal = read_plan(trial), trial / "journal"
    homes = zip(plan.source["trial"], plan.shards, strict=True)
    return [_keep_answers(journal / shard.name, folder / "journal" / home, name) for (name, home), shard in homes]


def _keep_answers(trial: Path, home: Path, name: str) -> list[str]:
    """Add new answers to a journal, in a file for the record of that name; returns the texts of that file."""
    path, known = home / f"try-{digest(name)[:12]}.jsonl", Journal(home)
    new = [[key, response] for key, response in Journal(trial).items() if known.get(key) is None]
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    text = old + "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in new)
    if new:
        write_text(path, text)
    return [json.loads(line)[1].get("text", "") for line in text.split("\n") if line]


def _gates(trial: Path, flow: Flow, shard: CorpusShard) -> list[tuple[str, str, str]]:
    """The stages that a record met, the numbers that they measured, and their limits."""
    rows = []
    for stage in flow.stages:
        outcomes = list(Results.load(trial, stage, shard.name).outcomes.values())
        if not outcomes:
            break
        measured = _numbers(outcomes[0].columns) if isinstance(outcomes[0], Kept) else ""
        rows.append((stage.name, measured, _numbers(stage.limits)))
    return rows


def _numbers(columns: Mapping[str, Any]) -> str:
    named: dict[str, Any] = {}
    for name, value in columns.items():
        named |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    shown = {name: value if isinstance(value, tuple) else (value,) for name, value in named.items()}
    numbers = {name: values for name, values in shown.items() if all(isinstance(one, (int, float)) for one in values)}
    return ", ".join(f"{name} {' to '.join(f'{one:.4g}' for one in values)}" for name, values in numbers.items())


def _section(
    record: Record, ended: str, row: Mapping[str, Any], gates: Iterable[tuple[str, ...]], said: list[str]
) -> str:
    why = "" if ended == "kept" else reason(row)
    answers = "".join(f"<pre>{escape(text)}</pre>" for text in said)
    parts = [
        f"<h2>{escape(record['id'])}</h2><p>{mark(ended, why)}</p>",
        f'<p class="strip">{"".join(thumbnails(record, _FRAMES)) or "no frame decodes"}</p>',
        f"<p>Weak caption: {escape(record['text'])}</p>",
        html_table(("stage", "measured", "limits"), gates),
        answers_table(row),
        f"<details><summary>{len(said)} answers of the captioner</summary>{answers}</details>" if said else "",
    ]
    return f"<section>{''.join(parts)}</section>"
