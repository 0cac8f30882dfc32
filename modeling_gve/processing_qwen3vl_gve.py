"""GVEQwen3VLProcessor: texts, images, videos and their combinations to the tensors of `GVEQwen3VLModel`.

Shape legend: F frames of a video, T steps of its time axis (two frames each).

A video is written as one group of placeholders a step, each after its time in words: "<1.2 seconds>". The time is the
mean of the true times of the step's first and last frame.
"""

from collections.abc import Sequence
from typing import Any

from transformers import Qwen2VLImageProcessorPil, Qwen3VLProcessor

from .chat_gve import END_TOKEN, template_with
from .processing_gve import EmbeddingProcessorMixin
from .video_processing_gve import DecodedVideo, GVEVideoProcessor

QWEN3VL_SYSTEM = "Represent the user's input."
"""The system message of rows without an instruction, as Qwen3-VL-Embedding was trained with."""


class GVEQwen3VLProcessor(EmbeddingProcessorMixin, Qwen3VLProcessor):
    """Turns inputs into the tensors of a `GVEQwen3VLModel`: patches of 16 pixels, mean and deviation 0.5.

    Args:
        outer_delimiters: Whether one more pair of delimiters encloses all steps of a video. transformers writes it
            since 5.10; Qwen3-VL was trained without, as transformers 4.57 wrote videos.
    """

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil | None = None,
        tokenizer: Any = None,
        video_processor: GVEVideoProcessor | None = None,
        chat_template: str | None = None,
        default_system: str = QWEN3VL_SYSTEM,
        end_token: str = END_TOKEN,
        outer_delimiters: bool = False,
        **kwargs: Any,
    ) -> None:
        template = chat_template or template_with(default_system)
        super().__init__(image_processor, tokenizer, video_processor, chat_template=template)
        self.outer_delimiters = outer_delimiters
        self._stamp_ids: dict[str, list[int]] = {}
        self._set_up(default_system, end_token)

    def stamps(self, steps: int, clip: DecodedVideo) -> list[str]:
        """The time of each step in words, one decimal; the last frame stands in for any that the last step lacks."""
        depth, last = self.video_processor.temporal_patch_size, len(clip.times) - 1
        spans = [(min(step * depth, last), min(step * depth + depth - 1, last)) for step in range(steps)]
        return [f"<{(clip.times[first] + clip.times[end]) / 2:.1f} seconds>" for first, end in spans]

    def video_ids(self, grid: Sequence[int], clip: DecodedVideo) -> list[int]:
        """Ids of one video; see `EmbeddingProcessorMixin`."""
        start, end = self.chat.vision_start_id, self.chat.vision_end_id
        step = [start, *[self.chat.video_id] * self._step_tokens(grid), end]
        ids = [token for stamp in self.stamps(grid[0], clip) for token in (*self._encode_stamp(stamp), *step)]
        return [start, *ids, end] if self.outer_delimiters else ids

    def video_text(self, grid: Sequence[int], clip: DecodedVideo) -> str:
        """What stands in place of one video's placeholder; see `EmbeddingProcessorMixin`."""
        step = self.vision_start_token + self.video_token * self._step_tokens(grid) + self.vision_end_token
        return "".join(stamp + step for stamp in self.stamps(grid[0], clip))

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Flatten and open the inputs, and take a video's own delimiters out of the texts; see `ProcessorMixin`."""
        images, text, videos, audio = super().prepare_inputs_layout(
            images=images, text=text, videos=videos, audio=audio, **kwargs
        )
        if text is not None and not self.outer_delimiters:
            delimited = self.vision_start_token + self.video_token + self.vision_end_token
            text = [chat.replace(delimited, self.video_token) for chat in text]
        return images, text, videos, audio

    def _step_tokens(self, grid: Sequence[int]) -> int:
        return grid[1] * grid[2] // self.video_processor.merge_size**2

    def _encode_stamp(self, stamp: str) -> list[int]:
        ids = self._stamp_ids.get(stamp)
        if ids is None:
            if len(self._stamp_ids) >= 4096:  # a corpus of long videos has no end of times
                self._stamp_ids.clear()
            ids = self._stamp_ids[stamp] = self.chat.encode(stamp)
        return ids
