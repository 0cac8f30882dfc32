"""Videos in any form, recognised and opened: files, decoded frames as arrays, and their times.

Shape legend: F frames, H height, W width.
"""

import math
from collections.abc import Mapping, Sequence
from io import IOBase
from itertools import pairwise
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from .image_gve import (
    Picture,
    array_size,
    channels_first,
    check_aspect,
    image_size,
    is_array,
    is_listed,
    open_image,
    rgb_array,
)
from .media_gve import check_file, local_source, located, media_kind, source_name, suffix_kind
from .video_gve import Frames, uniform_indices, video_info

DICT_KEYS = {
    "array": {"array", "video_metadata", "layout"},
    "frames": {"frames", "timestamps", "duration", "fps", "layout"},
}


class DecodedVideo(NamedTuple):
    """A decoded video."""

    frames: np.ndarray  # (F, H, W, 3), uint8
    interval: float  # seconds from one frame to the next, on average
    times: list[float]  # F times in seconds, 0 at the first frame of the video
    sized: bool = False  # whether frames have the model's size already; choosing it twice may give another one


class Features(NamedTuple):
    """An image or video as the vision tower sees it, in place of its pixels."""

    features: Any  # (V, W) of its V tokens; None if they travel outside the batch and only their places are wanted
    grid: tuple[int, int, int]  # patches along time, height and width
    interval: float = 0.0  # seconds between two frames; 0 for an image
    times: Sequence[float] = ()  # seconds of each frame; none for an image


class Form(SimpleNamespace):
    """A video in any form, recognised but not decoded; no dataclass, which transformers 5.24 turns into a dict."""

    file: Any = None  # what `read_video` takes, or None
    frames: Any = None  # an array or a list of pictures, or None for a file
    layout: str | None = None  # "THWC", "TCHW", or None if the shape decides
    times: Sequence[float] | None = None  # seconds of each frame, or None
    duration: float = 0.0  # seconds, or 0 if unknown
    rate: float | None = None  # frames a second, or None
    metadata: Mapping[str, Any] | None = None  # transformers' description of an array, or None
    size: tuple[int, int] | None = None  # (height, width) of a file's upright frames if its headers were read
    done: DecodedVideo | Features | None = None  # A decoded video or its features; then nothing else is set
    kind: str = "video"


def parse_video(video: Any) -> Form:
    """Recognise the form of a video, without decoding; see `GVEVideoProcessor.load` for the forms."""
    if isinstance(video, Form):
        return video
    if isinstance(video, (DecodedVideo, Features)):
        return Form(done=video)
    if isinstance(video, Frames):
        return Form(frames=video.frames, layout="THWC", times=video.timestamps, duration=video.duration)
    if is_array(video):
        return Form(frames=video)
    if isinstance(video, (list, tuple)):
        return Form(frames=list(video))
    if is_file(video):
        source = local_source(video)
        if isinstance(source, (str, PathLike)):
            check_file(source)
        return Form(file=source)
    if isinstance(video, dict):
        return _parse_dict(video)
    if isinstance(video, PIL.Image.Image):
        raise ValueError("video: got an image; accepted is a video; pass {'image': x}, or a list of frames")
    raise ValueError(
        f"video: got {type(video).__name__}; accepted are a path, bytes, a binary file object, a dict, an array or a "
        "list of images; convert it"
    )


