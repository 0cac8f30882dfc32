"""Rows of the seven tasks from a record that passed all stages (paper, section 3.2, Table 7).

Rows name their media by path; uvrd.py puts the files in their place.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gve.hub_datasets.schema import COUNTERFACTUALS, TASKS
from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.vsynflow.extension.counterfactuals import is_known
from gve.hub_datasets.vsynflow.extension.edits import EDITS, UNCHANGED
from gve.hub_datasets.vsynflow.extension.mining import COMPOSED, needs_both
from gve.hub_datasets.vsynflow.prompts import FRAME_STYLES, VIDEO_STYLES, generator
from gve.hub_datasets.vsynflow.records import Record, digest
from gve.hub_datasets.world.counterfactuals import V2T_INSTRUCTION
from gve.hub_datasets.world.texts import TASK_INSTRUCTIONS

# rows by task; a smaller set keeps the proportions
QUOTAS = {
    "t2t": 100_000,
    "t2i": 210_000,
    "t2v": 879_000,
    "ti2v": 89_000,
    "tv2v": 35_000,
    "i2v": 200_000,
    "v2v": 36_000,
}
# the UVRB set whose queries are most like a caption of each style; its instruction goes with the rows
STYLE_SETS = {"summary": "MSRVTT", "rich": "VDC-D", "abstract": "DiDeMo", "keywords": "PEV-K", "partial": "DREAM-E"}
COUNTERFACTUAL_SHARE = 0.25  # most rows of a counterfactual source, as a share of the rows of T2V or TV2V
# how a composed query asks for an edit of its clip; exact, whatever the video shows
EDIT_QUERIES = {
    "reversed": "the same clip played backwards",
    "mirrored": "the same clip mirrored, with left and right exchanged",
    "reordered": "the same clip with its second part shown first",
}
_SOURCE_BITS = 63


@dataclass(frozen=True)
class PairSide:
    """One side of a pair: a text, and at most one of a record's "frame", "clip", "video", EDITS and UNCHANGED."""

    text: str | None = None
    shows: str | None = None


@dataclass(frozen=True)
class PairRow:
    """A row before it is written."""

    task: str
    record: Record = field(repr=False)
    kind: str  # style of the text, or what the reference is
    query: PairSide
    target: PairSide
    negatives: tuple[str, ...] = ()  # ids of records
    ranks: Mapping[str, float] | None = None  # of a composed query's parts
    changes: tuple[str, ...] = ()  # of a counterfactual source: what each of `wrong` changes
    wrong: tuple[PairSide, ...] = ()  # negatives of the record itself

    @property
    def id(self) -> str:
        """Id of the row: a record gives at most one row of a task, and one of a counterfactual source and its edit."""
        edit = f"-{self.target.shows}" if self.target.shows in EDITS else ""
        return f"{self.task}-{self.record['id']}{edit}"

    @property
    def instruction(self) -> str:
        """The instruction of the query."""
        task = self.task.partition("-")[0]
        if task == "t2v":
            return SETS[STYLE_SETS[self.kind]].instruction
        return V2T_INSTRUCTION if task == "v2t" else TASK_INSTRUCTIONS[task]


def rows_of(record: Record, seed: int) -> Iterator[PairRow]:
    """All rows that a record can give, at most one of a task."""
    captions, chosen = record["captions"], record["chosen"]
    rng = generator(seed, record["id"], "pairs")
    style, video = VIDEO_STYLES[chosen].name, PairSide(shows="video")
    yield PairRow("t2v", record, style, PairSide(captions[chosen]), video, _negatives(record, "t2v"))
    rest = [number for number in range(len(captions)) if number != chosen]
    first, second = (rest[int(place)] for place in rng.permutation(len(rest))[:2])
    yield PairRow("t2t", record, VIDEO_STYLES[first].name, PairSide(captions[first]), PairSide(captions[second]))
    if record["frame"]:
        yield PairRow("i2v", record, "frame", PairSide(shows="frame"), video)
        if record["frame_captions"]:
            number = record["frame_chosen"]
            text = PairSide(record["frame_captions"][number])
            yield PairRow("t2i", record, FRAME_STYLES[number].name, text, PairSide(shows="frame"))
    if record["clip"]:
        yield PairRow("v2v", record, "clip", PairSide(shows="clip"), video)
    for task, (words, reference) in COMPOSED.items():
        if record[words] and record[reference]:
            query, ranks = PairSide(record[words], reference), record[f"{task}_ranks"]
            yield PairRow(task, record, reference, query, video, _negatives(record, task), ranks)


def counterfactual_rows(record: Record) -> Iterator[PairRow]:
    """Rows of the counterfactual sources: only what the encoder puts below its original, by either text."""
    t2v, v2t, tv2v = COUNTERFACTUALS
    caption, style = PairSide(record["captions"][record["chosen"]]), VIDEO_STYLES[record["chosen"]].name
    video, edits = PairSide(shows=UNCHANGED), [n for n in EDITS if record[n] and is_known(record[n]["margin"])]
    found = zip(*(record[f"counterfactual_{part}"] for part in ("kinds", "texts", "margins")), strict=True)
    texts = [(kind, PairSide(text)) for kind, text, margin in found if is_known(margin)]
    if texts:
        kinds, sides = zip(*texts, strict=True)
        yield PairRow(v2t, record, style, PairSide(shows="video"), caption, changes=kinds, wrong=sides)
    if edits:
        wrong = tuple(PairSide(shows=name) for name in edits)
        yield PairRow(t2v, record, style, caption, video, changes=tuple(edits), wrong=wrong)
    for name in edits:
        own = PairSide(shows=name)
        if is_known(record[name]["text_margin"]):
            yield PairRow(t2v, record, style, PairSide(record[name]["text"]), own, changes=(name,), wrong=(video,))
        yield PairRow(
            tv2v, record, name, PairSide(EDIT_QUERIES[name], UNCHANGED), own, changes=(name,), wrong=(video,)
        )


