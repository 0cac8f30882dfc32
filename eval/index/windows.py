"""Windows and shots of a video: planned from its times, read in one decoding, embedded in blocks.

Shapes: F frames, n segments, D width.
"""

import math
import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter

from gve.convert_gve import Converter, SizeRule
from gve.eval.encoders import Encoder
from gve.eval.index.rows import Levels, Segment
from gve.eval.media_encoder import fitted
from gve.eval.models import sized_video, skips_broken_inputs, video_size_rule
from gve.eval.video_retrieval.ranking import as_array
from gve.hub_datasets.vsynflow.quality.shots import CutDetector, SceneRules
from gve.index_gve import Sampling
from gve.source_gve import Budget, Limits, unreadable
from gve.video_gve import Frames, FrameStream, frame_times, read_video, source_name

FilePath = str | os.PathLike[str]

MOST_WINDOWS = 100_000
"""Of one file; a damaged one may claim any length."""

_LIMITS = Limits(timeout=math.inf)  # the clock runs on while the encoder works between two frames
_SMALL = (64, 36)  # width and height at which V-SynFlow looks for cuts
_SLACK = 0.1  # of a stride; a rest this short lengthens the last window instead of making another one


def plan_segments(path: FilePath, levels: Levels, *, duration: float | None = None) -> list[Segment]:
    """The segments of a video.

    Windows cover the whole video. The last one ends at its end and begins earlier than its turn if need be; a window
    longer than the video is the whole. Shots need a decoding of their own.

    Raises:
        ValueError: If the file is not a video, or would have more than MOST_WINDOWS windows.
    """
    duration = _timeline(path).duration if duration is None else duration
    found = [Segment("file", 0.0, duration)] if levels.files else []
    if levels.window is not None:
        found += _windows(duration, levels.window, levels.stride or levels.window)
    if levels.shots:
        found += [Segment("shot", start, end) for start, end in pairwise([0.0, *_cuts(path), duration]) if start < end]
    return found


def embed_segments(
    encoder: Encoder,
    path: FilePath,
    levels: Levels,
    *,
    num_frames: int,
    known: Collection[Segment] = (),
    batch: int = 32,
) -> Iterator[tuple[list[Segment], np.ndarray]]:
    """Yield blocks of segments with their unit vectors (n, D), in the order of their ends.

    The video is decoded once. The whole file makes a block of its own, whose vector is that of `encode_document` on its
    path.

    Args:
        encoder: One of our models gets decoded videos of its own size, any other {"video": Frames}; for one of another
            family see `benchmark_encoder`.
        num_frames: Frames of a segment.
        known: Segments to leave out, such as those of a run that was killed.
        batch: Most segments of a block.

    Raises:
        ValueError: As `plan_segments`, or for vectors with nan, infinity, zeros alone or of a wrong shape.
    """
    done = {segment.key(path) for segment in known}
    timeline, size = _timeline(path), video_size_rule(encoder) if skips_broken_inputs(encoder) else fitted
    left = [
        segment for segment in plan_segments(path, levels, duration=timeline.duration) if segment.key(path) not in done
    ]
    block: list[tuple[Segment, Frames]] = []
    for segment, frames in read_segments(path, left, num_frames, size, timeline=timeline):
        if block and (segment.level == "file" or len(block) == batch):
            yield [one for one, _ in block], _vectors(encoder, [seen for _, seen in block], batch)
            block = []
        block.append((segment, frames))
    if block:
        yield [one for one, _ in block], _vectors(encoder, [seen for _, seen in block], batch)


class _Timeline(NamedTuple):
    """(F,) seconds of all frames, and the seconds to the end of the last one, as `read_video` has them."""

    times: np.ndarray
    duration: float


def _timeline(path: FilePath) -> _Timeline:
    times = frame_times(path, _LIMITS)
    return _Timeline(times, read_video(path, 1, (2, 2), resize="fast", limits=_LIMITS).duration)


def read_segments(
    path: FilePath,
    segments: Sequence[Segment],
    num_frames: int,
    size: SizeRule | None,
    *,
    timeline: _Timeline | None = None,
) -> Iterator[tuple[Segment, Frames]]:
    """Yield each segment with its frames, in the order of their ends, out of one decoding of the video.

    Frames are those of `read_video` with the segment's start and end, and its times begin at 0. A frame is converted
    once for all segments that show it and dropped after the last of them.
    """
    timeline = timeline or _timeline(path)
    queue = deque(sorted(segments, key=lambda segment: (segment.end, segment.level == "file")))
    try:
        yield from _in_order(path, queue, timeline, num_frames, size)
    except _OtherFramesError:  # broken data on the way: what decodes decides, as in `read_video`
        with FrameStream(path, _LIMITS) as stream:
            timeline = timeline._replace(times=np.asarray([time for time, _ in stream]))
        if not len(timeline.times):
            raise unreadable(source_name(path), "no frame in it can be decoded") from None
        whole = [queue.pop()] if queue[-1].level == "file" else []
        yield from _in_order(path, queue, timeline, num_frames, size)
        for segment in whole:
            yield segment, read_video(path, num_frames, size, limits=_LIMITS)