def _parse_dict(video: dict[str, Any]) -> Form:
    kind = next((name for name in DICT_KEYS if name in video), None)
    if kind is None or not video.keys() <= DICT_KEYS[kind]:
        raise ValueError(
            f"video: got a dict of {sorted(map(str, video))}; accepted are {{'bytes', 'path'}}, "
            f"{sorted(DICT_KEYS['frames'])} and {sorted(DICT_KEYS['array'])}; rename or drop keys"
        )
    frames, layout = video[kind], video.get("layout")
    if isinstance(frames, tuple):
        frames = list(frames)
    if not is_array(frames) and not isinstance(frames, list):
        raise ValueError(
            f"video: got {kind} of type {type(frames).__name__}; accepted are an array and a list; convert it"
        )
    times, rate = video.get("timestamps"), video.get("fps")
    if times is not None and rate is not None:
        raise ValueError("video: got timestamps and fps; accepted is one of them; drop fps, it follows from the times")
    if rate is not None:
        check_rate(rate)
    return Form(
        frames=frames,
        layout=layout,
        times=times,
        duration=video.get("duration") or 0.0,
        rate=rate,
        metadata=video.get("video_metadata"),
    )


def is_file(video: Any) -> bool:
    """Whether a video is a file: a path, an address, bytes, a binary file object or {"bytes", "path"}."""
    if isinstance(video, dict):
        return bool(video) and video.keys() <= {"bytes", "path"}
    return isinstance(video, (str, PathLike, bytes, bytearray, memoryview, IOBase)) or hasattr(video, "read")


def check_rate(rate: Any) -> float:
    """Reject a frame rate that is not positive and finite."""
    if not isinstance(rate, (int, float, np.number)) or not math.isfinite(rate) or rate <= 0:
        raise ValueError(f"fps: got {rate!r}; accepted are numbers above 0; drop it where it is unknown")
    return float(rate)


def frame_count(frames: Any) -> int:
    """Number of frames of a decoded video; rejects none, and arrays of another number of axes."""
    if is_array(frames) and frames.ndim != 4:
        channels_first(frames.shape, None, "video")
    if not len(frames):
        raise ValueError("video: got zero frames; accepted is at least one; leave the video out")
    return len(frames)


def frame_size(form: Form) -> tuple[int, int]:
    """(height, width) of a decoded video's first frame, perhaps not upright yet; no pixels are read."""
    if is_array(form.frames):
        return array_size(form.frames.shape, form.layout, "video")
    first = form.frames[0]
    if is_array(first):
        return array_size((len(form.frames), *first.shape), form.layout, "video")
    with located("frame 0"):
        return image_size(first)


def take_frames(frames: Any, indices: np.ndarray | None, layout: str | None) -> np.ndarray:
    """Frames as one (F, H, W, 3) uint8 array; `indices` of None takes all."""
    if is_array(frames):
        return rgb_array(frames, layout, "video", indices)
    first = _list_layout(frames, layout)
    taken = []
    for number in range(len(frames)) if indices is None else indices.tolist():
        frame = frames[number]
        with located(f"frame {number}"):
            if is_array(frame):
                taken.append(rgb_array(frame, "CHW" if first else "HWC", "image"))
            else:
                taken.append(np.asarray(open_image(frame)))
    sizes = sorted({frame.shape[1::-1] for frame in taken})
    if len(sizes) > 1:
        raise ValueError(
            f"video: got frames of different sizes, {sizes[0]} and {sizes[-1]}; accepted is one; resize them"
        )
    return np.stack(taken)


def _list_layout(frames: Sequence[Any], layout: str | None) -> bool:
    """Whether the arrays of a list have their channels first."""
    layouts = set()
    for number, frame in enumerate(frames):
        if not is_frame(frame):
            shape = f" of shape {tuple(frame.shape)}" if is_array(frame) else ""
            raise ValueError(
                f"video: got {type(frame).__name__}{shape} as frame {number}; accepted are images, arrays of three axes "
                "and paths of images; convert it"
            )
        if is_array(frame):
            layouts.add(channels_first((len(frames), *frame.shape), layout, "video"))
    if len(layouts) > 1:
        raise ValueError(
            "video: got frames (H, W, C) and (C, H, W) in one list; accepted is one layout; transpose some"
        )
    return layouts == {True}


