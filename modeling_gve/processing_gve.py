"""GVEProcessor: texts, images, videos and their combinations to the tensors of `GVEModel`.

Shape legend: B rows of a batch, T tokens.

Every row is one chat: a system message (the instruction, or the default one), a user message (video, image, text), the
opening of the assistant's answer, and `<|endoftext|>`, whose hidden state is the embedding.
"""

from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from transformers import AutoTokenizer, BatchFeature, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil
from transformers.video_processing_utils import VideoProcessorMixin

from .chat_gve import DEFAULT_SYSTEM, END_TOKEN, MARKED, ChatEncoder, template_with
from .frames_gve import DecodedVideo, Features, Form, flatten_videos, parse_video
from .image_gve import Picture, check_size, open_image
from .inputs_gve import ParsedInput, chat_of, flatten_images, parse_inputs, placed, resolve_path
from .media_gve import located
from .plan_gve import CallLimits, PlanMixin, media_of, systems_of, token_pixels
from .sentence_gve import MAX_LENGTH
from .video_processing_gve import GVEVideoProcessor, beside_features

MIN_TOKENS, MAX_TOKENS = 4, 256
"""Tokens an image (paper, section A.2)."""


class EmbeddingProcessorMixin(PlanMixin):
    """What every processor of an embedder does, apart from how its backbone writes a video.

    `prepare` takes rows in any form and is what training and encoding use; calling the processor takes rendered chats,
    as `apply_chat_template` and sentence-transformers do. Both give the same tensors.
    """

    def _set_up(self, default_system: str, end_token: str) -> None:
        template = template_with(default_system)
        if self.chat_template != template:
            raise ValueError(
                "chat_template: got another one than the embedder's; accepted is None, because prepare and "
                "apply_chat_template would disagree; to change the system message pass default_system"
            )
        self.default_system, self.end_token = default_system, end_token
        self.chat = ChatEncoder(self.tokenizer, template, default_system, end_token)

    # -- what a backbone decides --------------------------------------------------------------------------------------

    def image_ids(self, grid: Sequence[int]) -> list[int]:
        """Placeholders of one image between their delimiters; `grid` is patches along time, height and width."""
        count = grid[0] * grid[1] * grid[2] // self.image_processor.merge_size**2
        return [self.chat.vision_start_id, *[self.chat.image_id] * count, self.chat.vision_end_id]

    def video_ids(self, grid: Sequence[int], clip: DecodedVideo) -> list[int]:
        """Placeholders of one video between their delimiters; of `clip` the times count, not the frames."""
        count = grid[0] * grid[1] * grid[2] // self.video_processor.merge_size**2
        return [self.chat.vision_start_id, *[self.chat.video_id] * count, self.chat.vision_end_id]

    def video_text(self, grid: Sequence[int], clip: DecodedVideo) -> str:
        """What replaces one video's placeholder in a rendered chat, without the delimiters of the template."""
        return self.video_token * (grid[0] * grid[1] * grid[2] // self.video_processor.merge_size**2)

    # -- rows ---------------------------------------------------------------------------------------------------------

    def prepare(
        self,
        inputs: Sequence[Any],
        *,
        instruction: str | Sequence[str | None] | None = None,
        max_length: int | None = None,
        num_frames: int | None = None,
        video_size: dict[str, int] | None = None,
        image_size: dict[str, int] | None = None,
        as_bytes: bool = False,
    ) -> BatchFeature:
        """Tensors of a batch of inputs.

        Args:
            inputs: Rows: a text, a path or address of an image or video (its content decides which), a PIL image, `Frames`,
                a dict with any of "text", "image" and "video", a chat, that is a message of the user or a list of a
                message of the system and one of the user, or the `row` of a `Plan`. Entries that are None are left
                out; a list holds several texts (joined by newlines), images or videos. See `GVEVideoProcessor.load`
                and `open_image` for the forms of a video and of an image; a decoded `DecodedVideo`, and `Features` in place
                of an image or a video, are taken as they are.
            instruction: The system message of all rows, or one a row; None or "" is the default one, or that of the
                chat.
            max_length: Tokens a row at most, `MAX_LENGTH` by default. Only the text of the input is cut, with a
                warning.
            num_frames: Frames taken from each video, instead of the video processor's.
            video_size: {"shortest_edge", "longest_edge"}, pixels a frame, instead of the video processor's.
            image_size: The same for images, instead of the image processor's.
            as_bytes: Whether patches stay uint8, for `video_processor.normalise` and `normalise_images` on the device.

        Returns:
            `input_ids`, `attention_mask` and `mm_token_type_ids`, each (B, T), padded on the left, and where there are
            any, `pixel_values`, `image_grid_thw`, `pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts`; of
            `Features`, `image_embeds` and `video_embeds` in place of pixels.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If an input has no accepted form, cannot be read, or does not fit `max_length` without its text.
        """
        rows = parse_inputs(inputs)
        systems = systems_of(rows, instruction)
        limit = MAX_LENGTH if max_length is None else max_length
        budget = self._budget(num_frames, video_size, image_size)
        rows = self._refuse_early(rows, systems, limit, budget)
        images, clips = self._decode(rows, budget)
        data: dict[str, torch.Tensor] = {}
        if images:
            data |= self.image_tensors(images, budget.image, as_bytes=as_bytes)
        if clips:
            data |= self.video_processor.tensors(clips, budget.video, as_bytes=as_bytes)
        ids = self.chat.row_ids([row.text for row in rows], systems, self._media_ids(rows, clips, data))
        return BatchFeature(self.chat.pad(self.chat.finish_rows(ids, limit)) | data)

    def _decode(
        self, rows: Sequence[ParsedInput], budget: CallLimits
    ) -> tuple[list[PIL.Image.Image | Features], list[DecodedVideo | Features]]:
        images, clips = [], []
        for index, row in enumerate(rows):
            for kind, place, medium in media_of(row, index):
                with located(place):
                    if kind == "image":
                        images.append(medium if isinstance(medium, Features) else open_image(medium))
                    else:
                        clips.append(self.video_processor.load(medium, num_frames=budget.frames, size=budget.video))
        return images, clips

    def image_tensors(
        self,
        images: Sequence[PIL.Image.Image | Features],
        size: dict[str, int] | None = None,
        *,
        as_bytes: bool = False,
    ) -> dict[str, torch.Tensor]:
        """`image_grid_thw` of all images, `pixel_values` of opened ones, `image_embeds` of those given as features."""
        fresh = [image for image in images if not isinstance(image, Features)]
        options: dict[str, Any] = {} if size is None else {"size": size}
        options |= {"do_rescale": False, "do_normalize": False} if as_bytes else {}
        data = dict(self.image_processor(fresh, return_tensors="pt", **options)) if fresh else {}
        if as_bytes and fresh:
            data["pixel_values"] = data["pixel_values"].to(torch.uint8)  # levels of an image, as floats
        return beside_features(data, images, "image")

    def normalise_images(self, patches: torch.Tensor) -> torch.Tensor:
        """Normalise (N, P) uint8 patches of images on their device, as the image processor would: equal to the last bit."""
        reader = self.image_processor
        levels = torch.arange(256, dtype=torch.float64)  # on the CPU: not every device has this precision
        levels = levels * reader.rescale_factor if reader.do_rescale else levels
        out = levels.float().to(patches.device)[patches.int()]
        if reader.do_normalize:
            mean, std = (
                torch.tensor(values).repeat_interleave(patches.shape[1] // 3).to(patches.device)  # (P,)
                for values in (reader.image_mean, reader.image_std)
            )
            out = out.sub_(mean).div_(std)
        return out

    def _media_ids(
        self, rows: Sequence[ParsedInput], clips: Sequence[DecodedVideo | Features], data: dict[str, torch.Tensor]
    ) -> list[list[int]]:
        images = iter(data["image_grid_thw"].tolist() if "image_grid_thw" in data else [])
        videos = iter(zip(data["video_grid_thw"].tolist() if clips else [], clips, strict=True))
        out = []
        for row in rows:
            ids: list[int] = []
            for _ in row.videos:
                ids += self.video_ids(*next(videos))
            for _ in row.images:
                ids += self.image_ids(next(images))
            out.append(ids)
        return out

    # -- transformers' entry points -----------------------------------------------------------------------------------

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Process rendered chats, as `apply_chat_template` does; see `prepare` for the tensors.

        The end token is appended after truncation, and truncation cuts only the user's text. Without `return_tensors`
        the result holds lists.
        """
        if audio is not None:
            raise ValueError("audio: got a value; accepted is None; the embedder sees frames only")
        options = _take_options(kwargs)
        out = super().__call__(images=images, text=text, videos=videos, **kwargs)
        if text is None:
            return out.convert_to_tensors(tensor_type=options["return_tensors"])
        limit = None
        if options["truncation"] not in (None, False, "do_not_truncate"):
            limit = min(options["max_length"] or MAX_LENGTH, self.tokenizer.model_max_length)
        chats = zip(out.pop("text_replacement_offsets"), out["input_ids"], strict=True)
        ids = [self.chat.encode_marked(chat) if MARKED.search(chat) else list(row) for chat, row in chats]
        ids = self.chat.finish_rows(ids, limit)
        padding = options["padding"]
        if padding in (None, False, "do_not_pad") and (len(ids) > 1 or options["return_tensors"] is None):
            out["input_ids"] = ids
            out["attention_mask"] = [[1] * len(row) for row in ids]
            out["mm_token_type_ids"] = self.create_mm_token_type_ids(ids)
            return out.convert_to_tensors(tensor_type=options["return_tensors"])
        width = options["max_length"] or 0 if padding == "max_length" else 0
        side = options["padding_side"] or self.tokenizer.padding_side
        padded = self.chat.pad(ids, width=width, multiple=options["pad_to_multiple_of"], left=side == "left")
        out.update(padded if options["return_tensors"] else {key: value.tolist() for key, value in padded.items()})
        return out.convert_to_tensors(tensor_type=options["return_tensors"])

    def apply_chat_template(self, conversation: Any, chat_template: str | None = None, **kwargs: Any) -> Any:
        """As transformers' method, with the checks and the order of `prepare`.

        A lone text that names a media file becomes that file: sentence-transformers takes paths with suffixes it does
        not know, and paths that do not exist, for texts. Control tokens in the words stay words, unless
        `sanitize_control_tokens` is False; text that is only rendered keeps them.
        """
        if chat_template not in (None, self.chat.template):
            raise ValueError(
                "chat_template: got another one than the embedder's; accepted is None; use default_system, or a system "
                "message"
            )
        if not isinstance(conversation, (list, tuple)) or not conversation:
            raise ValueError("conversation: got no chat; accepted are a list of messages and a list of chats; skip it")
        batched = isinstance(conversation[0], (list, tuple))
        chats = conversation if batched else [conversation]
        rows = parse_inputs([[resolve_path(message) for message in chat] for chat in chats])
        if kwargs.pop("sanitize_control_tokens", True) and kwargs.get("tokenize"):
            rows = [row._replace(text=self.chat.mark(row.text), system=self.chat.mark(row.system)) for row in rows]
        # transformers 5.24 turns tuples and dataclasses of a message into plain ones: only what it leaves alone goes in
        rows = [row._replace(images=[_plain(image) for image in row.images]) for row in rows]
        chats = [chat_of(row._replace(videos=_formed(row, index))) for index, row in enumerate(rows)]
        return super().apply_chat_template(chats if batched else chats[0], self.chat.template, **kwargs)

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Flatten the inputs and open the images; see `ProcessorMixin`."""
        if text is not None:
            text = [text] if isinstance(text, str) else list(text)
        if images is not None:
            opened = []
            for place, image in placed(images, "image", flatten_images):
                with located(place):
                    opened.append(open_image(image))
            images = opened
        if videos is not None:
            videos = placed(videos, "video", flatten_videos)
        return images, text, videos, audio

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Compare the placeholders of the texts with the media; see `ProcessorMixin`."""
        if text is None:
            return
        if empty := [index for index, chat in enumerate(text) if not chat or chat.isspace()]:
            raise ValueError(
                f"inputs[{empty[0]}]: got an empty chat; accepted is at least one word; leave the row out"
            )
        for name, token, media in (("images", self.image_token, images), ("videos", self.video_token, videos)):
            expected, got = sum(MARKED.sub("", chat).count(token) for chat in text), len(media or [])
            if expected != got:
                raise ValueError(f"{name}: got {got}, but the text has {expected} {token}; pass one for each")

    def get_text_with_replacements(
        self,
        text: list[str],
        images_replacements: Sequence[str] = (),
        videos_replacements: Sequence[str] = (),
        audio_replacements: Sequence[str] = (),
    ) -> tuple[list[str], list[str]]:
        """Expand the placeholders, with the whole texts in place of the offsets; see `ChatEncoder.expand`."""
        return self.chat.expand(text, {self.image_token: images_replacements, self.video_token: videos_replacements})

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The placeholders of one image."""
        return self.image_token * int(
            image_inputs["image_grid_thw"][image_idx].prod() // self.image_processor.merge_size**2
        )

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        if kwargs.get("size") is not None:
            kwargs["size"] = check_size("image size", kwargs["size"], token_pixels(self.image_processor))
        return super()._process_images(images, **kwargs)

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        places, media = zip(*videos, strict=True)
        clips, out = self.video_processor.read(media, places=places, **kwargs)
        grids = out["video_grid_thw"].tolist()
        return out, [self.video_text(grid, clip) for grid, clip in zip(grids, clips, strict=True)]

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
        if _is_ours(processor_dict):
            video = GVEVideoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)
            return [image, tokenizer, video]
        # a published backbone: its patches, but not its budgets, which are made for chats
        names = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
        wanted = {
            name: kwargs[name] for name in ("num_frames", "seconds_per_frame", "do_sample_frames") if name in kwargs
        }
        video = GVEVideoProcessor(**{name: getattr(image, name) for name in names}, **wanted)
        image.size = {
            "shortest_edge": MIN_TOKENS * token_pixels(image),
            "longest_edge": MAX_TOKENS * token_pixels(image),
        }
        tokenizer.padding_side, tokenizer.chat_template = "left", None
        return [image, tokenizer, video]

    @classmethod
    def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build the processor from what a folder holds; see `ProcessorMixin`.

        A published backbone's chat template is replaced by the embedder's.
        """
        saved = processor_dict.get("chat_template")
        if not _is_ours(processor_dict) or saved == template_with(processor_dict["default_system"]):
            processor_dict = {name: value for name, value in processor_dict.items() if name != "chat_template"}
        return super().from_args_and_dict(args, processor_dict, **kwargs)


class GVEProcessor(EmbeddingProcessorMixin, Qwen2_5_VLProcessor):
    """Turns inputs into the tensors of a `GVEModel`."""

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil | None = None,
        tokenizer: Any = None,
        video_processor: GVEVideoProcessor | None = None,
        chat_template: str | None = None,
        default_system: str = DEFAULT_SYSTEM,
        end_token: str = END_TOKEN,
        **kwargs: Any,
    ) -> None:
        template = chat_template or template_with(default_system)
        super().__init__(image_processor, tokenizer, video_processor, chat_template=template)
        self._set_up(default_system, end_token)


def _formed(row: ParsedInput, index: int) -> list[Form]:
    """The parsed videos of an input, so that a list of them is not taken for a list of frames."""
    forms = []
    for kind, place, medium in media_of(row, index):
        if kind == "video":
            with located(place):
                forms.append(parse_video(medium))
    return forms


def _plain(image: Any) -> Any:
    """An image without what is known of it."""
    return image.source if isinstance(image, Picture) else image


def _is_ours(processor_dict: dict[str, Any] | None) -> bool:
    """Whether a folder was saved by an embedder's processor."""
    return bool(processor_dict) and "default_system" in processor_dict


OPTIONS = ("padding", "truncation", "max_length", "return_tensors", "padding_side", "pad_to_multiple_of")


def _take_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take padding, truncation and tensor type out of the keyword arguments, wherever they are nested."""
    text = dict(kwargs.get("text_kwargs") or {})
    common = dict(kwargs.get("common_kwargs") or {})
    options = {}
    for name in OPTIONS:
        found = [source.pop(name, None) for source in (text, common, kwargs)]
        options[name] = next((value for value in found if value is not None), None)
    wanted = {"padding": False, "truncation": False, "return_text_replacement_offsets": True}
    kwargs["text_kwargs"] = {**text, **wanted}
    kwargs["common_kwargs"] = common
    return options
