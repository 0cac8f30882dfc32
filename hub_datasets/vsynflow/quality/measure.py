"""One decoding of a video, for every score that needs its frames.

It runs in a child process that may be killed, and imports neither torch nor the model.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from gve.convert_gve import frame_orientation, frame_rgb, has_alpha
from gve.hub_datasets.vsynflow.quality.pdq import BITS, pdq, quality, to_hex
from gve.hub_datasets.vsynflow.quality.shots import CutDetector, SceneRules
from gve.hub_datasets.vsynflow.records import open_place, read_place
from gve.hub_datasets.vsynflow.settings import HASHED_FRAMES
from gve.hub_datasets.vsynflow.stills import without_bars
from gve.image_gve import open_image
from gve.media_gve import media_kind
from gve.video_gve import FrameStream, VideoSource, frame_times, read_video, video_info

SMALL = (64, 36)
HASH_SIDE, HASH_FRAMES = 128, 8
TRACK_RATE, TRACK_FRAMES, VIEWED_FRAMES = 8.0, 4096, 128
_LEAST_QUALITY = 5.0  # of a hash in a track; flat frames have less
MOTION_RATE = 2.0
_CELL = 4
_MOVED, _BLANK_SPREAD = 8, 4.0
_DARK_PIXEL, _DARK_SHARE = 0.1 * 255, 0.98  # of a black frame; defaults of FFmpeg's blackdetect


def measure(place: Mapping[str, Any], scenes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Decode a video to its end and measure it; ValueError if no frame can be decoded.

    Returns:
        `duration` (seconds, from time stamps), `width`, `height` (upright), `errors` (share of packets that are lost
        or do not decode), `damage` (the same, before any repair), `blank` and `black` (shares of frames), `motion`
        (median change of grey at 2 frames a second, 0-255), `moving` (median share of cells that change), `cuts`
        (seconds), `hashes` (PDQ of 8 frames), `mirrored` (of their mirror images), `hash_quality` (0-100), and more.
    """
    content = read_place(place)
    detector = CutDetector(SceneRules(**(scenes or {})))
    scores = _Scores(detector)
    with _frames(content) as stream:
        for time, frame in stream:
            scores.see(time, _opaque(frame))
        info = video_info(content)
    if not scores.times:
        raise ValueError("undecodable: no frame")
    # packets that the index of a file which was cut off names are lost as well
    promised = max(info.total or 0, stream.packets) if info.exact else stream.packets
    lost = stream.errors + promised - stream.packets
    damage = dict.fromkeys(("errors", "damage"), lost / max(promised, 1))
    cuts, digest = detector.cuts(scores.times), hashlib.blake2b(content, digest_size=16).hexdigest()
    return {**scores.result(), **damage, "cuts": cuts, "digest": digest}


def fingerprint_hashes(place: Mapping[str, Any], most: int = HASHED_FRAMES) -> tuple[list[str], list[str]]:
    """PDQ of up to `most` evenly spread frames (at least half as many of a long video) and of their mirror images."""
    scores = _Scores(most=most)
    with _frames(open_place(place)) as stream:
        for time, frame in stream:
            scores.keep(_opaque(frame), time)
    if not scores.pool:
        raise ValueError("undecodable: no frame")
    frames = without_bars(np.stack(scores.pool))
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    return [to_hex(pdq(frame)) for frame in frames], [to_hex(pdq(frame)) for frame in mirrored]


