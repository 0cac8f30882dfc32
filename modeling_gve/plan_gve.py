"""What rows will cost, from the headers of their media: nothing is decoded, no text is tokenised.

Shape legend: F frames, H height, W width, T steps of a video's time axis.

Turning a picture upright swaps its sides, and the number of its tokens stays: so it does not matter here.
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from .frames_gve import DecodedVideo, Features, Form, frame_count, frame_size, look, parse_video
from .image_gve import Picture, check_aspect, check_size, image_size, smart_resize
from .inputs_gve import ParsedInput, parse_inputs
from .media_gve import local_source, located

BYTES_A_TOKEN = 4
"""Of English text; only an estimate."""


class Plan(NamedTuple):
    """The cost of one input."""

    tokens: int  # all its tokens, the end token included; text tokens are estimated, and nothing is cut
    vision: int  # tokens of its images and videos; exact
    pixels: int  # pixels for the vision tower, over all frames, repeated ones included; exact
    row: ParsedInput  # the input taken apart with the sizes of its files; `prepare` opens none of them again


class Seen(NamedTuple):
    """One image or video of an input; `grid` counts patches along time, height and width."""

    kind: str
    frames: int
    grid: tuple[int, int, int]
    tokens: int
    pixels: int

    def __str__(self) -> str:
        """As messages describe it."""
        if self.kind == "image":
            return f"an image of {self.tokens} tokens"
        steps = self.grid[0]
        return f"a video of {self.frames} frames, {steps} pairs x {self.tokens // steps} tokens = {self.tokens}"


class CallLimits(NamedTuple):
    """Limits of one call; sizes are {"shortest_edge", "longest_edge"} in pixels."""

    frames: int
    sample: bool  # whether decoded videos of more than `frames` frames are sampled
    video: dict[str, int]
    image: dict[str, int]


def media_of(row: ParsedInput, index: int) -> Iterator[tuple[str, str, Any]]:
    """Yield "video" or "image", the place that messages quote, and the medium, in the order of the chat."""
    for kind, media in (("video", row.videos), ("image", row.images)):
        for number, medium in enumerate(media):
            yield kind, f"inputs[{index}][{kind!r}]" + (f"[{number}]" if len(media) > 1 else ""), medium


def see(
    row: ParsedInput, index: int, budget: CallLimits, processors: dict[str, Any]
) -> tuple[ParsedInput, list[Seen]]:
    """Read the headers of an input's media: the input with the sizes of its files, and one `Seen` a medium."""
    looked: dict[str, list[Any]] = {"video": [], "image": []}
    out = []
    for kind, place, medium in media_of(row, index):
        with located(place):
            medium, found = (_see_image if kind == "image" else _see_video)(medium, budget, processors[kind])
        looked[kind].append(medium)
        out.append(found)
    return row._replace(images=looked["image"], videos=looked["video"]), out


def _see_image(image: Any, budget: CallLimits, processor: Any) -> tuple[Any, Seen]:
    if isinstance(image, Features):
        return image, _given(image, "image", processor)
    if not isinstance(image, Picture):
        source = local_source(image)
        image = look(source, "image") if isinstance(source, (str, PathLike, bytes)) else image
    return image, _seen("image", 1, *image_size(image), budget, processor)


def _see_video(video: Any, budget: CallLimits, processor: Any) -> tuple[Form, Seen]:
    form = parse_video(video)
    if isinstance(form.done, Features):
        return form, _given(form.done, "video", processor)
    if form.file is not None:
        form = form if form.size else look(form.file, "video")
        frames, size = budget.frames, form.size
    elif form.done is not None:
        frames, size = len(form.done.frames), form.done.frames.shape[1:3]
    else:
        total = frame_count(form.frames)
        frames, size = min(total, budget.frames) if budget.sample else total, frame_size(form)
    check_aspect(*size, "video")
    return form, _seen("video", frames, *size, budget, processor, sized=form.done is not None and form.done.sized)


def _given(features: Features, kind: str, processor: Any) -> Seen:
    """Of a medium that the tower has seen already: it costs no pixels."""
    tokens = int(np.prod(features.grid)) // processor.merge_size**2
    return Seen(kind, max(len(features.times), 1), tuple(features.grid), tokens, 0)


