"""The README of a UVRD folder: its configurations for `load_dataset`, and how its rows came about."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Features

from gve.hub_datasets.card_parts import feature_table, size_category, table
from gve.hub_datasets.vsynflow.prompts import PROMPTS
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
```

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
    "task": "one of the seven; `t2v` reads text to video",
    "kind": "style of the text, or how the query was composed",
    "instruction": "what the query asks for",
    "query": "words, picture and clip; those that it is not made of are null",
    "target": "likewise, what answers it",
    "negatives": "targets of other videos that a prober found hard to tell apart",
    "group": "empty here; of the rendered world, what joins near-identical targets",
    "query_facts": "the raw video, as a number",
    "target_facts": "likewise",
    "source": "corpus of the raw video",
    "licence": "of the raw video",
    "text_rank": "rank of the target for the words alone, or null",
    "reference_rank": "for the reference alone",
    "both_rank": "for both",
    "lineage": "record, raw video and title, captioner, prompt, times of frame and clip",
}
_SLIPS = """
- The texts are a captioner's: what it sees wrongly is written as it saw it. No person has read them.
- Rows whose videos show the same and come from different raw files are not joined by `query_facts`: within a batch one
  may stand among the other's negatives.
- Raw titles stay in `lineage`, wrong ones too: they are no training text.
"""
_LAYOUTS = {
    "reference": "Rows name files under `media/` by their whole paths: this folder is for one machine and must not be\n"
    "moved.",
    "embed": "Rows hold the media's bytes; the folder may be moved, copied and published. A medium that several rows of\n"
    "a block name in the same column is stored there once.",
}
_LOCAL = "This set was built for one machine alone and must not be published."


def uvrd_card(folder: Path, facts: "UvrdFacts", features: Features) -> str:
    """The text of the README: front matter, then a description. The folder's parquet files must be in place."""
    lines = ["---", "pretty_name: UVRD", "language: [en]", "task_categories: [feature-extraction]"]
    lines += ["tags: [video-retrieval, composed-retrieval, synthetic]"]
    lines += [f'size_categories: ["{size_category(sum(facts.rows.values()))}"]']
    licence = next(iter(facts.licences)).lower() if len(facts.licences) == 1 else "other"
    lines += [f"license: {licence}", "configs:", *_configs(folder, facts.rows), "---"]
    head = _HEAD.format(records=facts.records, captioner=f"`{facts.captioner}`", seed=facts.seed)
    lines += head.splitlines()
    lines += _TRUTH.splitlines() if facts.captioner == TRUTH_NAME else []
    lines += ["", *_LAYOUTS[facts.media].splitlines(), *([_LOCAL] if facts.local else []), "", "## Rows", ""]
    lines += table(("task", "rows"), facts.rows.items())
    if facts.needing_both:
        lines += ["", "Composed queries, and how many find their target earlier with both parts than with either:", ""]
        rows = ((task, *counts) for task, counts in facts.needing_both.items())
        lines += table(("task", "ranked", "needing both"), rows)
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
    for prompt in PROMPTS.values():
        lines += [f"### {prompt.label}", "", "```text", *prompt.text.splitlines(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _gate(found: Mapping[str, object] | None) -> list[str]:
    if found is None:
        return ["The gate was not run: this set must not be published."]
    state = "passed" if found["passed"] else "not passed: this set must not be published"
    lines = [f"The gate was {state}.", ""]
    return lines + table(("check", "result"), ((name, value) for name, value in found.items() if name != "passed"))


def _configs(folder: Path, rows: Mapping[str, int]) -> list[str]:
    """One configuration a task, described by a digest of its files.

    `datasets` caches by folder name and configuration: without the digest, another folder would give this one's rows.
    """
    lines = []
    for task in rows:
        digest = blake2b(digest_size=8)
        for path in sorted((folder / task).glob("train-*.parquet")):
            digest.update(path.read_bytes())
        lines += [f"- config_name: {task}", f'  description: "blake2b {digest.hexdigest()}"']
        lines += ["  data_files:", "  - split: train", f"    path: {task}/train-*.parquet"]
    return lines
