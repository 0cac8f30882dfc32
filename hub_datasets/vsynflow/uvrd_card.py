"""The README of a UVRD folder: its configurations for `load_dataset`, and how its rows came about."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Features

from gve.hub_datasets.card_parts import feature_table, size_category, table
from gve.hub_datasets.pair_media import MEDIA
from gve.hub_datasets.schema import COUNTERFACTUALS
from gve.hub_datasets.vsynflow import prompts
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME

if TYPE_CHECKING:
    from gve.hub_datasets.vsynflow.uvrd import UvrdFacts

_HEAD = """
# UVRD

Pairs for training a video embedder, made by V-SynFlow (arXiv 2510.27571, section 3.2): {records} videos that passed all
filters, captioned by {captioner}. Seed {seed}.

```python
from datasets import load_dataset

rows = load_dataset("org/uvrd", "t2v", split="train")
{join}```

Each row holds `query`, `target` and `negatives`, each with `text`, `image` and `video`; media are encoded files. Rows of
one raw video share an entry of `query_facts` and `target_facts`, so that they are never one another's negatives.
`lineage` names the record, the raw video and its weak title, the captioner, the prompt, and the times of frame and clip.
`text_rank`, `reference_rank` and `both_rank` of composed queries are ranks of the target by an encoder that sees the
words alone, the reference alone, or both.
"""
_TRUTH = """
The captioner is no model: it looks up what the rendered videos show. The texts are exact and of a grammar's plainness.
"""
_MEANINGS = {
    "id": "record and part of it, unique within a task",
    "task": "`t2v` reads text to video",
    "kind": "style of the text, or how the query was composed",
    "instruction": "what the query asks for",
    "query": "words, picture and clip; those that it is not made of are null",
    "target": "likewise, what answers it",
    "negatives": "targets of other videos that a prober found hard to tell apart",
    "group": "joins the rows of a video and its edits; empty elsewhere",
    "query_facts": "the raw video, as a number",
    "target_facts": "likewise",
    "source": "corpus of the raw video",
    "licence": "of the raw video",
    "text_rank": "rank of the target for the words alone, or null",
    "reference_rank": "for the reference alone",
    "both_rank": "for both",
    "changes": "of counterfactual rows, what each of the last negatives changes",
    "lineage": "record, raw video and title, captioner, prompt, times of frame and clip",
}
_COUNTERFACTUALS = """
## Counterfactual pairs

`{names}`: negatives differ from the target in one
thing, `changes`. Wrong texts are the captioner's, under the prompt below: `order` of events, `relation`, `attribute`, `negation`, `count`, `camera`, `actor`.
Edited videos are files of this set: `reversed` (played backwards), `mirrored` (where the caption names a side; left and
right exchanged in both) and `reordered` (what follows a cut first, where the caption tells an order). An edited video is a
target too, of the text that fits it; the video itself is shown in a copy encoded like its edits. Only those are here that the run's encoder scores below the original; what it cannot
tell apart is unknown, and in no row. No training loads these configurations unless it names them.
"""
_SLIPS = """
- The texts are a captioner's: what it sees wrongly is written as it saw it. No person has read them.
- Rows whose videos show the same and come from different raw files are not joined by `query_facts`: within a batch one
  may stand among the other's negatives.
