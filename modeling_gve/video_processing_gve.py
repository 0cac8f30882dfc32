"""GVEVideoProcessor: videos in any form to Qwen2.5-VL patches, with PyAV and torch only.

Shape legend: F frames, H height, W width, N patches of a video, P values a patch.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from .frames_gve import DecodedVideo, Features, Form, flatten_videos, make_clip, parse_video
from .image_gve import check_aspect, check_size, smart_resize
from .media_gve import located, shown
from .video_gve import read_video, resize_frames

MIN_TOKENS, MAX_TOKENS = 4, 200
"""Visual tokens a frame (paper, section A.2: fewer than 200)."""

NO_EFFECT = frozenset({"return_metadata", "return_tensors", "device", "do_convert_rgb", "disable_grouping"})
"""Arguments that transformers passes along and that do not matter here."""


class GVEVideoKwargs(VideosKwargs, total=False):
    """Keyword arguments of `GVEVideoProcessor`, besides those of transformers."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    seconds_per_frame: float


class GVEVideoProcessor(VideoProcessorMixin):
    """Reads, samples, resizes and cuts videos into patches.

    It derives from `VideoProcessorMixin`, because transformers' `BaseVideoProcessor` cannot be made without
    torchvision.

    Args:
        size: {"shortest_edge", "longest_edge"}: least and most pixels a frame; by default 4 and 200 tokens.
        seconds_per_frame: Between two frames of an array without times; transformers' 1/24 would put all frames at one
            temporal position.
        do_sample_frames: Whether arrays of more than `num_frames` frames are sampled.
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
        """Frames to take from each video: `num_frames`, or the processor's number."""
        count = self.num_frames if num_frames is None else num_frames
        if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 1:
            raise ValueError(f"num_frames: got {count!r}; accepted are integers from 1 on; the default is 8")
        return int(count)

    def budget(self, size: dict[str, int] | None) -> dict[str, int]:
        """Least and most pixels a frame: `size`, or the processor's."""
        return self.size if size is None else check_size("video size", size, (self.patch_size * self.merge_size) ** 2)

    def load(
        self,
        video: Any,
        *,
        metadata: VideoMetadata | dict[str, Any] | None = None,
        num_frames: int | None = None,
        do_sample_frames: bool | None = None,
        size: dict[str, int] | None = None,
    ) -> DecodedVideo | Features:
        """Decode one video in any form; one that is decoded already comes back unchanged.

        Args:
            video: A path, address, bytes, a binary file object, {"bytes", "path"}, `Frames`, {"frames"} with
                "timestamps" and perhaps "duration", or with "fps", {"array", "video_metadata"}, an array or tensor (F,
                H, W, C) or (F, C, H, W), or a list of PIL images, arrays or paths of images. Arrays are uint8, or
                floats in [0, 1]; both dicts may say "layout": "THWC" or "TCHW".
            metadata: Times of an array: "fps" with optional "frames_indices" and "total_num_frames".
            size: Pixel budget to which a file's frames are resized one by one, so that only one is held at full size;
                None leaves them at that.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the video cannot be read, or its form is not listed above.
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
            form = Form(**(vars(form) | {"metadata": metadata}))
        clip = make_clip(form, count=count, sample=sample, seconds_per_frame=self.seconds_per_frame)
        return clip._replace(sized=sized)

    def _shape(self, budget: dict[str, int], height: int, width: int) -> tuple[int, int]:
        """The size to resize frames to, from their upright size."""
        check_aspect(height, width, "video")
        factor = self.patch_size * self.merge_size
        return smart_resize(height, width, factor, budget["shortest_edge"], budget["longest_edge"])

    def seconds_per_grid(self, clip: DecodedVideo | Features) -> float:
        """Seconds between two steps of the time axis."""
        return clip.interval * self.temporal_patch_size

    def patches(
        self, clips: Sequence[DecodedVideo], size: dict[str, int] | None = None, *, as_bytes: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Resize, cut and normalise decoded videos; `as_bytes` leaves the normalising to `normalise`.

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
        """Normalise (N, P) uint8 patches to float32 on their device, where bytes arrive four times as fast."""
        if patches.dtype != torch.uint8 or patches.ndim != 2 or patches.shape[1] % 3:
            raise ValueError(
                f"patches: got {tuple(patches.shape)} of {patches.dtype}; accepted is (N, P) uint8 of 3 channels; pass "
                "what cut_patches gives"
            )
        # the operations of transformers' fused rescaling and normalisation in their order: equal to the last bit
        scale, repeats = 1 / self.rescale_factor, patches.shape[1] // 3
        mean, std = (
            torch.tensor(values).mul(scale).repeat_interleave(repeats).to(patches.device)  # (P,)
            for values in (self.image_mean, self.image_std)
        )
        return patches.float().sub_(mean).div_(std)

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
    ) -> tuple[list[DecodedVideo], BatchFeature]:
        """Decode and cut videos: the clips, and the tensors of `preprocess`.

        Args:
            places: What messages call each video; then `videos` is a flat list.
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
        self, clips: Sequence[DecodedVideo], size: dict[str, int] | None = None, *, as_bytes: bool = False
    ) -> dict[str, torch.Tensor]:
        """Grids and seconds of all clips, `pixel_values_videos` of decoded ones, `video_embeds` of the others."""
        fresh = [clip for clip in clips if isinstance(clip, DecodedVideo)]
        data = {}
        if fresh:
            data["pixel_values_videos"], data["video_grid_thw"] = self.patches(fresh, size, as_bytes=as_bytes)
        seconds = torch.tensor([self.seconds_per_grid(clip) for clip in clips])
        return beside_features(data, clips, "video") | {"second_per_grid_ts": seconds}

    def preprocess(
        self, videos: Any, *, return_tensors: str | None = None, return_metadata: bool | None = None, **kwargs: Any
    ) -> BatchFeature:
        """`pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts` of videos in any form `load` takes.

        `return_tensors` and `return_metadata` are transformers' and have no effect.
        """
        return self.read(videos, **kwargs)[1]


