"""Captions of the chosen frame, and the texts of composed queries (paper, sections 3.2 and A.6), by the captioner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.dialogue import Answer, Ask, converse
from gve.hub_datasets.vsynflow.enrichment import TEMPERATURE, caption_ask, captioner_of, make_ask
from gve.hub_datasets.vsynflow.prompts import (
    CLIP_QUERY,
    FRAME_CAPTIONS,
    FRAME_STYLES,
    IMAGE_QUERY,
    Prompt,
    clip_query_text,
    draw_profile,
    image_query_text,
)
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Failed, Kept, Outcome, Stage
from gve.hub_datasets.vsynflow.stills import Still, read_stills, sample_stills
from gve.hub_datasets.vsynflow.validation import check_query

KINDS = ("frame", "image-query", "clip-query")
_CLIP_FRAMES = 4


@dataclass(frozen=True)
class Compositions(Stage):
    """Asks for five captions of the chosen frame, a TI2V text and a TV2V text.

    A text that passed no check is left out, its broken rule stays in `not_composed`, and the record goes on.
    """

    name = "compositions"
    version = 2
    reads = ("video", "text", "captions", "frame", "clip")
    columns = {  # noqa: RUF012
        "frame_captions": pa.list_(pa.string()),
        "frame_chosen": pa.int32(),
        **dict.fromkeys(("image_query", "clip_query"), pa.string()),
        "not_composed": pa.list_(pa.string()),
        "composition_attempts": pa.int32(),
        **dict.fromkeys(("composition_input_tokens", "composition_output_tokens"), pa.int64()),
    }
    param_names = ("captioner", "prompts", "num_frames", "temperature", "seed")
    prompts = tuple(prompt.label for prompt in (FRAME_CAPTIONS, IMAGE_QUERY, CLIP_QUERY))
    temperature = TEMPERATURE
    captioner: str
    num_frames: int = 8
    seed: int = 0
    writer: str = ""  # of composed queries, from captions alone; "" for the captioner, which sees

    @property
    def params(self) -> Mapping[str, Any]:
        """Those of every run, and the writer if there is one."""
        return {**super().params, **({"writer": self.writer} if self.writer else {})}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Ask for all texts of a shard together."""
        captioner, writer = (captioner_of(context, self.captioner, name) for name in ("", self.writer))
        asked: list[tuple[int, str, Ask]] = []
        broken: dict[int, Failed] = {}
        for number, record in enumerate(records):
            try:
                asked += [(number, kind, ask) for kind, ask in self._asks(record)]
            except (ValueError, FileNotFoundError):
                broken[number] = Failed("undecodable", retryable=False)
        found: list[dict[str, Answer]] = [{} for _ in records]
        shares = [(captioner, KINDS[:1]), (writer, KINDS[1:])] if self.writer else [(captioner, KINDS)]
        for asked_of, kinds in shares:
            chosen = [one for one in asked if one[1] in kinds]
            answers = converse([ask for *_, ask in chosen], asked_of, context.journal)
            for (number, kind, _), answer in zip(chosen, answers, strict=True):
                found[number][kind] = answer
        return [
            broken[number] if number in broken else _outcome(record, found[number], self.seed)
            for number, record in enumerate(records)
        ]

    def _asks(self, record: Record) -> list[tuple[str, Ask]]:
        asks: list[tuple[str, Ask]] = []
        sees, told = not self.writer, record["captions"][1]
        video = sample_stills(record, self.num_frames) if sees and (record["frame"] or record["clip"]) else []
        if record["frame"]:
            frame, share = read_stills(record, [record["frame"]["time"]]), record["frame"]["share"]
            profile = draw_profile(record["id"], "frame", self.seed)
            shown = "one frame of a video"
            ask = caption_ask(record, "frame", profile, frame, shown, share)
            asks.append(("frame", ask))
            words, stills = image_query_text(told, len(video)), [*frame, *video] if sees else []
            asks.append(("image-query", self._ask(record, IMAGE_QUERY, words, stills, share)))
        if record["clip"]:
            clip, share = record["clip"], record["clip"]["share"]
            step = (clip["end"] - clip["start"]) / _CLIP_FRAMES
            times = [clip["start"] + step * (part + 0.5) for part in range(_CLIP_FRAMES)]
            words = clip_query_text(told, _CLIP_FRAMES, len(video))
            stills = [*read_stills(record, times), *video] if sees else []
            asks.append(("clip-query", self._ask(record, CLIP_QUERY, words, stills, share)))
        return asks

    def _ask(self, record: Record, prompt: Prompt, words: str, stills: Sequence[Still], share: float) -> Ask:
        check = partial(check_query, reference="image" if prompt is IMAGE_QUERY else "clip")
        seed = prompt.draw_seed(self.seed, record["id"])
        return make_ask(record, prompt, words, stills, check, seed=seed, kind=prompt.name, share=round(share, 6))


def _outcome(record: Record, answers: Mapping[str, Answer], seed: int) -> Outcome:
    """The columns of a record; a broken call fails it, so that the next run asks again."""
    for answer in answers.values():
        if answer.failure is not None:
            return answer.failure
    texts = {kind: answer.texts for kind, answer in answers.items() if answer.texts is not None}
    frame = texts.get("frame")
    return Kept(
        {
            "frame_captions": [frame[style.key] for style in FRAME_STYLES] if frame else None,
            "frame_chosen": draw_profile(record["id"], "frame", seed).chosen if frame else None,
            "image_query": texts["image-query"]["query"] if "image-query" in texts else None,
            "clip_query": texts["clip-query"]["query"] if "clip-query" in texts else None,
            "not_composed": [
                f"{kind}-{answers[kind].violations[0].code}" for kind in KINDS if kind in answers and kind not in texts
            ],
            "composition_attempts": sum(answer.attempts for answer in answers.values()),
            "composition_input_tokens": sum(answer.input_tokens for answer in answers.values()),
            "composition_output_tokens": sum(answer.output_tokens for answer in answers.values()),
        }
    )