class _OtherFramesError(Exception):
    """The decoded frames are not those that the packets promise."""


def _in_order(
    path: FilePath, queue: deque[Segment], timeline: _Timeline, num_frames: int, size: SizeRule | None
) -> Iterator[tuple[Segment, Frames]]:
    """Decode a video and yield the segments of the queue, which leave it as they are yielded."""
    plans = deque(_indices(segment, num_frames, timeline) for segment in queue)
    uses = Counter(place for indices in plans for place in set(indices.tolist()))
    convert = Converter(size, "exact", num_frames, Budget(source_name(path), _LIMITS))
    kept: dict[int, np.ndarray] = {}
    with FrameStream(path, _LIMITS) as stream:
        frames = enumerate(stream)
        while queue:
            place, (time, frame) = next(frames, (-1, (math.nan, None)))
            if not 0 <= place < len(timeline.times) or time != timeline.times[place]:
                raise _OtherFramesError
            if place in uses:
                kept[place] = convert(frame)
            while queue and plans[0][-1] <= place:
                segment, indices = queue.popleft(), plans.popleft()
                yield segment, _frames(segment, indices, kept, timeline)
                for used in set(indices.tolist()):
                    uses[used] -= 1
                    if not uses[used]:
                        del kept[used], uses[used]


def _indices(segment: Segment, num_frames: int, timeline: _Timeline) -> np.ndarray:
    """(num_frames,) places of the frames of a segment."""
    window = {} if segment.level == "file" else {"start": segment.start, "end": segment.end}
    return Sampling(num_frames, **window).indices(*timeline)


def _frames(segment: Segment, indices: np.ndarray, kept: dict[int, np.ndarray], timeline: _Timeline) -> Frames:
    assert segment.start is not None and segment.end is not None
    shown = timeline.times[indices] - timeline.times[indices[0]]
    length = timeline.duration if segment.level == "file" else segment.end - segment.start
    places = indices.tolist()
    return Frames(np.stack([kept[place] for place in places]), shown.tolist(), length, places, "sequential")


def _windows(duration: float, window: float, stride: float) -> list[Segment]:
    before = max(math.ceil((duration - window) / stride - _SLACK), 0)
    if before >= MOST_WINDOWS or stride < 0.001:  # ids count milliseconds
        raise ValueError(
            f"--window, --stride: got {window:g} and {stride:g} s for a video of {duration:g} s; at most {MOST_WINDOWS} "
            "windows, a millisecond or more apart, are made of one file. Raise them."
        )
    starts = [float(number * stride) for number in range(before)]
    last = float(max(min(before * stride, duration - window), 0))
    return [*(Segment("window", start, start + window) for start in starts), Segment("window", last, duration)]


def _cuts(path: FilePath) -> list[float]:
    """Seconds at which V-SynFlow's detector sees a new shot begin."""
    detector, shrink, times = CutDetector(SceneRules()), VideoReformatter(), []
    with FrameStream(path, _LIMITS) as stream:
        for time, frame in stream:
            times.append(time)
            detector.see(shrink.reformat(frame, *_SMALL, format="rgb24", interpolation="AREA").to_ndarray())
    return detector.cuts(times)


def _vectors(encoder: Encoder, videos: Sequence[Frames], batch: int) -> np.ndarray:
    """Unit vectors (n, D) of decoded videos."""
    ours = skips_broken_inputs(encoder)
    inputs = [{"video": sized_video(encoder, frames) if ours else frames} for frames in videos]
    options = {"batch_size": batch, "show_progress_bar": False, "convert_to_numpy": True}
    found = as_array(encoder.encode_document(inputs, **options)).astype(np.float32, copy=False)
    if found.ndim != 2 or len(found) != len(inputs):
        raise ValueError(f"encoder: must return ({len(inputs)}, D) for {len(inputs)} inputs; got {found.shape}.")
    lengths = np.linalg.norm(found, axis=1)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise ValueError("encoder: returned nan, infinity or zeros. Check the model.")
    return to_unit(found)


def to_unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, D) at length 1; those that have it keep every bit."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)  # (n, 1)
    return np.where(np.abs(lengths - 1) > 1e-5, vectors / lengths, vectors)