def choose_counterfactuals(
    records: Sequence[Record], rows: Mapping[str, int], *, seed: int, share: float = COUNTERFACTUAL_SHARE
) -> dict[str, list[PairRow]]:
    """Rows of the counterfactual sources, ordered by id: what changes is drawn as evenly as there is of each.

    Args:
        rows: Rows by task, of which the sources get at most a `share`.
    """
    chosen: dict[str, list[PairRow]] = {}
    found = [row for record in records for row in counterfactual_rows(record)]
    for source in COUNTERFACTUALS:
        most = round(share * rows.get("tv2v" if source.startswith("tv2v") else "t2v", 0))
        seen: Counter[str] = Counter()
        ranked = []
        for row in sorted((row for row in found if row.task == source), key=lambda row: digest(seed, row.id)):
            rarest = min(row.changes, key=lambda kind: seen[kind])
            ranked.append((seen[rarest], len(ranked), row))
            seen[rarest] += 1
        taken = [row for *_, row in sorted(ranked, key=lambda one: one[:2])[:most]]
        if taken:
            chosen[source] = sorted(taken, key=lambda row: row.id)
    return chosen


def _negatives(record: Record, task: str) -> tuple[str, ...]:
    return tuple(record[f"{task}_negatives"] or ())


def allot(
    available: Mapping[str, int], *, quotas: Mapping[str, int] | None = None, total: int | None = None
) -> dict[str, int]:
    """Rows to take of each task: the largest set in proportion that the task with the largest quota can fill.

    Args:
        available: Possible rows by task; a task with fewer than its share gives what it has.
        quotas: Proportions by task; None for the paper's. A missing task gets no row.
        total: Rows in all, before tasks that fall short; None for as many as possible.
    """
    wanted = QUOTAS if quotas is None else quotas
    unknown = sorted({*wanted, *available} - set(TASKS))
    if unknown:
        raise ValueError(f"quotas: tasks must be among {', '.join(TASKS)}, got task {unknown[0]!r}.")
    if min(wanted.values(), default=0) < 0 or not any(wanted.values()):
        raise ValueError(f"quotas must be numbers from 0 with one above it, got {dict(wanted)}.")
    leading = max(wanted, key=lambda task: (wanted[task] if available.get(task, 0) else 0, wanted[task]))
    scale = available.get(leading, 0) / wanted[leading]
    if total is not None:
        scale = min(scale, total / sum(wanted.values())) if total >= 0 else 0.0
    return {task: min(available.get(task, 0), round(wanted.get(task, 0) * scale)) for task in TASKS}


def choose(
    candidates: Sequence[PairRow], *, seed: int, quotas: Mapping[str, int] | None = None, total: int | None = None
) -> dict[str, list[PairRow]]:
    """Rows of every task, ordered by id; composed queries that need both parts come first. See `allot`."""
    by_task: dict[str, list[PairRow]] = {task: [] for task in TASKS}
    for candidate in candidates:
        by_task[candidate.task].append(candidate)
    sizes = allot({task: len(found) for task, found in by_task.items()}, quotas=quotas, total=total)
    chosen = {}
    for task, found in by_task.items():
        ranked = sorted(found, key=lambda one: (not needs_both(one.ranks), digest(seed, one.id)))
        if sizes[task]:
            chosen[task] = sorted(ranked[: sizes[task]], key=lambda one: one.id)
    return chosen


def source_fact(record: Mapping[str, Any], edit: str = "") -> int:
    """The fact "made of this raw video" as a number: rows that share it are never one another's negatives.

    An edit of the video is another one.
    """
    parts = (record["origin"], edit) if edit else (record["origin"],)
    return int(digest("source", *parts)[:16], 16) >> (64 - _SOURCE_BITS)


def lineage(record: Mapping[str, Any], candidate: PairRow) -> dict[str, Any]:
    """Where a row comes from, for its `lineage` column."""
    frame = record["frame"] if "frame" in (candidate.query.shows, candidate.target.shows) else None
    clip = record["clip"] if "clip" in (candidate.query.shows, candidate.target.shows) else None
    return {
        "record": record["id"],
        "origin": record["origin"],
        "captioner": record["captioner"],
        "prompt": record["caption_prompt"],
        # rectification keeps the title that it cleaned
        "raw_text": record["raw_text"] if "raw_text" in record else record["text"],
        "frame_time": frame["time"] if frame else None,
        "clip_start": clip["start"] if clip else None,
        "clip_end": clip["end"] if clip else None,
        "negatives": [*candidate.negatives, *(f"{record['id']}#{change}" for change in candidate.changes)],
    }