def beside_features(data: dict[str, torch.Tensor], media: Sequence[Any], kind: str) -> dict[str, torch.Tensor]:
    """Complete the tensors of media with pixels by the media given as `Features`.

    Args:
        data: Pixels and (n, 3) grids of the media with pixels; empty if there are none.

    Returns:
        The same with the grids of all, and the (V, W) features.
    """
    name, known = f"{kind}_grid_thw", [medium for medium in media if isinstance(medium, Features)]
    if not known:
        return data
    made = iter(data[name].tolist() if name in data else [])
    grids = [list(medium.grid) if isinstance(medium, Features) else next(made) for medium in media]
    found = [medium.features for medium in known if medium.features is not None]
    embeds = {f"{kind}_embeds": torch.cat(found)} if found else {}
    return data | embeds | {name: torch.tensor(grids)}


def cut_patches(frames: np.ndarray, *, side: int, depth: int, merge: int) -> tuple[np.ndarray, list[int]]:
    """Cut (F, H, W, 3) uint8 frames into patches, in blocks the vision tower merges; the last frame fills up a patch.

    Returns:
        (N, P) uint8, values ordered by channel, frame, row and column, and [patches along time, height, width].
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames: got {frames.shape} of {frames.dtype}; accepted is (F, H, W, 3) uint8; convert them")
    if frames.shape[1] % (side * merge) or frames.shape[2] % (side * merge):
        raise ValueError(
            f"frames: got {frames.shape[1]} x {frames.shape[2]} pixels; accepted are multiples of {side * merge}; resize"
        )
    if missing := -len(frames) % depth:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    count, height, width, _ = frames.shape
    t, h, w = count // depth, height // side, width // side
    # a row of a patch moves as one item, which is several times faster than its pixels one by one
    rows = np.ascontiguousarray(frames).reshape(count, height, width * 3).view(f"V{side * 3}")
    rows = rows.reshape(t, depth, h // merge, merge, side, w // merge, merge)
    rows = np.ascontiguousarray(rows.transpose(0, 2, 5, 3, 6, 1, 4))  # (t, h/m, w/m, m, m, depth, side)
    pixels = rows.view(np.uint8).reshape(t * h * w, depth * side * side, 3)
    return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(t * h * w, -1), [t, h, w]