def _seen(
    kind: str, frames: int, height: int, width: int, budget: CallLimits, processor: Any, *, sized: bool = False
) -> Seen:
    factor = processor.patch_size * processor.merge_size
    size = budget.image if kind == "image" else budget.video
    if not sized:
        height, width = smart_resize(height, width, factor, size["shortest_edge"], size["longest_edge"])
    depth = 1 if kind == "image" else processor.temporal_patch_size
    steps = -(-frames // depth)
    grid = (steps, height // processor.patch_size, width // processor.patch_size)
    tokens = steps * (height // factor) * (width // factor)
    return Seen(kind, frames, grid, tokens, steps * depth * height * width)


def estimate_text(text: str | None) -> int:
    """Estimated tokens of a text."""
    return -(-len((text or "").encode(errors="replace")) // BYTES_A_TOKEN)


def too_long(index: int, limit: int, needed: int, seen: Sequence[Seen]) -> str:
    """The message for an input whose media alone exceed `limit` tokens."""
    vision = sum(medium.tokens for medium in seen)
    return (
        f"max_length: got {limit}, but inputs[{index}] takes {needed} tokens without its text, {vision} of them for images "
        f"and videos ({'; '.join(map(str, seen))}); only text is cut; raise max_length, or lower num_frames, "
        "video_size['longest_edge'] or image_size['longest_edge']"
    )


def token_pixels(processor: Any) -> int:
    """Pixels of one token of an image or video processor."""
    return (processor.patch_size * processor.merge_size) ** 2


def systems_of(rows: Sequence[ParsedInput], instruction: str | Sequence[str | None] | None) -> list[str | None]:
    """The system message of each input, from one for all or one an input; None or "" is the default one."""
    shared = instruction is None or isinstance(instruction, str)
    given = [instruction] * len(rows) if shared else list(instruction)
    if len(given) != len(rows):
        raise ValueError(f"instruction: got {len(given)} for {len(rows)} inputs; accepted is one, or one an input")
    for index, (row, system) in enumerate(zip(rows, given, strict=True)):
        if system is not None and not isinstance(system, str):
            raise ValueError(
                f"instruction: got {type(system).__name__} for inputs[{index}]; accepted is a str or None"
            )
        if system and row.system:
            raise ValueError(
                f"instruction: got one for inputs[{index}], which has a system message; accepted is one of them; pass a "
                "list with None for this row, or leave the message out"
            )
    return [row.system or system for row, system in zip(rows, given, strict=True)]


class PlanMixin:
    """Plans inputs before anything is decoded."""

    def plan(
        self,
        inputs: Sequence[Any],
        *,
        instruction: str | Sequence[str | None] | None = None,
        num_frames: int | None = None,
        video_size: dict[str, int] | None = None,
        image_size: dict[str, int] | None = None,
    ) -> list[Plan]:
        """The cost of inputs in `prepare`, from the headers of their media; arguments as for `prepare`."""
        rows = parse_inputs(inputs)
        budget = self._budget(num_frames, video_size, image_size)
        plans = []
        for index, (row, system) in enumerate(zip(rows, systems_of(rows, instruction), strict=True)):
            row, seen = self._see(row, index, budget)
            tokens = self._fixed_tokens(system, seen) + estimate_text(row.text)
            vision, pixels = sum(medium.tokens for medium in seen), sum(medium.pixels for medium in seen)
            plans.append(Plan(tokens, vision, pixels, row))
        return plans

    def _budget(
        self, num_frames: int | None, video_size: dict[str, int] | None, image_size: dict[str, int] | None
    ) -> CallLimits:
        reader, image = self.video_processor, self.image_processor
        frames = reader.frames_wanted(num_frames)
        video = reader.budget(
            None if video_size is None else check_size("video_size", video_size, token_pixels(reader))
        )
        sizes = image.size if image_size is None else check_size("image_size", image_size, token_pixels(image))
        return CallLimits(frames, reader.do_sample_frames, video, {name: sizes[name] for name in video})

    def _see(self, row: ParsedInput, index: int, budget: CallLimits) -> tuple[ParsedInput, list[Seen]]:
        return see(row, index, budget, {"image": self.image_processor, "video": self.video_processor})

    def _fixed_tokens(self, system: str | None, seen: Sequence[Seen]) -> int:
        """Tokens of a row without its text."""
        total = self.chat.overhead(system)
        for medium in seen:
            unread = DecodedVideo(np.empty(0), 0.0, [0.0] * medium.frames)
            total += len(
                self.image_ids(medium.grid) if medium.kind == "image" else self.video_ids(medium.grid, unread)
            )
        return total

    def _refuse_early(
        self, rows: Sequence[ParsedInput], systems: Sequence[str | None], limit: int, budget: CallLimits
    ) -> list[ParsedInput]:
        """Refuse rows whose media are too many; headers are read only where the budgets leave that open."""
        reader = self.video_processor
        steps = -(-budget.frames // reader.temporal_patch_size)
        # 16: delimiters, and the words that some backbones write before each step
        video = steps * (budget.video["longest_edge"] // token_pixels(reader) + 16)
        image = budget.image["longest_edge"] // token_pixels(self.image_processor) + 16
        out = []
        for index, row in enumerate(rows):
            most = len(row.videos) * video + len(row.images) * image + self.chat.overhead(systems[index])
            if (row.images or row.videos) and not (budget.sample and most <= limit):
                row, seen = self._see(row, index, budget)
                if (needed := self._fixed_tokens(systems[index], seen)) > limit:
                    raise ValueError(too_long(index, limit, needed, seen))
            out.append(row)
        return out
