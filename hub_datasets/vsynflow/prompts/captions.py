"""Five captions of a video or of one frame (paper, sections 3.2 and A.6; the wording is ours)."""

from collections.abc import Sequence
from typing import Any

from gve.hub_datasets.vsynflow.prompts.prompt import Prompt, text_schema
from gve.hub_datasets.vsynflow.styles import (
    EMPHASIS_WISHES,
    FRAME_STYLES,
    VIDEO_STYLES,
    Profile,
    Style,
)

_CHARACTERS_A_WORD = 12
_TEXT = """You see {shown}. Somebody described it as: "{caption}". That may be wrong or say little: trust what you see.

Write five captions that differ from each other, for people who search for it:
{styles}

Rules:
- English, one paragraph each. Reading level: {readability}. Choose words for a reader at the level of: {education}.
- Tell only what can be seen. Do not guess, and do not say what is missing: no "without", "no one", "not visible",
  "perhaps" or "seems".
- Keep to the number of words of each caption. At least one has fewer than 20 words, and "2" has more than {long}.

Answer with one JSON object and nothing else: the keys "1" to "5", each with its caption as a string."""


def _schema(styles: Sequence[Style]) -> dict[str, Any]:
    return text_schema({style.key: (style.low * 2, style.high * _CHARACTERS_A_WORD) for style in styles})


VIDEO_CAPTIONS = Prompt("video", 1, _TEXT.replace("{shown}", "{shown} in order"), _schema(VIDEO_STYLES), 1200)
FRAME_CAPTIONS = Prompt("frame", 1, _TEXT, _schema(FRAME_STYLES), 1000)


def style_lines(styles: Sequence[Style], profile: Profile) -> str:
    """The list of the five captions in the prompt, with what each shall dwell on."""
    return "\n".join(
        f'- "{style.key}", {style.low} to {style.high} words: {style.wish}; dwell on {EMPHASIS_WISHES[emphasis]}.'
        for style, emphasis in zip(styles, profile.emphases, strict=True)
    )


def caption_text(prompt: Prompt, styles: Sequence[Style], profile: Profile, caption: str, shown: str) -> str:
    """The words of a request for captions.

    Args:
        prompt: VIDEO_CAPTIONS or FRAME_CAPTIONS.
        styles: The styles that go with it.
        profile: What was drawn.
        caption: The weak caption.
        shown: What the pictures are, such as "8 frames of a video of 12.0 seconds".
    """
    return prompt.fill(
        shown=shown,
        caption=caption,
        styles=style_lines(styles, profile),
        long="100" if prompt is VIDEO_CAPTIONS else "50",
        readability=profile.readability,
        education=profile.education,
    )
