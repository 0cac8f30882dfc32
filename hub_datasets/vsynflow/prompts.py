"""The captioner's prompts, in our own words (paper, sections 3.2 and A.6), each with a version and an answer schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from gve.hub_datasets.vsynflow.styles import EMPHASIS_WISHES, FRAME_STYLES, VIDEO_STYLES, Profile, Style


@dataclass(frozen=True)
class Prompt:
    """A text to fill in.

    Attributes:
        name: Short name.
        version: Raise it with every change of the text or the schema.
        text: With slots such as {caption}.
        schema: JSON schema of the answer.
        max_tokens: Tokens that the answer may take.
    """

    name: str
    version: int
    text: str
    schema: Mapping[str, Any]
    max_tokens: int

    @property
    def label(self) -> str:
        """Name and version, as stored with every row."""
        return f"{self.name}/{self.version}"

    def fill(self, **values: str) -> str:
        """Fill in every slot once.

        Raises:
            ValueError: If a slot has no value, or a value no slot.
        """
        slots = {name for _, name, _, _ in Formatter().parse(self.text) if name}
        if set(values) != slots:
            raise ValueError(
                f"values of prompt {self.label} must be {', '.join(sorted(slots))}, got "
                f"{', '.join(sorted(values)) or 'none'}."
            )
        return self.text.format(**values)


def _schema(lengths: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """An object of texts with these keys; the greatest lengths stop a constrained decoder that would never end."""
    properties = {key: {"type": "string", "minLength": low, "maxLength": high} for key, (low, high) in lengths.items()}
    return {"type": "object", "properties": properties, "required": list(lengths), "additionalProperties": False}


_CHARACTERS_A_WORD = 12


def _captions_schema(styles: Sequence[Style]) -> dict[str, Any]:
    return _schema({style.key: (style.low * 2, style.high * _CHARACTERS_A_WORD) for style in styles})


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
    """The words of a request for captions.

    Args:
        prompt: VIDEO_CAPTIONS or FRAME_CAPTIONS.
        styles: The styles that go with it.
        profile: What was drawn for the record.
        caption: The weak caption.
        shown: What the pictures are, such as "8 frames of a video of 12.0 seconds".
    """
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


BINDINGS = {
    "image": ("the image", "the picture", "the photo", "the reference image", "this image", "this picture"),
    "clip": ("the clip", "this clip", "the reference clip", "the reference", "the video clip", "the same clip"),
}
"""A composed query names its reference with one of these."""
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
PROMPTS: dict[str, Prompt] = {
    prompt.name: prompt for prompt in (VIDEO_CAPTIONS, FRAME_CAPTIONS, IMAGE_QUERY, CLIP_QUERY)
}


def image_query_text(caption: str, frames: int) -> str:
    """The words of a request for a TI2V text; the first picture is the reference."""
    shown = f"The first picture is the reference image; the other {frames} are frames of a video in order."
    wish = (
        "Keep who or what the image shows and tell what changes in the video: the action, the scene, a property that "
        "turns into another, or something that stands in a relation to it."
    )
    return _query_text(IMAGE_QUERY, "image", caption, shown, wish, "At most 50 words.")


def clip_query_text(caption: str, clip_frames: int, frames: int) -> str:
    """The words of a request for a TV2V text; the first pictures are the reference clip."""
    shown = f"The first {clip_frames} pictures are a reference clip; the other {frames} are frames of a video."
    wish = (
        "Tell how the video goes beyond the clip: what follows or came before, another point of view, another quality "
        "of the recording, or a small variation."
    )
    return _query_text(CLIP_QUERY, "clip", caption, shown, wish, "5 to 15 words.")


def _query_text(prompt: Prompt, reference: str, caption: str, shown: str, wish: str, limit: str) -> str:
    bindings = ", ".join(f'"{words}"' for words in BINDINGS[reference][:3])
    return prompt.fill(shown=shown, reference=reference, caption=caption, wish=wish, bindings=bindings, limit=limit)
