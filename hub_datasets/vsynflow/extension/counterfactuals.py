"""Wrong texts and edited videos of a captioned video, to train on what a model misses: order, sides, numbers, who did it.

A wrong text is the captioner's; an edited video is made where the caption says what the edit changes. Each must score
below its original by the run's encoder, by MARGIN; else it is unknown: counted, and used for no row.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.dialogue import Answer, Ask, converse
from gve.hub_datasets.vsynflow.enrichment import TEMPERATURE, captioner_of, make_ask
from gve.hub_datasets.vsynflow.extension.edits import EDITS, UNCHANGED, edit_video, mirrored_text
from gve.hub_datasets.vsynflow.prompts import (
    CHANGES,
    COUNTERFACTUALS,
    VIDEO_STYLES,
    counterfactual_text,
    draw_profile,
)
from gve.hub_datasets.vsynflow.records import Record, keep_media
from gve.hub_datasets.vsynflow.stages import Context, Failed, Kept, Outcome, Stage
from gve.hub_datasets.vsynflow.stills import fit, sample_stills
from gve.hub_datasets.vsynflow.validation import parse_texts
from gve.media_gve import MP4

EDIT = pa.struct({"path": pa.string(), "text": pa.string(), "margin": pa.float32(), "text_margin": pa.float32()})
MARGIN = 1e-3  # of two cosines; half-precision vectors differ by less
LEAST_SHARED = 0.4  # of the words of caption and wrong text together
_SENTENCES = ("order", "relation", "actor")  # what keywords cannot tell
# words that make the places of others tell: without one, the same words in another order say the same
_ORDERED = re.compile(
    r"\b(then|before|after|first|finally|later|next|until|left|right|above|below|over|under|behind|in front|on top|"
    r"inside|onto|into|from|to|than|at)\b"
)
_PART = re.compile(r"\b(?:and|with|while|meanwhile|a|an|the)\b|[,.;]")
_SYMMETRIC = re.compile(r"\b(while|meanwhile|at the same time|simultaneously|together|each other|one another)\b")


@dataclass(frozen=True)
class Counterfactuals(Stage):
    """Asks for wrong texts about every video, edits it, and scores both against the original.

    Columns of an edit: its file, what the caption becomes ("" if unknown), how far the caption falls from the video to the
    edit, and how far the new text is ahead of the caption for the edit.
    """

    name = "counterfactuals"
    columns = {  # noqa: RUF012
        **dict.fromkeys(("counterfactual_texts", "counterfactual_kinds"), pa.list_(pa.string())),
        "counterfactual_margins": pa.list_(pa.float32()),
        **dict.fromkeys((*EDITS, UNCHANGED), EDIT),
        "not_counterfactual": pa.list_(pa.string()),
        "counterfactual_attempts": pa.int32(),
        **dict.fromkeys(("counterfactual_input_tokens", "counterfactual_output_tokens"), pa.int64()),
    }
    param_names = ("captioner", "encoder", "prompt", "num_frames", "temperature", "seed", "shots")
    prompt, temperature = COUNTERFACTUALS.label, TEMPERATURE
    captioner: str
    encoder: str = ""
    num_frames: int = 8
    seed: int = 0
    shots: str = ""  # column of {"start", "end"} in seconds
    writer: str = ""  # of wrong texts, from captions alone; "" for the captioner, which sees

    @property
    def params(self) -> Mapping[str, Any]:
        """Those of every run, and the writer if there is one."""
        return {**super().params, **({"writer": self.writer} if self.writer else {})}

    @property
    def reads(self) -> Sequence[str]:
        """The captioned video, and the column of its shots."""
        return ("video", "captions", "chosen", *([self.shots] if self.shots else []))

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Ask for the texts of a shard together, then edit and score one video at a time."""
        writer = captioner_of(context, self.captioner, self.writer)
        asks: dict[int, Ask] = {}
        outcomes: dict[int, Outcome] = dict.fromkeys(range(len(records)), Failed("undecodable", retryable=False))
        for number, record in enumerate(records):
            try:
                asks[number] = self._ask(record)
            except (ValueError, FileNotFoundError):
                continue
        answers = converse(list(asks.values()), writer, context.journal)
        for number, answer in zip(asks, answers, strict=True):
            try:
                outcomes[number] = answer.failure or Kept(self._made(records[number], answer, context))
            except (ValueError, FileNotFoundError):
                continue
        return list(outcomes.values())

    def _ask(self, record: Record) -> Ask:
        stills = [] if self.writer else sample_stills(record, self.num_frames)
        caption = record["captions"][record["chosen"]]
        profile = draw_profile(record["id"], "video", self.seed)
        return make_ask(
            record,
            COUNTERFACTUALS,
            counterfactual_text(caption, len(stills)),
            stills,
            parse_texts,
            seed=COUNTERFACTUALS.draw_seed(self.seed, record["id"]),
            kind=COUNTERFACTUALS.name,
            emphases=list(profile.emphases),
            written={"record": record["id"], "seed": profile.seed, "chosen": record["chosen"], "text": caption},
        )

    def _made(self, record: Record, answer: Answer, context: Context) -> dict[str, Any]:
        caption = record["captions"][record["chosen"]]
        keywords = VIDEO_STYLES[record["chosen"]].name == "keywords"
        texts, dropped = usable_texts(caption, answer.texts or {}, keywords=keywords)
        if answer.texts is None:
            dropped.append(f"texts-{answer.violations[0].code}")
        told = {"mirrored": mirrored_text(caption), "reordered": texts.get("order")}
        told["reversed"] = "" if {"order", "camera"} & set(texts) else None
        wanted = {name: text for name in EDITS if (text := told[name]) is not None}
        edits = edit_video(record, list(wanted), record[self.shots] or () if self.shots else ())
        dropped += [f"{name}-symmetric" for name in wanted if name not in edits]
        columns: dict[str, Any] = dict.fromkeys((*EDITS, UNCHANGED))
        for name, content in edits.items():
            path = keep_media(context.folder, content, MP4)
            columns[name] = {"path": path, "text": wanted.get(name, ""), "margin": None, "text_margin": None}
        columns |= {"counterfactual_kinds": list(texts), "counterfactual_texts": list(texts.values())}
        columns["counterfactual_margins"] = [None] * len(texts)
        if self.encoder and context.encoder is not None:
            self._score(record, caption, columns, context)
        return {
            **columns,
            "not_counterfactual": dropped,
            "counterfactual_attempts": answer.attempts,
            "counterfactual_input_tokens": answer.input_tokens,
            "counterfactual_output_tokens": answer.output_tokens,
        }

    def _score(self, record: Record, caption: str, columns: dict[str, Any], context: Context) -> None:
        """Fill in the margins; all videos are read from files encoded alike."""
        edits = [name for name in EDITS if columns[name]]
        files = (context.folder / columns[name]["path"] for name in (UNCHANGED, *edits)) if edits else ()
        places = [{"path": str(file), "offset": None} for file in files] or [record["video"]]
        stills = (sample_stills({**record, "video": place}, self.num_frames) for place in places)
        videos = [{"video": [fit(still.pixels) for still in found]} for found in stills]
        texts = [caption, *columns["counterfactual_texts"], *(columns[name]["text"] or caption for name in edits)]
        assert context.encoder is not None
        seen = np.asarray(context.encoder.encode_document(videos), np.float32)  # (1 + E, D)
        words = np.asarray(
            context.encoder.encode_query([{"text": text} for text in texts]), np.float32
        )  # (1 + T + E, D)
        scores = words @ seen.T
        count = len(columns["counterfactual_texts"])
        columns["counterfactual_margins"] = [float(scores[0, 0] - scores[1 + row, 0]) for row in range(count)]
        for place, name in enumerate(edits):
            column = 1 + place
            columns[name]["margin"] = float(scores[0, 0] - scores[0, column])
            columns[name]["text_margin"] = float(scores[1 + count + place, column] - scores[0, column])