def fingerprint_track(place: Mapping[str, Any], views: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """Hash a video along its time, to find copies of parts of it; a picture has one frame.

    Args:
        views: (left, top, right, bottom, mirrored) of V parts of the picture, in shares of its sides.

    Returns:
        `times` and `hashes` (F, 32) of up to TRACK_FRAMES frames, at most TRACK_RATE a second, flat ones left out;
        `viewed` (F',) places of up to VIEWED_FRAMES of them and their `views` (V, F', 32); `duration` and `step` in
        seconds, `width`, `height`, `picture` (share of the frame within black bars).
    """
    source, scores = open_place(place), _Scores(most=TRACK_FRAMES)
    times, due = [0.0], 0.0
    if media_kind(source) == "image":
        picture = open_image(source)
        size = picture.size
        grey = picture.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BICUBIC)
        scores.pool, scores.moments = [np.asarray(grey)], [0.0]
    else:
        with _frames(source) as stream:
            times = []
            for time, frame in stream:
                times.append(time)
                if time + 1e-6 >= due:
                    due = max(due, time - 1 / TRACK_RATE) + 1 / TRACK_RATE
                    scores.keep(_opaque(frame), time)
            size = video_info(source)[4:6]
    if not scores.pool:
        raise ValueError("undecodable: no frame")
    moments = np.asarray(scores.moments)
    frames = without_bars(np.stack(scores.pool))
    told = np.flatnonzero([quality(frame) >= _LEAST_QUALITY for frame in frames])
    viewed = np.arange(0, len(told), -(-len(told) // VIEWED_FRAMES) or 1)
    return {
        "times": moments[told],
        "hashes": _packed(frames[told]),
        "viewed": viewed,
        "views": np.stack([_packed(_view(frames[told[viewed]], *view)) for view in views]),
        "duration": _length(times),
        "step": float(np.median(np.diff(moments))) if len(moments) > 1 else 0.0,
        "width": size[0],
        "height": size[1],
        "picture": frames[0].size / HASH_SIDE**2,
    }


def _view(frames: np.ndarray, left: float, top: float, right: float, bottom: float, mirrored: float) -> np.ndarray:
    height, width = frames.shape[1:]
    part = frames[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    return np.ascontiguousarray(part[:, :, ::-1] if mirrored else part)


def _packed(frames: np.ndarray) -> np.ndarray:
    """(F, 32) bytes of the hashes of F frames."""
    return np.array([np.packbits(pdq(frame)) for frame in frames], np.uint8).reshape(-1, BITS // 8)


def _length(times: Sequence[float]) -> float:
    """Seconds of a video whose frames are at these times."""
    return times[-1] * len(times) / (len(times) - 1) if len(times) > 1 else 0.0


def sample_frames(place: Mapping[str, Any], times: list[float], side: int) -> list[np.ndarray]:
    """The upright frames at some times, (H, W, 3) uint8 RGB, with a longer side of at most `side` pixels."""

    def fitted(height: int, width: int) -> tuple[int, int]:
        scale = min(1.0, side / max(height, width))
        return max(round(height * scale), 2), max(round(width * scale), 2)

    source = open_place(place)
    with _undecodable():
        wanted = np.minimum(times, frame_times(source)[-1])
        return list(read_video(source, size=fitted, timestamps=wanted.tolist(), resize="fast").frames)


class _Scores:
    """What is remembered of the frames seen; never more than HASHED_FRAMES pictures."""

    def __init__(self, detector: CutDetector | None = None, most: int = HASHED_FRAMES) -> None:
        self.blank = self.black = self.stride_left = 0
        self.stride = 1
        self.times: list[float] = []
        self.size = (0, 0)
        self.pool: list[np.ndarray] = []
        self.moments: list[float] = []  # of the pool's pictures
        self.changes: list[tuple[float, float]] = []
        self._detector = detector
        self._most = most
        self._small, self._hashed = VideoReformatter(), VideoReformatter()  # a frame's own makes a scaler anew
        self._grey: np.ndarray | None = None
        self._next = 0.0

    def see(self, time: float, frame: av.VideoFrame) -> None:
        self.times.append(time)
        sides = (frame.width, frame.height)
        self.size = sides[::-1] if frame_orientation(frame).swapped else sides
        rgb = self._small.reformat(frame, *SMALL, format="rgb24", interpolation="AREA").to_ndarray()
        self.blank += float(rgb.reshape(-1, 3).std(axis=0).max()) < _BLANK_SPREAD
        self.black += float((rgb.max(axis=-1) < _DARK_PIXEL).mean()) >= _DARK_SHARE
        if self._detector is not None:
            self._detector.see(rgb)
        if time + 1e-6 >= self._next:
            self._next += 1 / MOTION_RATE
            self._change(rgb.astype(np.float32).mean(axis=-1))
        self.keep(frame, time)

    def keep(self, frame: av.VideoFrame, time: float) -> None:
        """Keep a small picture of every so many frames; when there are too many, drop every other one."""
        if self.stride_left == 0:
            grey = self._hashed.reformat(frame, HASH_SIDE, HASH_SIDE, format="gray", interpolation="BICUBIC")
            # upright, as copies in the wild are
            self.pool.append(frame_orientation(frame).apply(np.ascontiguousarray(grey.to_ndarray())))
            self.moments.append(time)
            self.stride_left = self.stride
            if len(self.pool) == self._most:
                self.pool, self.moments, self.stride = self.pool[::2], self.moments[::2], self.stride * 2
                self.stride_left = self.stride
        self.stride_left -= 1

    def _change(self, grey: np.ndarray) -> None:
        if self._grey is not None:
            change = np.abs(grey - self._grey)
            cells = change.reshape(SMALL[1] // _CELL, _CELL, SMALL[0] // _CELL, _CELL).mean(axis=(1, 3))
            self.changes.append((float(change.mean()), float((cells > _MOVED).mean())))
        self._grey = grey

    def result(self) -> dict[str, Any]:
        count = len(self.times)
        duration = _length(self.times)
        motion, moving = np.median(self.changes, axis=0) if self.changes else (0.0, 0.0)
        picks = [self.pool[int((i + 0.5) * len(self.pool) / HASH_FRAMES)] for i in range(HASH_FRAMES)]
        frames = without_bars(np.stack(picks))
        return {
            "frames": count,
            "duration": duration,
            "width": self.size[0],
            "height": self.size[1],
            "fps": count / duration if duration else 0.0,
            "blank": self.blank / count,
            "black": self.black / count,
            "motion": float(motion),
            "moving": float(moving),
            "hashes": [to_hex(pdq(frame)) for frame in frames],
            "mirrored": [to_hex(pdq(np.ascontiguousarray(frame[:, ::-1]))) for frame in frames],
            "hash_quality": float(np.median([quality(frame) for frame in frames])),
        }


def _opaque(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame, on white if it is transparent, as everywhere else."""
    return av.VideoFrame.from_ndarray(frame_rgb(frame), format="rgb24") if has_alpha(frame) else frame


@contextmanager
def _frames(source: VideoSource) -> Iterator[FrameStream]:
    with _undecodable(), FrameStream(source) as stream:
        yield stream


@contextmanager
def _undecodable() -> Iterator[None]:
    """Give every damage one error code."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"undecodable: {error}") from error
