"""Stage two: five captions of every video, each in its own style (paper, section 3.2, multi-dimensional enrichment).

An answer passes two checks: the server's decoding under the schema, and the rules of validation.py.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.captioner import VIDEO_MARK, Captioner, Request, Turn, VideoFile
from gve.hub_datasets.vsynflow.captioner_checks import watch_of
from gve.hub_datasets.vsynflow.dialogue import Answer, Ask, converse
from gve.hub_datasets.vsynflow.prompts import (
    FRAME_CAPTIONS,
    STYLES,
    VIDEO_CAPTIONS,
    Profile,
    Prompt,
    caption_text,
    draw_profile,
)
from gve.hub_datasets.vsynflow.records import Record, read_place
from gve.hub_datasets.vsynflow.stages import Context, Failed, Kept, Outcome, SetupError, Stage
from gve.hub_datasets.vsynflow.stills import Still, fit, jpeg, read_times, sample_stills
from gve.hub_datasets.vsynflow.validation import Checked, check_captions

CAPTION_COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("captions", "emphases"), pa.list_(pa.string())),
    **dict.fromkeys(("readability", "education"), pa.string()),
    "chosen": pa.int32(),
    **dict.fromkeys(("caption_prompt", "captioner"), pa.string()),
    "caption_attempts": pa.int32(),
    **dict.fromkeys(("caption_input_tokens", "caption_output_tokens"), pa.int64()),
    "semantic": pa.list_(pa.float32()),
}
MOST_VIDEO_BYTES = 20 << 20  # of a video that is sent whole
TEMPERATURE = 0.7  # of the captioner's sampling
PROMPT_OF: Mapping[str, Prompt] = {"video": VIDEO_CAPTIONS, "frame": FRAME_CAPTIONS}


@dataclass(frozen=True)
class Enrichment(Stage):
    """Writes five captions of every video; with an encoder's name it also stores their cosines with the frames."""

    name = "enrichment"
    version = 3
    reads = ("video", "text")
    columns = CAPTION_COLUMNS

    param_names = ("captioner", "encoder", "prompt", "num_frames", "temperature", "seed")
    prompt, temperature = VIDEO_CAPTIONS.label, TEMPERATURE
    captioner: str
    encoder: str = ""
    num_frames: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {self.num_frames}. The paper takes 8.")

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Caption the records of a shard, all calls in flight together."""
        captioner, watch = captioner_of(context, self.captioner), watch_of(self.captioner)
        outcomes: dict[int, Outcome] = {}
        asked: list[tuple[int, list[Still], Profile, Ask]] = []
        for number, record in enumerate(records):
            try:
                stills, seconds = sample_stills(record, self.num_frames), float(read_times(record)[-1])
                video = _video_file(record, seconds) if self.captioner.endswith(VIDEO_MARK) else None
            except (ValueError, FileNotFoundError):
                outcomes[number] = Failed("undecodable", retryable=False)
                continue
            profile = draw_profile(record["id"], "video", self.seed)
            sent = "all pictures" if video else f"{self.num_frames} frames"
            shown = f"{sent} of a video of {seconds:.1f} seconds"
            ask = caption_ask(record, "video", profile, video or stills, shown)
            asked.append((number, stills, profile, ask))
        answers = converse([ask for *_, ask in asked], captioner, context.journal, watch)
        for (number, stills, profile, _), answer in zip(asked, answers, strict=True):
            columns = caption_columns(answer, "video", profile, self.captioner)
            outcomes[number] = answer.verdict("captions") or Kept(
                {**columns, "semantic": self._similarities(columns["captions"], stills, context)}
            )
        return [outcomes[number] for number in range(len(records))]

    def _similarities(self, captions: Sequence[str], stills: Sequence[Still], context: Context) -> list[float] | None:
        """Cosines of the five captions and the frames; None without an encoder."""
        if not self.encoder or context.encoder is None:
            return None
        texts = np.asarray(context.encoder.encode_query([{"text": caption} for caption in captions]))  # (5, D)
        frames = [fit(still.pixels) for still in stills]
        (video,) = np.asarray(context.encoder.encode_document([{"video": frames}]))  # (D,)
        return [float(score) for score in np.asarray(texts, np.float32) @ np.asarray(video, np.float32)]


def _video_file(record: Record, seconds: float) -> VideoFile | None:
    """The video to send; None for a larger one, of which frames are sent."""
    content = read_place(record["video"])
    if len(content) > MOST_VIDEO_BYTES:
        return None
    return VideoFile(record["video"], hashlib.blake2b(content, digest_size=16).hexdigest(), seconds)


def captioner_of(context: Context, captioner: str, writer: str = "") -> Captioner:
    """The run's captioner, or its writer if one is named; SetupError if it has another name than the stage's."""
    part, name = ("writer", writer) if writer else ("captioner", captioner)
    found = getattr(context, part)
    got = None if found is None else found.name
    if got != name:
        raise SetupError(f"{part} must be {name!r}, which this stage was made for; got {got!r}.")
    return found


def caption_ask(
    record: Mapping[str, Any],
    kind: str,
    profile: Profile,
    seen: Sequence[Still] | VideoFile,
    shown: str,
    share: float | None = None,
) -> Ask:
    """Ask for five captions of a "video" or a "frame"; `share` of the video lies before the frame."""
    prompt = PROMPT_OF[kind]
    words = caption_text(prompt, STYLES[kind], profile, record["text"], shown)
    told = {"kind": kind, "emphases": list(profile.emphases)} | ({} if share is None else {"share": round(share, 6)})
    return make_ask(record, prompt, words, seen, partial(check_captions, kind=kind), seed=profile.seed, **told)


def make_ask(
    record: Mapping[str, Any],
    prompt: Prompt,
    words: str,
    seen: Sequence[Still] | VideoFile,
    check: Callable[..., Checked],
    *,
    seed: int,
    **subject: Any,
) -> Ask:
    """Ask about a record under a prompt, whose schema `check` is given too; `subject` is for `TruthCaptioner`."""
    whole = isinstance(seen, VideoFile)
    turn = Turn("user", words, () if whole else tuple(jpeg(still.pixels) for still in seen), seen if whole else None)
    request = Request(
        record=record["id"],
        prompt=prompt.label,
        turns=(turn,),
        schema=prompt.schema,
        seed=seed,
        max_tokens=prompt.max_tokens,
        temperature=TEMPERATURE,
        subject={"file": Path(record["video"]["path"]).name, "origin": record["origin"], **subject},
    )
    return Ask(request, partial(check, schema=prompt.schema))


def caption_columns(answer: Answer, kind: str, profile: Profile, captioner: str) -> dict[str, Any]:
    """The columns of five captions, without the cosines."""
    texts = answer.texts or {}
    return {
        "captions": [texts[style.key] for style in STYLES[kind]] if texts else None,
        "emphases": list(profile.emphases),
        "readability": profile.readability,
        "education": profile.education,
        "chosen": profile.chosen,
        "caption_prompt": PROMPT_OF[kind].label,
        "captioner": captioner,
        "caption_attempts": answer.attempts,
        "caption_input_tokens": answer.input_tokens,
        "caption_output_tokens": answer.output_tokens,
    }
