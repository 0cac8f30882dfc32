"""The prompts of the captioner, in our own words, each with a version and the JSON schema of its answer."""

from gve.hub_datasets.vsynflow.prompts.captions import FRAME_CAPTIONS, VIDEO_CAPTIONS
from gve.hub_datasets.vsynflow.prompts.composed import CLIP_QUERY, IMAGE_QUERY
from gve.hub_datasets.vsynflow.prompts.prompt import Prompt

PROMPTS: dict[str, Prompt] = {
    prompt.name: prompt for prompt in (VIDEO_CAPTIONS, FRAME_CAPTIONS, IMAGE_QUERY, CLIP_QUERY)
}

__all__ = ["CLIP_QUERY", "FRAME_CAPTIONS", "IMAGE_QUERY", "PROMPTS", "VIDEO_CAPTIONS", "Prompt"]
