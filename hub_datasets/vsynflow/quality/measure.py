"""One decoding of a video, for every score that needs its frames.

It runs in a child process that may be killed, and imports neither torch nor the model.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from gve.convert_gve import frame_orientation, frame_rgb, has_alpha
from gve.hub_datasets.vsynflow.quality.pdq import pdq, quality, to_hex
from gve.hub_datasets.vsynflow.quality.shots import CutDetector, SceneRules
from gve.hub_datasets.vsynflow.records import open_place, read_place
from gve.hub_datasets.vsynflow.settings import HASHED_FRAMES
from gve.hub_datasets.vsynflow.stills import without_bars
from gve.video_gve import FrameStream, VideoSource, frame_times, read_video, video_info

SMALL = (64, 36)
HASH_SIDE, HASH_FRAMES = 128, 8
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
        for _, frame in stream:
            scores.keep(_opaque(frame))
    if not scores.pool:
        raise ValueError("undecodable: no frame")
    frames = without_bars(np.stack(scores.pool))
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    return [to_hex(pdq(frame)) for frame in frames], [to_hex(pdq(frame)) for frame in mirrored]


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
        self.keep(frame)

    def keep(self, frame: av.VideoFrame) -> None:
        """Keep a small picture of every so many frames; when there are too many, drop every other one."""
        if self.stride_left == 0:
            grey = self._hashed.reformat(frame, HASH_SIDE, HASH_SIDE, format="gray", interpolation="BICUBIC")
            # upright, as copies in the wild are
            self.pool.append(frame_orientation(frame).apply(np.ascontiguousarray(grey.to_ndarray())))
            self.stride_left = self.stride
            if len(self.pool) == self._most:
                self.pool, self.stride = self.pool[::2], self.stride * 2
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
        span = self.times[-1]
        duration = span * count / (count - 1) if count > 1 else 0.0
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
