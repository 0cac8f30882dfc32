"""The rendered world's own captioner: it looks up what a video shows and writes that down with a grammar.

No model is in the loop. It is the default, so that the flow runs anywhere; its rows name "world-truth" as captioner.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.random import Generator

from gve.hub_datasets.vsynflow.captioner import Done, Request, Response
from gve.hub_datasets.vsynflow.prompts import CHANGES, FRAME_STYLES, VIDEO_CAPTIONS, VIDEO_STYLES, generator
from gve.hub_datasets.world.captions import (
    ACTION_KEYWORDS,
    ACTION_WORDS,
    RELATION_WORDS,
    SCENE_WORDS,
    SHAPE_WORDS,
    STYLE_WORDS,
    camera_text,
    caption,
    event_text,
    name_thing,
)
from gve.hub_datasets.world.counterfactuals import CHANGES as CLIP_CHANGES
from gve.hub_datasets.world.spec import Clip, Thing, choice
from gve.media_gve import MP4

TRUTH_NAME = "world-truth"
_TRIES = 200
_DOES = re.compile(
    rf"\b({'|'.join(word for words in SHAPE_WORDS.values() for word in words)}) "
    rf"({'|'.join(word for words in ACTION_WORDS.values() for word in words)})\b"
)
_GONE_AFTER = 0.25  # share of the video after the start of a half; from then on a vanishing thing can hardly be seen


@dataclass
class TruthCaptioner:
    """Answers requests about videos of a raw corpus of the rendered world, by its truth.jsonl."""

    name = TRUTH_NAME
    folder: Path
    _clips: dict[str, Clip] = field(default_factory=dict, init=False, repr=False, compare=False)

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer every request once; a video that the truth does not list fails for good."""
        if not self._clips:
            self._clips = read_truth(self.folder)
        for number, request in enumerate(requests):
            clip = self._clip(request.subject)
            if clip is None:
                done(number, Response(error="truth-unknown", retryable=False))
            else:
                rng = generator(request.seed, request.record, request.prompt)
                done(number, Response(json.dumps(_WRITERS[request.subject["kind"]](clip, request.subject, rng))))

    def _clip(self, subject: Mapping[str, Any]) -> Clip | None:
        """What a request is about; a repaired file has another name, so the raw record's id counts too."""
        names = (subject["file"], Path(subject["origin"]).name, f"{Path(subject['origin']).stem}{MP4}")
        return next((self._clips[name] for name in names if name in self._clips), None)


def read_truth(folder: Path) -> dict[str, Clip]:
    """What each file of a raw corpus shows, from its truth.jsonl."""
    path = folder / "truth.jsonl"
    if not path.is_file():
        raise ValueError(f"folder: {folder.name} has no truth.jsonl. Build a raw corpus with gve world --raw.")
    clips = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        shown = row["clip"]
        things = tuple(Thing(**thing) for thing in shown["things"])
        events = tuple((index, action) for index, action in shown["events"])
        clips[row["file"]] = Clip(**{**shown, "things": things, "events": events, "camera": tuple(shown["camera"])})
    return clips


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _pieces(clip: Clip, rng: Generator) -> dict[str, list[str]]:
    first, last = clip.things
    where = f"{name_thing(first, rng)} stands {choice(rng, RELATION_WORDS[clip.relation])} {name_thing(last, rng)}"
    sizes = f"{name_thing(first, rng, size=True)} shares the picture with {name_thing(last, rng, size=True)}"
    order = f"{event_text(clip, 0, rng)} first and then {event_text(clip, 1, rng)}"
    ended = f"by the end {event_text(clip, 1, rng)}, after {event_text(clip, 0, rng)}"
    look = f"the picture looks {choice(rng, STYLE_WORDS[clip.style])}"
    return {
        "spatial": [f"{where} {choice(rng, SCENE_WORDS[clip.scene])}", sizes, where],
        "temporal": [order, ended, f"{event_text(clip, 0, rng)} in the first half"],
        "other": [camera_text(clip.camera, rng), look, f"the view is set {choice(rng, SCENE_WORDS[clip.scene])}"],
    }


def _fitting(write: Callable[[], str], low: int, high: int) -> str:
    for _ in range(_TRIES):
        text = write()
        if low <= len(text.split()) <= high:
            return text
    raise AssertionError(f"the grammar gave no text of {low} to {high} words")


def _joined(pieces: Mapping[str, list[str]], emphasis: str, count: int, rng: Generator) -> str:
    """Clauses in sentences: first the emphasis, then the rest in a drawn order."""
    rest = [clause for name, clauses in pieces.items() if name != emphasis for clause in clauses]
    clauses = pieces[emphasis] + [rest[index] for index in rng.permutation(len(rest))]
    return " ".join(_sentence(clause) for clause in clauses[:count])


def _rich(clip: Clip, emphasis: str, rng: Generator) -> str:
    text = _joined(_pieces(clip, rng), emphasis, 9, rng)
    while len(text.split()) <= 110:
        text += " " + _sentence(caption(clip, choice(rng, ("general", "detailed")), rng).text.replace(" . ", ", "))
    return text


def _abstract(clip: Clip, rng: Generator) -> str:
    motions = [choice(rng, ACTION_WORDS[action]) for _, action in clip.events]
    text = f"A short drawn scene {choice(rng, SCENE_WORDS[clip.scene])} in which two coloured shapes play the only parts: "
    text += f"early on one of them {motions[0]}, and later one of them {motions[1]}"
    return text + f", while {camera_text(clip.camera, rng)}. It has a {choice(rng, STYLE_WORDS[clip.style])} look."


