"""The text of a composed query: a reference and words that together ask for a video (paper, section A.6, in our words)."""

from gve.hub_datasets.vsynflow.prompts.prompt import Prompt, text_schema

BINDINGS = {
    "image": ("the image", "the picture", "the photo", "the reference image", "this image", "this picture"),
    "clip": ("the clip", "this clip", "the reference clip", "the reference", "the video clip", "the same clip"),
}
"""A composed query names its reference with one of these."""

_TEXT = """{shown}

The {reference} is taken from the video, which is described as: "{caption}".

Somebody has only the {reference} and looks for the whole video. Write what they type beside it:
- {wish}
- Point at the {reference} with words such as {bindings}, and do not describe what it already shows: somebody who does
  not have it must not be able to tell which video is meant.
- {limit} Name things, never "something", "a thing" or "an area". No times in seconds.

Answer with one JSON object and nothing else: {{"query": "..."}}."""

IMAGE_QUERY = Prompt("image-query", 1, _TEXT, text_schema({"query": (10, 400)}), 160)
CLIP_QUERY = Prompt("clip-query", 1, _TEXT, text_schema({"query": (10, 160)}), 80)
IMAGE_WISH = (
    "Keep who or what the image shows and tell what changes in the video: the action, the scene, a property that turns "
    "into another, or something that stands in a relation to it."
)
CLIP_WISH = (
    "Tell how the video goes beyond the clip: what follows or came before, another point of view, another quality of "
    "the recording, or a small variation."
)


def image_query_text(caption: str, frames: int) -> str:
    """The words of a request for a TI2V text; the first picture is the reference."""
    return IMAGE_QUERY.fill(
        shown=f"The first picture is the reference image; the other {frames} are frames of a video in order.",
        reference="image",
        caption=caption,
        wish=IMAGE_WISH,
        bindings=_quoted("image"),
        limit="At most 50 words.",
    )


def clip_query_text(caption: str, clip_frames: int, frames: int) -> str:
    """The words of a request for a TV2V text; the first pictures are the reference clip's."""
    return CLIP_QUERY.fill(
        shown=f"The first {clip_frames} pictures are a reference clip; the other {frames} are frames of a video.",
        reference="clip",
        caption=caption,
        wish=CLIP_WISH,
        bindings=_quoted("clip"),
        limit="5 to 15 words.",
    )


def _quoted(reference: str) -> str:
    return ", ".join(f'"{words}"' for words in BINDINGS[reference][:3])
