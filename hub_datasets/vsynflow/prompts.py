"""The captioner's prompts, with their versions and answer schemas.

Styles, word ranges and shares of the emphases are the paper's (sections 3.2 and A.6). The words are ours, and so are the
grids of readability and education: the paper names these slots without values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, NamedTuple

import numpy as np

from gve.hub_datasets.vsynflow.records import digest


class Style(NamedTuple):
    """One of the five captions: its key in the answer, its name, its range of words, and the wish in the prompt."""

    key: str
    name: str
    low: int
    high: int
    wish: str


def _styles(rich: tuple[int, int]) -> tuple[Style, ...]:
    return (
        Style("1", "summary", 10, 25, "one plain sentence that sums up what is shown"),
        Style("2", "rich", *rich, "everything that can be seen: who or what, where, how it looks, what happens when"),
        Style(
            "3", "abstract", 30, 100, "the gist in general words, as one would tell it to somebody who looks for it"
        ),
        Style("4", "keywords", 5, 30, "only keywords, parted by commas, no sentence"),
        Style("5", "partial", 10, 70, "one part of it alone, such as one object, one moment or the surroundings"),
    )


VIDEO_STYLES = _styles((80, 200))
FRAME_STYLES = _styles((50, 200))
STYLES = {"video": VIDEO_STYLES, "frame": FRAME_STYLES}

# how often a caption dwells on what; a frame shows no time, so it draws from the other two
EMPHASES = {"spatial": 0.3, "temporal": 0.6, "other": 0.1}
EMPHASIS_WISHES = {
    "spatial": "objects, their looks and where they are",
    "temporal": "actions, their order and how things change",
    "other": "mood, light, camera work and style",
}
READABILITY = ("very easy", "easy", "medium", "difficult")
EDUCATION = ("primary school", "secondary school", "university", "expert")


@dataclass(frozen=True)
class Profile:
    """What is drawn for one video or frame; `chosen` is the number of the caption that stands for it in T2V and T2I."""

    emphases: tuple[str, ...]
    readability: str
    education: str
    chosen: int
    seed: int


def draw_profile(record: str, kind: str, seed: int) -> Profile:
    """Draw the profile of a record for a "video" or "frame", the same in every run with this seed."""
    rng = generator(seed, record, kind)
    shares = {name: share for name, share in EMPHASES.items() if kind == "video" or name != "temporal"}
    weights = np.array(list(shares.values()))
    emphases = tuple(str(name) for name in rng.choice(list(shares), len(STYLES[kind]), p=weights / weights.sum()))
    return Profile(
        emphases=emphases,
        readability=READABILITY[int(rng.integers(len(READABILITY)))],
        education=EDUCATION[int(rng.integers(len(EDUCATION)))],
        chosen=int(rng.integers(len(STYLES[kind]))),
        seed=int(rng.integers(2**31)),
    )


def generator(*parts: str | int) -> np.random.Generator:
    """A random generator that depends on the parts alone."""
    return np.random.default_rng(int(digest(*parts)[:16], 16))


@dataclass(frozen=True)
class Prompt:
    """A text with slots such as {caption}; raise the version with every change of the text or the schema."""

    name: str
    version: int
    text: str
    schema: Mapping[str, Any]
    max_tokens: int

    @property
    def label(self) -> str:
        """Name and version, as stored with every row."""
        return f"{self.name}/{self.version}"

    def draw_seed(self, seed: int, record: str) -> int:
        """The seed of a record's request, the same in every run with this seed."""
        return int(generator(seed, record, self.name).integers(2**31))

    def fill(self, **values: str) -> str:
        """Fill in every slot once; ValueError if a slot has no value, or a value no slot."""
        slots = {name for _, name, _, _ in Formatter().parse(self.text) if name}
        if set(values) != slots:
            raise ValueError(
                f"values of prompt {self.label} must be {', '.join(sorted(slots))}, got "
                f"{', '.join(sorted(values)) or 'none'}."
            )
        return self.text.format(**values)