- Raw titles stay in `lineage`, wrong ones too: they are no training text.
"""
_JOIN = """media = load_dataset("org/uvrd", "media", split="train")
places = {name: place for place, name in enumerate(media["name"])}
video = media[places[rows[0]["target"]["video"]["path"]]]["video"]["bytes"]
"""
_LAYOUTS = {
    "once": "The configuration `media` stores {files} files once, {bytes} bytes; rows name them in `path`, and the lines\n"
    "above find them. `gve train`, `gve mine` and `gve.hub_datasets.pair_media.load_pairs` do so by themselves.",
    "embed": "Rows hold the media's bytes. A medium that several rows of a block show in the same column is stored there\n"
    "once, and in other columns and tasks again.",
}
_LOCAL = "This set was built for one machine alone and must not be published."


def uvrd_card(folder: Path, facts: "UvrdFacts", features: Features) -> str:
    """The text of the README: front matter, then a description. The folder's parquet files must be in place."""
    lines = ["---", "pretty_name: UVRD", "language: [en]", "task_categories: [feature-extraction]"]
    lines += ["tags: [video-retrieval, composed-retrieval, synthetic]"]
    lines += [f'size_categories: ["{size_category(sum(facts.rows.values()))}"]']
    licence = next(iter(facts.licences)).lower() if len(facts.licences) == 1 else "other"
    names = [*facts.rows, *([MEDIA] if facts.stored["files"] else [])]
    lines += [f"license: {licence}", "configs:", *_configs(folder, names), "---"]
    join = _JOIN if MEDIA in names else ""
    head = _HEAD.format(records=facts.records, captioner=f"`{facts.captioner}`", seed=facts.seed, join=join)
    lines += head.splitlines()
    lines += _TRUTH.splitlines() if facts.captioner == TRUTH_NAME else []
    lines += [
        "",
        *_LAYOUTS[facts.media].format(**facts.stored).splitlines(),
        *([_LOCAL] if facts.local else []),
        "",
        "## Rows",
        "",
    ]
    lines += table(("task", "rows"), facts.rows.items())
    if facts.needing_both:
        lines += ["", "Composed queries, and how many find their target earlier with both parts than with either:", ""]
        rows = ((task, *counts) for task, counts in facts.needing_both.items())
        lines += table(("task", "ranked", "needing both"), rows)
    if facts.counterfactuals:
        lines += _COUNTERFACTUALS.format(names="`, `".join(COUNTERFACTUALS)).splitlines()
        counts = ((kind, *found) for kind, found in facts.counterfactuals.items())
        lines += ["", *table(("what changes", "scored below its original", "unknown"), counts)]
    lines += ["", "## Columns", "", *feature_table(features, _MEANINGS)]
    lines += ["", "## Licences", "", "Every row carries the licence of its raw video in `licence`.", ""]
    origins = ((source, licence, count) for source, found in facts.sources.items() for licence, count in found.items())
    lines += table(("source", "licence", "rows"), origins)
    lines += ["", "## Filters", "", "Limits, by stage:", ""]
    limits = ((stage, name, limit) for stage, rules in facts.limits.items() for name, limit in rules.items())
    lines += table(("stage", "limit", "value"), limits)
    lines += ["", "Records that were rejected, and records that failed:", ""]
    lines += table(("code", "records"), [*facts.rejected.items(), *facts.failed.items()])
    lines += ["", "## Decontamination", "", *_gate(facts.decontamination)]
    lines += ["", "## Known slips", *_SLIPS.rstrip().splitlines()]
    lines += ["", "## Prompts", "", f"Tokens read: {facts.tokens['input']}; written: {facts.tokens['output']}.", ""]
    asked = [prompts.COUNTERFACTUALS] if facts.counterfactuals else []
    for prompt in (*prompts.PROMPTS.values(), *asked):
        lines += [f"### {prompt.label}", "", "```text", *prompt.text.splitlines(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _gate(found: Mapping[str, object] | None) -> list[str]:
    if found is None:
        return ["The gate was not run: this set must not be published."]
    state = "passed" if found["passed"] else "not passed: this set must not be published"
    lines = [f"The gate was {state}.", ""]
    return lines + table(("check", "result"), ((name, value) for name, value in found.items() if name != "passed"))


def _configs(folder: Path, names: Iterable[str]) -> list[str]:
    """One configuration a task, and one of the media, each described by a digest of its files.

    `datasets` caches by folder name and configuration: without the digest, another folder would give this one's rows.
    """
    lines = []
    for name in names:
        digest = blake2b(digest_size=8)
        for path in sorted((folder / name).glob("train-*.parquet")):
            digest.update(path.read_bytes())
        lines += [f"- config_name: {name}", f'  description: "blake2b {digest.hexdigest()}"']
        lines += ["  data_files:", "  - split: train", f"    path: {name}/train-*.parquet"]
    return lines
