"""GVEProcessor: texts, images, videos and their combinations to the tensors of `GVEModel`.

Shape legend: B rows of a batch, T tokens.

Every row is one chat: a system message (the instruction, or Qwen's default), a user message (video, image, text), the
opening of the assistant's answer, and `<|endoftext|>`, whose hidden state is the embedding.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BatchFeature, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens
from transformers.video_processing_utils import VideoProcessorMixin

from .inputs_gve import Row, flatten_images, open_image, parse_row, resolve_path
from .video_processing_gve import GVEVideoProcessor, flatten_videos

MAX_LENGTH = 8192
"""Tokens a row at most (paper, section A.2)."""

DEFAULT_SYSTEM = "You are a helpful assistant."
END_TOKEN = "<|endoftext|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% endif %}{% endfor %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}"
    "{% for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"  # as an expression: Jinja drops a newline at the very end
)
"""Qwen2.5-VL's chat, with the content in a fixed order and the generation prompt always there."""

USER_HEAD = "user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"


class GVEProcessor(Qwen2_5_VLProcessor):
    """Turns inputs into model tensors.

    `prepare` takes rows in any form and is what training and encoding use; calling the processor takes rendered chats,
    as `apply_chat_template` and sentence-transformers do. Both give the same tensors.

    Args:
        image_processor: A `Qwen2VLImageProcessorPil`.
        tokenizer: A Qwen2 tokenizer.
        video_processor: A `GVEVideoProcessor`.
        chat_template: The chat template, `CHAT_TEMPLATE` by default.
    """

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil | None = None,
        tokenizer: Any = None,
        video_processor: GVEVideoProcessor | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template or CHAT_TEMPLATE)
        self.end_token_id, self.vision_start_id, self.vision_end_id, self.turn_start_id = (
            tokenizer.convert_tokens_to_ids([END_TOKEN, "<|vision_start|>", "<|vision_end|>", "<|im_start|>"])
        )
        self._user_ids = self._encode(USER_HEAD)
        self._tail_ids = self._encode(TAIL)
        self._head_ids: dict[str, list[int]] = {}
        self._control = re.compile(
            "|".join(map(re.escape, tokenizer.added_tokens_encoder)) + "|[\U000f0000\U000f0001]"
        )

    # -- rows ---------------------------------------------------------------------------------------------------------

    def prepare(
        self,
        inputs: Sequence[Any],
        *,
        instruction: str | Sequence[str | None] | None = None,
        max_length: int | None = None,
    ) -> BatchFeature:
        """Tensors of a batch of inputs.

        Args:
            inputs: Rows: a text, a path of an image or video (recognised by its suffix), or a dict with any of "text",
                "image" and "video"; entries that are None are left out. See `GVEVideoProcessor.load` for the forms of
                a video; an image is a path, bytes, {"bytes", "path"}, a PIL image or a uint8 array.
            instruction: The system message of all rows, or one a row; None or "" is Qwen's default one.
            max_length: Tokens a row at most, `MAX_LENGTH` by default. Only the text of the input is cut.

        Returns:
            `input_ids`, `attention_mask` and `mm_token_type_ids`, each (B, T), padded on the left, and where there are
            any, `pixel_values`, `image_grid_thw`, `pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts`.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If an input has no accepted form, cannot be read, or does not fit `max_length` without its text.
        """
        rows = [parse_row(value, index) for index, value in enumerate(inputs)]
        if not rows:
            raise ValueError("inputs: got an empty list; accepted is at least one row; skip empty batches")
        systems = _instructions(instruction, len(rows))
        data: dict[str, torch.Tensor] = {}
        images = [open_image(row.image) for row in rows if row.image is not None]
        if images:
            data |= self.image_processor(images, return_tensors="pt")
        clips = [self.video_processor.load(row.video) for row in rows if row.video is not None]
        if clips:
            pixels, grids = self.video_processor.patches(clips)
            seconds = torch.tensor([self.video_processor.seconds_per_grid(clip) for clip in clips])
            data |= {"pixel_values_videos": pixels, "video_grid_thw": grids, "second_per_grid_ts": seconds}
        ids = self._row_ids(rows, systems, self._token_counts(data))
        limit = MAX_LENGTH if max_length is None else max_length
        ids = [self._finish(row, limit, index) for index, row in enumerate(ids)]
        return BatchFeature(self._pad(ids) | data)

    def _token_counts(self, data: dict[str, torch.Tensor]) -> dict[str, list[int]]:
        counts = {}
        for kind, key, merge in (
            ("image", "image_grid_thw", self.image_processor.merge_size),
            ("video", "video_grid_thw", self.video_processor.merge_size),
        ):
            counts[kind] = (data[key].prod(-1) // merge**2).tolist() if key in data else []
        return counts

    def _row_ids(self, rows: list[Row], systems: list[str], counts: dict[str, list[int]]) -> list[list[int]]:
        """Ids of each row up to the tail, built without rendering the chat template."""
        images, videos = iter(counts["image"]), iter(counts["video"])
        media = [self._media_ids(row, images, videos) for row in rows]
        # the first line of the user's turn and a text right after it are one piece to the tokenizer
        pieces = [
            row.text or "" if seen else USER_HEAD + (row.text or "") for row, seen in zip(rows, media, strict=True)
        ]
        texts = self.tokenizer(pieces, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        out = []
        for row, system, seen, text in zip(rows, systems, media, texts, strict=True):
            if self._control.search(system) or (row.text and self._control.search(row.text)):
                out.append(self._guarded_ids(row, system, seen))
            else:
                user = self._user_ids if seen else []
                out.append([*self._system_ids(system), *user, *seen, *text, *self._tail_ids])
        return out

    def _media_ids(self, row: Row, images: Iterator[int], videos: Iterator[int]) -> list[int]:
        ids: list[int] = []
        for value, counts, pad in ((row.video, videos, self.video_token_id), (row.image, images, self.image_token_id)):
            if value is not None:
                ids += [self.vision_start_id, *[pad] * next(counts), self.vision_end_id]
        return ids

    def _guarded_ids(self, row: Row, system: str, seen: list[int]) -> list[int]:
        """Ids of a row whose words hold control tokens, which stay plain text as transformers would leave them."""
        control = re.compile("|".join(map(re.escape, self._control_tokens())))
        system, text = (mark_control_tokens(words, control) for words in (system, row.text or ""))
        head = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>{USER_HEAD}"
        vision = self.tokenizer.decode(seen, skip_special_tokens=False) if seen else ""
        return encode_marked_chat(self.tokenizer, f"{head}{vision}{text}{TAIL}")

    def _control_tokens(self) -> list[str]:
        return sorted(self.tokenizer._get_control_tokens(self.chat_template), key=len, reverse=True)

    def _system_ids(self, system: str) -> list[int]:
        ids = self._head_ids.get(system)
        if ids is None:
            if len(self._head_ids) >= 4096:  # one per task in practice; a bound all the same
                self._head_ids.clear()
            ids = self._head_ids[system] = self._encode(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>")
        return ids

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]

    # -- ids ----------------------------------------------------------------------------------------------------------

    def _finish(self, ids: list[int], limit: int | None, index: int) -> list[int]:
        """Cut the user's text to the limit, keep the tail, append the end token."""
        if ids and ids[-1] == self.end_token_id:
            ids = ids[:-1]
        if limit is not None and len(ids) + 1 > limit:
            ids = self._shorten(ids, limit - 1, index)
        return [*ids, self.end_token_id]

    def _shorten(self, ids: list[int], limit: int, index: int) -> list[int]:
        tail = self._tail_ids if ids[-len(self._tail_ids) :] == self._tail_ids else []
        body = ids[: len(ids) - len(tail)]
        fixed = 0
        for place in range(len(body) - 1, -1, -1):
            if body[place] == self.vision_end_id:
                fixed = place + 1
                break
            if body[place] == self.turn_start_id:
                fixed = place + 1 + len(self._user_ids)
                break
        keep = limit - len(tail)
        if keep < fixed:
            vision = sum(token in (self.image_token_id, self.video_token_id) for token in body)
            raise ValueError(
                f"max_length: got {limit + 1}, but input {index} takes {fixed + len(tail) + 1} tokens without its "
                f"text, {vision} of them for images and videos; only text is cut; raise max_length, or lower "
                "num_frames or size['longest_edge']"
            )
        return body[:keep] + tail

    def _pad(
        self, ids: list[list[int]], *, width: int = 0, multiple: int | None = None, left: bool = True
    ) -> dict[str, torch.Tensor]:
        width = max(width, *(len(row) for row in ids))
        if multiple:
            width = -(-width // multiple) * multiple
        tokens = np.full((len(ids), width), self.tokenizer.pad_token_id, np.int64)  # (B, T)
        mask = np.zeros((len(ids), width), np.int64)
        for index, row in enumerate(ids):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            tokens[index, place] = row
            mask[index, place] = 1
        types = (tokens == self.image_token_id) + 2 * (tokens == self.video_token_id).astype(np.int64)
        names = ("input_ids", "attention_mask", "mm_token_type_ids")
        return {name: torch.from_numpy(x) for name, x in zip(names, (tokens, mask, types), strict=True)}

    # -- transformers' entry points -----------------------------------------------------------------------------------

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Process rendered chats, as `apply_chat_template` does.

        The end token is appended after truncation, and truncation cuts only the user's text.

        Args:
            images: Images in the order of their placeholders.
            text: Rendered chats.
            videos: Videos in the order of their placeholders.
            audio: Not supported.
            **kwargs: transformers' processor arguments.

        Returns:
            The tensors that `prepare` gives, or lists where `return_tensors` is not given.
        """
        if audio is not None:
            raise ValueError("audio: got a value; accepted is None; the embedder sees frames only")
        options = _take_options(kwargs)
        out = super().__call__(images=images, text=text, videos=videos, **kwargs)
        if text is None:
            return out.convert_to_tensors(tensor_type=options["return_tensors"])
        limit = None
        if options["truncation"] not in (None, False, "do_not_truncate"):
            limit = options["max_length"] or min(self.tokenizer.model_max_length, MAX_LENGTH)
        ids = [self._finish(list(row), limit, index) for index, row in enumerate(out["input_ids"])]
        padding = options["padding"]
        if padding in (None, False, "do_not_pad") and (len(ids) > 1 or options["return_tensors"] is None):
            out["input_ids"] = ids
            out["attention_mask"] = [[1] * len(row) for row in ids]
            out["mm_token_type_ids"] = self.create_mm_token_type_ids(ids)
            return out.convert_to_tensors(tensor_type=options["return_tensors"])
        width = options["max_length"] or 0 if padding == "max_length" else 0
        side = options["padding_side"] or self.tokenizer.padding_side
        padded = self._pad(ids, width=width, multiple=options["pad_to_multiple_of"], left=side == "left")
        out.update(padded if options["return_tensors"] else {key: value.tolist() for key, value in padded.items()})
        return out.convert_to_tensors(tensor_type=options["return_tensors"])

    def apply_chat_template(self, conversation: Any, chat_template: str | None = None, **kwargs: Any) -> Any:
        """As transformers' method, but a lone text that names a media file becomes that file.

        sentence-transformers takes paths with suffixes it does not know, and paths that do not exist, for texts.

        Args:
            conversation: A chat or a list of chats.
            chat_template: Another template.
            **kwargs: Passed on.

        Returns:
            What transformers returns.

        Raises:
            FileNotFoundError: If the text is one word that names a media file which does not exist.
        """
        batched = bool(conversation) and isinstance(conversation[0], (list, tuple))
        chats = conversation if batched else [conversation]
        chats = [[resolve_path(message) for message in chat] for chat in chats]
        return super().apply_chat_template(chats if batched else chats[0], chat_template, **kwargs)

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Flatten and open the inputs; see `ProcessorMixin`."""
        if text is not None:
            text = [text] if isinstance(text, str) else list(text)
        if images is not None:
            images = [open_image(image) for image in flatten_images(images)]
        if videos is not None:
            videos = flatten_videos(videos)
        return images, text, videos, audio

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Compare the placeholders of the texts with the media; see `ProcessorMixin`."""
        if text is None:
            return
        for name, token, media in (("images", self.image_token, images), ("videos", self.video_token, videos)):
            expected, got = sum(chat.count(token) for chat in text), len(media or [])
            if expected != got:
                raise ValueError(f"{name}: got {got}, but the text has {expected} {token}; pass one for each")

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The placeholders of one image."""
        return self.image_token * int(
            image_inputs["image_grid_thw"][image_idx].prod() // self.image_processor.merge_size**2
        )

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """The placeholders of one video."""
        return self.video_token * int(
            video_inputs["video_grid_thw"][video_idx].prod() // self.video_processor.merge_size**2
        )

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        out = self.video_processor(videos, **kwargs)
        return out, [self.replace_video_token(out, index) for index in range(len(out["video_grid_thw"]))]

    # -- loading without torchvision ----------------------------------------------------------------------------------

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Check a sub-processor; transformers' own check of video processors needs torchvision."""
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(
                f"video_processor: got {type(argument).__name__}; accepted is a GVEVideoProcessor; make one"
            )
        return VideoProcessorMixin

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        kwargs.pop("_from_auto", None)
        trust = kwargs.pop("trust_remote_code", None)
        # the Auto classes of the two others would look for torchvision
        image = Qwen2VLImageProcessorPil.from_pretrained(pretrained_model_name_or_path, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, trust_remote_code=trust, **kwargs)
        return [image, tokenizer, GVEVideoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)]


def _instructions(instruction: str | Sequence[str | None] | None, rows: int) -> list[str]:
    if instruction is None or isinstance(instruction, str):
        return [instruction or DEFAULT_SYSTEM] * rows
    if len(instruction) != rows:
        raise ValueError(f"instruction: got {len(instruction)} for {rows} inputs; accepted is one, or one an input")
    return [words or DEFAULT_SYSTEM for words in instruction]


OPTIONS = ("padding", "truncation", "max_length", "return_tensors", "padding_side", "pad_to_multiple_of")


def _take_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take padding, truncation and tensor type out of the keyword arguments, wherever they are nested."""
    text = dict(kwargs.get("text_kwargs") or {})
    common = dict(kwargs.get("common_kwargs") or {})
    options = {}
    for name in OPTIONS:
        found = [source.pop(name, None) for source in (text, common, kwargs)]
        options[name] = next((value for value in found if value is not None), None)
    kwargs["text_kwargs"] = {**text, "padding": False, "truncation": False}
    kwargs["common_kwargs"] = common
    return options