def usable_texts(
    caption: str, texts: Mapping[str, str], *, keywords: bool = False
) -> tuple[dict[str, str], list[str]]:
    """The wrong texts that differ in sense from a caption and in few words, and the rules that the others break."""
    kept: dict[str, str] = {}
    dropped = []
    for kind in CHANGES:
        text = texts.get(kind, "")
        if not text:
            continue
        if is_symmetric(caption, text):
            dropped.append(f"{kind}-symmetric")
        elif keywords and kind in _SENTENCES:
            dropped.append(f"{kind}-keywords")
        elif _shared(caption, text) < LEAST_SHARED:
            dropped.append(f"{kind}-rewritten")
        elif text in kept.values():
            dropped.append(f"{kind}-repeated")
        else:
            kept[kind] = text
    return kept, dropped


def is_symmetric(caption: str, text: str) -> bool:
    """Whether a text says the same as a caption: in the same words, or in the same parts whose order tells nothing."""
    first, second = (sorted(filter(None, map(str.strip, _PART.split(one.lower())))) for one in (caption, text))
    free = _SYMMETRIC.search(caption.lower()) is not None or not _ORDERED.search(caption.lower())
    return _words(caption) == _words(text) or (free and first == second)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def _shared(caption: str, text: str) -> float:
    first, second = Counter(_words(caption)), Counter(_words(text))
    return (first & second).total() / max(1, (first | second).total())


def is_known(margin: float | None) -> bool:
    """Whether the encoder puts a counterfactual below its original."""
    return margin is not None and margin >= MARGIN


def count_margins(records: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Counterfactuals of each kind: how many are known to be wrong, and how many unknown."""
    counts: dict[str, list[int]] = {}
    for record in records:
        found = list(zip(record["counterfactual_kinds"], record["counterfactual_margins"], strict=True))
        found += [(name, record[name]["margin"]) for name in EDITS if record[name]]
        for kind, margin in found:
            counts.setdefault(kind, [0, 0])[not is_known(margin)] += 1
    return dict(sorted(counts.items()))