def make_clip(form: Form, *, count: int, sample: bool, seconds_per_frame: float) -> DecodedVideo:
    """Sample the frames of a decoded video.

    The clip's interval is the whole video's length over the frames taken, as Qwen2.5-VL was trained.
    """
    total = frame_count(form.frames)
    times, length = _clock(form, total, seconds_per_frame)
    indices = uniform_indices(total, count) if sample and total > count else None
    frames = take_frames(form.frames, indices, form.layout)
    check_aspect(*frames.shape[1:3], "video")
    if indices is not None:
        times = [times[index] for index in indices.tolist()]
    return DecodedVideo(frames, length / len(frames), times)


def _clock(form: Form, total: int, seconds_per_frame: float) -> tuple[list[float], float]:
    """Times of the frames, and the length of the video, in seconds."""
    if form.times is None:
        if form.rate:
            return [index / form.rate for index in range(total)], total / form.rate
        return _array_times(total, form.metadata, seconds_per_frame)
    times = [float(time) for time in form.times]
    if len(times) != total:
        raise ValueError(f"timestamps: got {len(times)} for {total} frames; accepted is one a frame; pass both")
    if not all(map(math.isfinite, times)) or any(late < soon for soon, late in pairwise(times)):
        raise ValueError(
            f"timestamps: got {times[:8]}; accepted are finite seconds that never decrease; sort the frames by time"
        )
    duration = float(form.duration)
    if not math.isfinite(duration) or duration < 0:
        raise ValueError(f"duration: got {duration}; accepted are seconds, or 0 where it is unknown; correct it")
    if not duration and total > 1:
        duration = (times[-1] - times[0]) * total / (total - 1)
    return times, duration


def _array_times(total: int, metadata: Any, seconds_per_frame: float) -> tuple[list[float], float]:
    """Times of an array's frames and the length of the video: from its metadata, or the documented default."""
    if metadata is not None and not isinstance(metadata, Mapping):
        metadata = vars(metadata)  # transformers' VideoMetadata
    rate = metadata.get("fps") if metadata else None
    if rate is None:
        return [index * seconds_per_frame for index in range(total)], total * seconds_per_frame
    rate, indices = check_rate(rate), metadata.get("frames_indices")
    if indices is None or len(indices) != total:
        return [index / rate for index in range(total)], total / rate
    # as transformers: the length of the whole video these frames were taken from
    return [float(index) / rate for index in indices], (metadata.get("total_num_frames") or total) / rate


def is_frame(value: Any) -> bool:
    """Whether a list's entry is a picture: a PIL image, an array of three axes, or the file of a picture."""
    if isinstance(value, PIL.Image.Image) or is_array(value):
        return not is_array(value) or value.ndim == 3
    file = isinstance(value, (str, PathLike)) or (isinstance(value, dict) and is_file(value))
    return file and media_kind(value) == "image"


def flatten_videos(videos: Any) -> list[Any]:
    """Flatten nested lists of videos without splitting a list of frames; None entries are dropped."""
    if is_array(videos) and videos.ndim == 5:
        return list(videos)
    if not is_listed(videos) or (videos and all(is_frame(entry) for entry in videos)):
        return [videos]
    return [video for entry in videos if entry is not None for video in flatten_videos(entry)]


def look(source: Any, kind: str | None = None) -> Picture | Form:
    """A file with its kind and size, from its headers in one opening; without a `kind` the content decides."""
    source = local_source(source)
    if isinstance(source, (str, PathLike)):
        check_file(source)
        with Path(source).open("rb") as file:
            return _look(source, file, kind or media_kind(file) or suffix_kind(source))
    return _look(source, source, kind or media_kind(source))


def _look(source: Any, file: Any, kind: str | None) -> Picture | Form:
    if kind == "image":
        return Picture(source, image_size(file))
    if kind is None:
        raise ValueError(
            f"got {source_name(source)!r}, which is neither an image nor a video; accepted are files of those; to embed the "
            "words themselves pass {'text': ...}"
        )
    info = video_info(file)
    return Form(file=source, size=(info.height, info.width))
