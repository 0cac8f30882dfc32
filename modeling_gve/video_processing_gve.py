"""GVEVideoProcessor: videos in any form to Qwen2.5-VL patches, with PyAV and torch only.

Shape legend: F frames, H height, W width, N patches of a video, P values a patch.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from .arrays_gve import check_aspect, check_size, smart_resize
from .frames_gve import Clip, Features, flatten_videos, make_clip, parse_video
from .media_gve import located, shown
from .patches_gve import cut_patches, normalise_patches
from .video_gve import read_video, resize_frames

MIN_TOKENS, MAX_TOKENS = 4, 200
"""Visual tokens a frame (paper, section A.2: fewer than 200)."""

NO_EFFECT = frozenset({"return_metadata", "return_tensors", "device", "do_convert_rgb", "disable_grouping"})
"""Arguments that transformers passes along and that do not matter here."""


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
        size = size or {"shortest_edge": MIN_TOKENS * token, "longest_edge": MAX_TOKENS * token}
        self.size = check_size("size", size, token)
        self.frames_wanted(None)

    def frames_wanted(self, num_frames: int | None) -> int:
        """Frames to take from each video.

        Args:
            num_frames: Instead of the processor's, or None.

        Returns:
            A number of frames.

        Raises:
            ValueError: If it is less than 1.
        """
        count = self.num_frames if num_frames is None else num_frames
        if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 1:
            raise ValueError(f"num_frames: got {count!r}; accepted are integers from 1 on; the default is 8")
        return int(count)

    def budget(self, size: dict[str, int] | None) -> dict[str, int]:
        """Least and most pixels a frame.

        Args:
            size: Instead of the processor's, or None.

        Returns:
            {"shortest_edge", "longest_edge"}.

        Raises:
            ValueError: As for `check_size`.
        """
        return self.size if size is None else check_size("video size", size, (self.patch_size * self.merge_size) ** 2)

    def load(
        self,
        video: Any,
        *,
        metadata: VideoMetadata | dict[str, Any] | None = None,
        num_frames: int | None = None,
        do_sample_frames: bool | None = None,
        size: dict[str, int] | None = None,
    ) -> Clip | Features:
        """Decode one video, whatever its form; what is decoded already comes back as it is.

        Args:
            video: A path, an address, bytes, a binary file object, {"bytes", "path"}, `Frames`, {"frames"} with "timestamps" and
                perhaps "duration", or with "fps", {"array", "video_metadata"}, an array or tensor (F, H, W, C) or
                (F, C, H, W), or a list of PIL images, arrays or paths of images. Arrays are uint8, or floats in
                [0, 1]; both dicts may say "layout": "THWC" or "TCHW".
            metadata: Times of an array: "fps" with optional "frames_indices" and "total_num_frames".
            num_frames: Frames to take, instead of the processor's.
            do_sample_frames: Instead of the processor's.
            size: Pixel budget to which the frames of a file are resized one by one, so that no more than one is held
                at its own size; None leaves them at that.

        Returns:
            The frames and the seconds between them.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the video cannot be read, or its form is none of the above.
        """
        count = self.frames_wanted(num_frames)
        sample = self.do_sample_frames if do_sample_frames is None else do_sample_frames
        form = parse_video(video)
        if form.done is not None:
            return form.done
        sized = form.file is not None and size is not None
        if form.file is not None:
            form = parse_video(read_video(form.file, count, None if size is None else partial(self._shape, size)))
        elif form.metadata is None and form.times is None:
            form = replace(form, metadata=metadata)
        clip = make_clip(form, count=count, sample=sample, seconds_per_frame=self.seconds_per_frame)
        return clip._replace(sized=sized)

    def _shape(self, budget: dict[str, int], height: int, width: int) -> tuple[int, int]:
        """The size of the frames of a video, from that of its upright picture."""
        check_aspect(height, width, "video")
        factor = self.patch_size * self.merge_size
        return smart_resize(height, width, factor, budget["shortest_edge"], budget["longest_edge"])

    def seconds_per_grid(self, clip: Clip | Features) -> float:
        """Seconds between two steps of the time axis.

        Args:
            clip: A decoded video.

        Returns:
            Seconds.
        """
        return clip.interval * self.temporal_patch_size

    def patches(
        self, clips: Sequence[Clip], size: dict[str, int] | None = None, *, as_bytes: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Resize, cut and normalise decoded videos.

        Args:
            clips: Decoded videos.
            size: Pixel budget instead of the processor's.
            as_bytes: Whether to leave the normalising to `normalise`.

        Returns:
            (N of all videos, P) float32 or uint8 patches in Qwen2.5-VL's order, and (videos, 3) patches along time,
            height and width.
        """
        budget = self.budget(size)
        cut, grids = [], []
        for clip in clips:
            frames = clip.frames
            if not clip.sized:
                frames = resize_frames(frames, *self._shape(budget, *frames.shape[1:3]))
            pixels, grid = cut_patches(
                frames, side=self.patch_size, depth=self.temporal_patch_size, merge=self.merge_size
            )
            cut.append(pixels)
            grids.append(grid)
        flat = torch.from_numpy(np.concatenate(cut) if len(cut) > 1 else cut[0])  # (N, P)
        return flat if as_bytes else self.normalise(flat), torch.tensor(grids)

    def normalise(self, patches: torch.Tensor) -> torch.Tensor:
        """Normalise patches where they are: bytes take a quarter of the way to a device.

        Args:
            patches: (N, P) uint8.

        Returns:
            (N, P) float32, the values of `patches` to the last bit.

        Raises:
            ValueError: If they are no bytes.
        """
        return normalise_patches(patches, self.image_mean, self.image_std, rescale_factor=self.rescale_factor)

    def read(
        self,
        videos: Any,
        *,
        video_metadata: Any = None,
        num_frames: int | None = None,
        do_sample_frames: bool | None = None,
        size: dict[str, int] | None = None,
        places: Sequence[str] | None = None,
        **others: Any,
    ) -> tuple[list[Clip], BatchFeature]:
        """Read, sample and cut videos.

        Args:
            videos: A video or a list of videos, each in any form that `load` takes.
            video_metadata: One entry a video for arrays, or None.
            num_frames: Frames to take, instead of the processor's.
            do_sample_frames: Instead of the processor's.
            size: Pixel budget instead of the processor's.
            places: What messages call each video; then `videos` is a flat list.
            **others: transformers' arguments that change nothing here.

        Returns:
            The decoded videos, and `pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts`.

        Raises:
            FileNotFoundError: As for `load`.
            ValueError: As for `load`, for no videos, and for arguments that would be without effect.
        """
        if ignored := sorted(name for name, value in others.items() if value is not None and name not in NO_EFFECT):
            raise ValueError(
                f"{ignored[0]}: got {shown(others[ignored[0]])} for videos; accepted are num_frames, size, do_sample_frames and "
                "video_metadata; frames are spread evenly, and a frame's times come with it; drop it"
            )
        flat = flatten_videos(videos) if places is None else videos
        if not flat:
            raise ValueError("videos: got an empty list; accepted is at least one video; leave the argument out")
        metadata = video_metadata if isinstance(video_metadata, (list, tuple)) else [video_metadata] * len(flat)
        if len(metadata) != len(flat):
            raise ValueError(
                f"video_metadata: got {len(metadata)} entries for {len(flat)} videos; accepted is one a video; "
                "use None for files"
            )
        clips = []
        for index, (video, entry) in enumerate(zip(flat, metadata, strict=True)):
            with located(places[index] if places else f"videos[{index}]"):
                clip = self.load(video, metadata=entry, num_frames=num_frames, do_sample_frames=do_sample_frames)
            clips.append(clip)
        return clips, BatchFeature(self.tensors(clips, size))

    def tensors(
        self, clips: Sequence[Clip], size: dict[str, int] | None = None, *, as_bytes: bool = False
    ) -> dict[str, torch.Tensor]:
        """What a model takes of decoded videos.

        Args:
            clips: Decoded videos, and features in place of some.
            size: Pixel budget instead of the processor's.
            as_bytes: Whether to leave the normalising to `normalise`.

        Returns:
            `video_grid_thw` and `second_per_grid_ts` of all, `pixel_values_videos` of those decoded, and
            `video_embeds` of the others.
        """
        fresh = [clip for clip in clips if isinstance(clip, Clip)]
        data = {}
        if fresh:
            data["pixel_values_videos"], data["video_grid_thw"] = self.patches(fresh, size, as_bytes=as_bytes)
        seconds = torch.tensor([self.seconds_per_grid(clip) for clip in clips])
        return beside_features(data, clips, "video") | {"second_per_grid_ts": seconds}

    def preprocess(
        self, videos: Any, *, return_tensors: str | None = None, return_metadata: bool | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Read, sample and cut videos, as transformers calls it.

        Args:
            videos: A video or a list of videos, each in any form that `load` takes.
            return_tensors: Ignored: tensors are always torch's.
            return_metadata: Ignored: the times are in `second_per_grid_ts`.
            **kwargs: As for `read`.

        Returns:
            `pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts`.
        """
        return self.read(videos, **kwargs)[1]


def beside_features(data: dict[str, torch.Tensor], media: Sequence[Any], kind: str) -> dict[str, torch.Tensor]:
    """The tensors of media of one kind, where `Features` stand in place of the pixels of some.

    Args:
        data: Pixels and (n, 3) grids of the media that are no features; empty without any.
        media: All, in order.
        kind: "image" or "video".

    Returns:
        The same with the grids of all, and (V of all, W) features that are there.
    """
    name, known = f"{kind}_grid_thw", [medium for medium in media if isinstance(medium, Features)]
    if not known:
        return data
    made = iter(data[name].tolist() if name in data else [])
    grids = [list(medium.grid) if isinstance(medium, Features) else next(made) for medium in media]
    found = [medium.features for medium in known if medium.features is not None]
    embeds = {f"{kind}_embeds": torch.cat(found)} if found else {}
    return data | embeds | {name: torch.tensor(grids)}
