"""GVEVideoProcessor: videos in any form to Qwen2.5-VL patches, with PyAV and torch only.

Shape legend: F frames, H height, W width, N patches of a video, P values a patch.
"""

import io
from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from transformers import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from .video_gve import Frames, read_video, resize_frames, uniform_indices

MIN_TOKENS, MAX_TOKENS = 4, 200
"""Visual tokens a frame (paper, section A.2: fewer than 200)."""


class GVEVideoKwargs(VideosKwargs, total=False):
    """Keyword arguments of `GVEVideoProcessor`, beside those of transformers.

    Attributes:
        patch_size: Side of a patch in pixels.
        temporal_patch_size: Frames a patch.
        merge_size: Patches merged along each side.
        seconds_per_frame: Time between two frames of an array that comes without times.
    """

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    seconds_per_frame: float


class Clip(NamedTuple):
    """A decoded video: (F, H, W, 3) uint8 frames, and seconds from one frame to the next."""

    frames: np.ndarray
    interval: float


class GVEVideoProcessor(VideoProcessorMixin):
    """Reads, samples, resizes and cuts videos into patches.

    It derives from `VideoProcessorMixin`, because transformers' `BaseVideoProcessor` cannot be made without
    torchvision.

    Args:
        num_frames: Frames taken from each video.
        size: {"shortest_edge", "longest_edge"}: least and most pixels a frame; by default those of 4 and 200 tokens.
        patch_size: Side of a patch in pixels.
        temporal_patch_size: Frames a patch.
        merge_size: Patches merged along each side.
        seconds_per_frame: Time between two frames of an array that comes without times. transformers would take 1/24,
            which puts all frames at one temporal position.
        do_sample_frames: Whether arrays of more than `num_frames` frames are sampled.
        image_mean: Mean of each channel.
        image_std: Deviation of each channel.
    """

    model_input_names = ["pixel_values_videos", "video_grid_thw"]  # noqa: RUF012 - as transformers declares it
    valid_kwargs = GVEVideoKwargs

    def __init__(
        self,
        *,
        num_frames: int = 8,
        size: dict[str, int] | None = None,
        patch_size: int = 14,
        temporal_patch_size: int = 2,
        merge_size: int = 2,
        seconds_per_frame: float = 1.0,
        do_sample_frames: bool = True,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("video_processor_type", None)
        super().__init__(**kwargs)
        self.num_frames = num_frames
        self.patch_size = patch_size
        self.temporal_patch_size = temporal_patch_size
        self.merge_size = merge_size
        self.seconds_per_frame = seconds_per_frame
        self.do_sample_frames = do_sample_frames
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        token = (patch_size * merge_size) ** 2
        self.size = dict(size) if size else {"shortest_edge": MIN_TOKENS * token, "longest_edge": MAX_TOKENS * token}

    def load(
        self,
        video: Any,
        *,
        metadata: VideoMetadata | dict[str, Any] | None = None,
        num_frames: int | None = None,
        do_sample_frames: bool | None = None,
    ) -> Clip:
        """Decode one video, whatever its form.

        Args:
            video: A path, bytes, a binary file object, {"bytes", "path"}, `Frames`, {"frames", "timestamps"} with an
                optional "duration", {"array", "video_metadata"}, an array or tensor (F, H, W, 3) or (F, 3, H, W), or a
                list of images.
            metadata: Times of an array: "fps" with optional "frames_indices" and "total_num_frames".
            num_frames: Frames to take, instead of the processor's.
            do_sample_frames: Instead of the processor's.

        Returns:
            The frames and the seconds between them.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the video cannot be read, or its form is none of the above.
        """
        count = num_frames or self.num_frames
        sample = self.do_sample_frames if do_sample_frames is None else do_sample_frames
        if isinstance(video, dict) and "array" in video:
            video, metadata = video["array"], video.get("video_metadata", metadata)
        if isinstance(video, dict) and "frames" in video:
            video = Frames(_frame_array(video["frames"]), list(video["timestamps"]), video.get("duration") or 0.0)
        if _is_file(video):
            video = read_video(video, count)
        if isinstance(video, Frames):
            return _clip_of_frames(video, count, sample)
        frames = _frame_array(video)
        interval = self._array_interval(len(frames), metadata)
        if sample and len(frames) > count:
            interval *= len(frames) / count
            frames = frames[uniform_indices(len(frames), count)]
        return Clip(frames, interval)

    def _array_interval(self, count: int, metadata: VideoMetadata | dict[str, Any] | None) -> float:
        """Seconds between two frames of an array: from its metadata, or the documented default."""
        if isinstance(metadata, VideoMetadata):
            metadata = {"fps": metadata.fps, "frames_indices": metadata.frames_indices, "duration": metadata.duration}
        fps = metadata.get("fps") if metadata else None
        if not fps:
            return self.seconds_per_frame
        indices = metadata.get("frames_indices")
        # as transformers: the whole video's length over the frames taken from it
        spread = metadata.get("total_num_frames") if indices is not None and len(indices) == count else None
        return (spread or count) / fps / count

    def seconds_per_grid(self, clip: Clip) -> float:
        """Seconds between two steps of the time axis.

        Args:
            clip: A decoded video.

        Returns:
            Seconds.
        """
        return clip.interval * self.temporal_patch_size

    def patches(self, clips: Sequence[Clip], size: dict[str, int] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Resize, cut and normalise decoded videos.

        Args:
            clips: Decoded videos.
            size: Pixel budget instead of the processor's.

        Returns:
            (N of all videos, P) float32 patches in Qwen2.5-VL's order, and (videos, 3) patches along time, height and
            width.
        """
        budget = dict(size) if size else self.size
        factor = self.patch_size * self.merge_size
        cut, grids = [], []
        for clip in clips:
            height, width = smart_resize(
                *clip.frames.shape[1:3], factor, budget["shortest_edge"], budget["longest_edge"]
            )
            pixels, grid = self._cut(resize_frames(clip.frames, height, width))
            cut.append(pixels)
            grids.append(grid)
        flat = torch.from_numpy(np.concatenate(cut) if len(cut) > 1 else cut[0]).float()  # (N, 3, P / 3)
        scale = 1 / self.rescale_factor
        mean = torch.tensor(self.image_mean).mul(scale).view(1, 3, 1)
        std = torch.tensor(self.image_std).mul(scale).view(1, 3, 1)
        return flat.sub_(mean).div_(std).flatten(1), torch.tensor(grids)

    def _cut(self, frames: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """(F, H, W, 3) uint8 to (N, 3, P / 3) uint8, in blocks of merged patches."""
        side, depth, merge = self.patch_size, self.temporal_patch_size, self.merge_size
        if missing := -len(frames) % depth:
            frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        count, height, width, _ = frames.shape
        t, h, w = count // depth, height // side, width // side
        blocks = frames.reshape(t, depth, h // merge, merge, side, w // merge, merge, side, 3)
        blocks = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)  # (t, h/m, w/m, m, m, 3, depth, side, side)
        return blocks.reshape(t * h * w, 3, depth * side * side), [t, h, w]

    def preprocess(
        self,
        videos: Any,
        *,
        video_metadata: Any = None,
        return_tensors: str | None = None,
        num_frames: int | None = None,
        do_sample_frames: bool | None = None,
        size: dict[str, int] | None = None,
        return_metadata: bool | None = None,
    ) -> BatchFeature:
        """Read, sample and cut videos, as transformers calls it.

        Args:
            videos: A video or a list of videos, each in any form that `load` takes.
            video_metadata: One entry a video for arrays, or None.
            return_tensors: Ignored: tensors are always torch's.
            num_frames: Frames to take, instead of the processor's.
            do_sample_frames: Instead of the processor's.
            size: Pixel budget instead of the processor's.
            return_metadata: Ignored: the times are in `second_per_grid_ts`.

        Returns:
            `pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts`.
        """
        flat = flatten_videos(videos)
        metadata = video_metadata if isinstance(video_metadata, (list, tuple)) else [video_metadata] * len(flat)
        if len(metadata) != len(flat):
            raise ValueError(
                f"video_metadata: got {len(metadata)} entries for {len(flat)} videos; accepted is one a video; "
                "use None for files"
            )
        clips = [
            self.load(video, metadata=entry, num_frames=num_frames, do_sample_frames=do_sample_frames)
            for video, entry in zip(flat, metadata, strict=True)
        ]
        pixels, grids = self.patches(clips, size)
        seconds = torch.tensor([self.seconds_per_grid(clip) for clip in clips])
        return BatchFeature({"pixel_values_videos": pixels, "video_grid_thw": grids, "second_per_grid_ts": seconds})


def _is_file(video: Any) -> bool:
    if isinstance(video, dict):
        return "bytes" in video or "path" in video
    return isinstance(video, (str, PathLike, bytes, io.IOBase)) or hasattr(video, "read")


def _clip_of_frames(video: Frames, count: int, sample: bool) -> Clip:
    """Seconds a frame are the video's length over its frames, as Qwen2.5-VL was trained with."""
    frames, times, duration = video.frames, video.timestamps, video.duration
    if len(frames) != len(times):
        raise ValueError(f"timestamps: got {len(times)} for {len(frames)} frames; accepted is one a frame; pass both")
    if not duration and len(times) > 1:
        duration = (times[-1] - times[0]) * len(times) / (len(times) - 1)
    if sample and len(frames) > count:
        frames = frames[uniform_indices(len(frames), count)]
    return Clip(frames, duration / len(frames))


def _frame_array(video: Any) -> np.ndarray:
    """(F, H, W, 3) uint8 from an array, tensor or list of images."""
    if isinstance(video, (list, tuple)):
        video = np.stack([_image_array(frame) for frame in video]) if video else np.empty(0)
    array = video.cpu().numpy() if isinstance(video, torch.Tensor) else np.asarray(video)
    if array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.dtype != np.uint8 or not len(array):
        raise ValueError(
            f"video: got {type(video).__name__} of shape {array.shape} and type {array.dtype}; accepted are uint8 "
            "frames (F, H, W, 3) or (F, 3, H, W); convert it, or pass the file's path"
        )
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def _image_array(frame: Any) -> np.ndarray:
    if isinstance(frame, (str, PathLike)):
        with PIL.Image.open(frame) as opened:
            return np.asarray(opened.convert("RGB"))
    if isinstance(frame, PIL.Image.Image):
        return np.asarray(frame.convert("RGB"))
    return frame.cpu().numpy() if isinstance(frame, torch.Tensor) else np.asarray(frame)


def is_video(value: Any) -> bool:
    """Whether a value is one video, and not a list of videos.

    Args:
        value: Anything.

    Returns:
        True for every form that `GVEVideoProcessor.load` takes.
    """
    if _is_file(value) or isinstance(value, Frames):
        return True
    if isinstance(value, dict):
        return "array" in value or "frames" in value
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.ndim == 4
    return isinstance(value, (list, tuple)) and bool(value) and all(_is_frame(frame) for frame in value)


def _is_frame(value: Any) -> bool:
    return isinstance(value, PIL.Image.Image) or (isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim == 3)


def flatten_videos(videos: Any) -> list[Any]:
    """A flat list of videos out of nested lists, never splitting a list of frames.

    Args:
        videos: A video, or lists of videos; None entries are dropped.

    Returns:
        The videos in order.

    Raises:
        ValueError: If an entry is no video.
    """
    if is_video(videos):
        return [videos]
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        raise ValueError(
            f"video: got {type(videos).__name__}; accepted are a path, bytes, a binary file object, a dict, an array "
            "or a list of images; convert it"
        )
    return [video for entry in videos if entry is not None for video in flatten_videos(entry)]