def _schema(lengths: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """An object of texts with these keys; maximum lengths stop a constrained decoder that would never end."""
    properties = {key: {"type": "string", "minLength": low, "maxLength": high} for key, (low, high) in lengths.items()}
    return {"type": "object", "properties": properties, "required": list(lengths), "additionalProperties": False}


def _captions_schema(styles: Sequence[Style]) -> dict[str, Any]:
    return _schema({style.key: (style.low * 2, style.high * 12) for style in styles})  # characters of a word


_CAPTIONS = """You see {shown}. Somebody described it as: "{caption}". That may be wrong or say little: trust what you see.

Write five captions that differ from each other, for people who search for it:
{styles}

Rules:
- English, one paragraph each. Reading level: {readability}. Choose words for a reader at the level of: {education}.
- Tell only what can be seen. Do not guess, and do not say what is missing: no "without", "no one", "not visible",
  "perhaps" or "seems".
- Keep to the number of words of each caption. At least one has fewer than 20 words, and "2" has more than {long}.

Answer with one JSON object and nothing else: the keys "1" to "5", each with its caption as a string."""
VIDEO_CAPTIONS = Prompt(
    "video", 1, _CAPTIONS.replace("{shown}", "{shown} in order"), _captions_schema(VIDEO_STYLES), 1200
)
FRAME_CAPTIONS = Prompt("frame", 1, _CAPTIONS, _captions_schema(FRAME_STYLES), 1000)


def caption_text(prompt: Prompt, styles: Sequence[Style], profile: Profile, caption: str, shown: str) -> str:
    """The words of a request for captions of the pictures `shown`, such as "8 frames of a video of 12.0 seconds"."""
    lines = (
        f'- "{style.key}", {style.low} to {style.high} words: {style.wish}; dwell on {EMPHASIS_WISHES[emphasis]}.'
        for style, emphasis in zip(styles, profile.emphases, strict=True)
    )
    return prompt.fill(
        shown=shown,
        caption=caption,
        styles="\n".join(lines),
        long="100" if prompt is VIDEO_CAPTIONS else "50",
        readability=profile.readability,
        education=profile.education,
    )


# a composed query names its reference with one of these
BINDINGS = {
    "image": ("the image", "the picture", "the photo", "the reference image", "this image", "this picture"),
    "clip": ("the clip", "this clip", "the reference clip", "the reference", "the video clip", "the same clip"),
}
_QUERY = """{shown}

The {reference} is taken from the video, which is described as: "{caption}".

Somebody has only the {reference} and looks for the whole video. Write what they type beside it:
- {wish}
- Point at the {reference} with words such as {bindings}, and do not describe what it already shows: somebody who does
  not have it must not be able to tell which video is meant.
- {limit} Name things, never "something", "a thing" or "an area". No times in seconds.

Answer with one JSON object and nothing else: {{"query": "..."}}."""
IMAGE_QUERY = Prompt("image-query", 1, _QUERY, _schema({"query": (10, 400)}), 160)
CLIP_QUERY = Prompt("clip-query", 1, _QUERY, _schema({"query": (10, 160)}), 80)
# what a wrong text changes, and what a captioner is told about it
CHANGES = {
    "order": "the same events, camera moves included, in the reverse order of time",
    "relation": "two things in each other's places: left for right, above for below, in front of for behind",
    "attribute": "colours, sizes or materials exchanged between two things; for one thing alone, its opposite",
    "negation": "one action or property that the caption states, denied with not or never",
    "count": "another number of the same things",
    "camera": "the camera moves the opposite way: in for out, left for right, up for down",
    "actor": "who does what exchanged between two actors",
}
_CHANGED = """{shown} "{caption}"

Write wrong captions: each changes one thing, so that it is false of this video, and leaves every other word as it is.
{changes}

Rules:
- Change what the caption says, never what it leaves out. Where it says nothing of the kind, answer "".
- Where the changed caption could be true of the video too, as of two things that happen at once, answer "".

Answer with one JSON object and nothing else: {keys}, each with a string."""
COUNTERFACTUALS = Prompt("counterfactuals", 1, _CHANGED, _schema(dict.fromkeys(CHANGES, (0, 2400))), 2400)
PROMPTS: dict[str, Prompt] = {
    prompt.name: prompt for prompt in (VIDEO_CAPTIONS, FRAME_CAPTIONS, IMAGE_QUERY, CLIP_QUERY)
}


def counterfactual_text(caption: str, frames: int) -> str:
    """The words of a request for wrong texts; here and below, 0 frames for a writer that sees none."""
    changes = "\n".join(f'- "{name}": {wish}' for name, wish in CHANGES.items())
    keys = "the keys " + ", ".join(f'"{name}"' for name in CHANGES)
    seen = f"You see {frames} frames of a video in order. This caption describes it:"
    shown = seen if frames else "This caption describes a video:"
    return COUNTERFACTUALS.fill(shown=shown, caption=caption, changes=changes, keys=keys)


def image_query_text(caption: str, frames: int) -> str:
    """The words of a request for a TI2V text; the first picture is the reference."""
    seen = f"The first picture is the reference image; the other {frames} are frames of a video in order."
    shown = seen if frames else "There are a video and a reference image. You see neither."
    wish = (
        "Keep who or what the image shows and tell what changes in the video: the action, the scene, a property that "
        "turns into another, or something that stands in a relation to it."
    )
    return _query_text(IMAGE_QUERY, "image", caption, shown, wish, "At most 50 words.")


def clip_query_text(caption: str, clip_frames: int, frames: int) -> str:
    """The words of a request for a TV2V text; the first pictures are the reference clip."""
    seen = f"The first {clip_frames} pictures are a reference clip; the other {frames} are frames of a video."
    shown = seen if frames else "There are a video and a reference clip. You see neither."
    wish = (
        "Tell how the video goes beyond the clip: what follows or came before, another point of view, another quality "
        "of the recording, or a small variation."
    )
    return _query_text(CLIP_QUERY, "clip", caption, shown, wish, "5 to 15 words.")


def _query_text(prompt: Prompt, reference: str, caption: str, shown: str, wish: str, limit: str) -> str:
    bindings = ", ".join(f'"{words}"' for words in BINDINGS[reference][:3])
    return prompt.fill(shown=shown, reference=reference, caption=caption, wish=wish, bindings=bindings, limit=limit)