def _keywords(clip: Clip, rng: Generator) -> str:
    words = [*(thing.name for thing in clip.things), clip.scene, clip.style]
    words += [ACTION_KEYWORDS[action] for _, action in clip.events] + [f"{clip.things[0].size} {clip.things[0].shape}"]
    return ", ".join(words[index] for index in rng.permutation(len(words))[: 4 + int(rng.integers(3))])


def _video_writers(clip: Clip, emphases: Sequence[str], rng: Generator) -> tuple[Callable[[], str], ...]:
    return (
        lambda: (
            f"{_sentence(caption(clip, 'coarse', rng).text)[:-1]}, where {choice(rng, _pieces(clip, rng)[emphases[0]])}."
        ),
        lambda: _rich(clip, emphases[1], rng),
        lambda: _abstract(clip, rng),
        lambda: _keywords(clip, rng),
        lambda: _joined(_pieces(clip, rng), emphases[4], 2 + int(rng.integers(2)), rng),
    )


def _video_captions(clip: Clip, subject: Mapping[str, Any], rng: Generator) -> dict[str, str]:
    writers = _video_writers(clip, subject["emphases"], rng)
    return {
        style.key: _fitting(write, style.low, style.high) for style, write in zip(VIDEO_STYLES, writers, strict=True)
    }


def _seen_at(clip: Clip, time: float) -> list[Thing]:
    """The things that a frame shows; `time` is the share of the video that has passed."""
    gone = {
        index
        for half, (index, action) in enumerate(clip.events)
        if action == "vanish" and time > half / 2 + _GONE_AFTER
    }
    return [thing for index, thing in enumerate(clip.things) if index not in gone]


def _frame_captions(clip: Clip, subject: Mapping[str, Any], rng: Generator) -> dict[str, str]:
    things = _seen_at(clip, subject["share"])

    def shown() -> str:
        return " and ".join(name_thing(thing, rng) for thing in things) or "the bare scenery"

    def scene() -> str:
        return choice(rng, SCENE_WORDS[clip.scene])

    def look() -> str:
        return choice(rng, STYLE_WORDS[clip.style])

    def rich() -> str:
        lines = [f"the frame shows {shown()} {scene()}", f"the look of the picture is {look()}"]
        lines += [
            f"one can make out {name_thing(thing, rng)}, plain in colour and clear in outline" for thing in things
        ]
        lines += [
            f"the surroundings are those {scene()}, and they fill all of the background",
            f"in front is {shown()}",
        ]
        lines += [f"light and grain give the whole frame a {look()} air from edge to edge, above as well as below"]
        return " ".join(_sentence(line) for line in lines)

    def abstract() -> str:
        text = f"A still moment {scene()}, drawn with plain coloured shapes, that somebody would look for by its setting, "
        return text + f"by its {look()} look and by the few objects that take part in it, {shown()}."

    writers = (
        lambda: f"A {look()} frame of a drawn video that shows {shown()} {scene()}.",
        rich,
        abstract,
        lambda: ", ".join([*(thing.name for thing in things), clip.scene, clip.style, "still frame", "drawn scene"]),
        lambda: (
            f"One part of the frame as it stands here is {choice(rng, [name_thing(t, rng) for t in things] or ['scenery'])} {scene()}."
        ),
    )
    return {
        style.key: _fitting(write, style.low, style.high) for style, write in zip(FRAME_STYLES, writers, strict=True)
    }


def _image_query(clip: Clip, subject: Mapping[str, Any], rng: Generator) -> dict[str, str]:
    first, second = (choice(rng, ACTION_WORDS[action]) for _, action in clip.events)
    other = "the other object" if clip.events[0][0] != clip.events[1][0] else "the same object"
    return {
        "query": f"the scene of the image in motion: one object {first}, then {other} {second}, and "
        f"{camera_text(clip.camera, rng)}"
    }


def _clip_query(clip: Clip, subject: Mapping[str, Any], rng: Generator) -> dict[str, str]:
    later = subject["share"] < 0.5
    action = choice(rng, ACTION_WORDS[clip.events[1 if later else 0][1]])
    return {"query": f"{'what follows' if later else 'what came before'} the clip, where one object {action}"}


def _rewritten(clip: Clip, changed: Clip, subject: Mapping[str, Any]) -> str:
    """A video's chosen caption as the same draws write it of a changed clip; "" if it says the same of both."""
    written, state = subject["written"], {}
    rng = generator(written["seed"], written["record"], VIDEO_CAPTIONS.label)
    own, other = (_video_writers(one, subject["emphases"], rng) for one in (clip, changed))

    def write(number: int) -> str:
        state.update(rng.bit_generator.state)
        return own[number]()

    text = ""
    for number, style in enumerate(VIDEO_STYLES[: written["chosen"] + 1]):
        text = _fitting(partial(write, number), style.low, style.high)
    rng.bit_generator.state = state
    wrong = other[written["chosen"]]()
    return wrong if text == written["text"] != wrong else ""


def _wrong_texts(clip: Clip, subject: Mapping[str, Any], rng: Generator) -> dict[str, str]:
    caption = subject["written"]["text"]
    texts = {**dict.fromkeys(CHANGES, ""), "negation": _DOES.sub(r"\1 never \2", caption, count=1)}
    texts["count"] = caption.replace("two coloured shapes", "three coloured shapes")
    for kind, change in CLIP_CHANGES.items():
        changed = change(clip)
        if changed is not None and kind == "order":
            changed = replace(changed, camera=clip.camera[::-1])
        texts[kind] = "" if changed is None else _rewritten(clip, changed, subject)
    return {kind: "" if text == caption else text for kind, text in texts.items()}


_WRITERS: dict[str, Callable[[Clip, Mapping[str, Any], Generator], dict[str, str]]] = {
    "video": _video_captions,
    "frame": _frame_captions,
    "image-query": _image_query,
    "clip-query": _clip_query,
    "counterfactuals": _wrong_texts,
}
