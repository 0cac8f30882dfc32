"""Inputs made ready for the model outside of its thread: what they will cost, and their videos decoded."""

from collections.abc import Mapping
from typing import Any

from gve.eval.encoders import Encoder
from gve.eval.inputs import encoder_input
from gve.eval.media_encoder import NUM_FRAMES, MediaEncoder, fitted
from gve.eval.models import sized_video, skips_broken_inputs, video_size_rule
from gve.video_gve import Limits, read_video

_CHAT = 32  # tokens of the chat around a text, about
_IMAGE, _VIDEO = 256, 1600  # tokens of media of other families, about
_MOST = 8192


def text_tokens(text: str | None) -> int:
    """Tokens of a text, about."""
    return min(_CHAT + len((text or "").encode(errors="replace")) // 4, _MOST)


def made_ready(encoder: Encoder, row: Mapping[str, Any], limits: Limits) -> tuple[Any, int]:
    """A row as the encoder takes it, and its tokens; videos are decoded here.

    Raises:
        ValueError: If the row cannot be read.
    """
    if isinstance(encoder, MediaEncoder) and not encoder.takes(row.keys()):
        raise ValueError(f"the model does not take {' and '.join(sorted(row))}. Send what it takes, or serve another.")
    ours = skips_broken_inputs(encoder)
    item = encoder_input(row, open_images=not ours)
    if isinstance(item, str) or item.keys() == {"text"}:
        return item, text_tokens(row["text"])
    if not ours:
        if isinstance(encoder, MediaEncoder) and "video" in item:
            item["video"] = read_video(item["video"], NUM_FRAMES, fitted, limits=limits)
        return item, text_tokens(row.get("text")) + _IMAGE * ("image" in item) + _VIDEO * ("video" in item)
    options = _options(encoder)
    if "video" in item:
        count = encoder.processor.video_processor.frames_wanted(options["num_frames"])  # type: ignore[attr-defined]
        found = read_video(item["video"], count, video_size_rule(encoder), limits=limits)
        item["video"] = sized_video(encoder, found)
    return item, min(encoder.processor.plan([item], **options)[0].tokens, _MOST)  # type: ignore[attr-defined]


def _options(encoder: Any) -> dict[str, Any]:
    """How the model was saved to see media."""
    stored = encoder[0].processing_kwargs
    video, image = stored.get("video", {}), stored.get("image", {})
    return {"num_frames": video.get("num_frames"), "video_size": video.get("size"), "image_size": image.get("size")}
