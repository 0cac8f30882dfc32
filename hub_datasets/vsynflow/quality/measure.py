"""One decoding of a video, from which every score comes that needs its frames.

Shapes: F frames. Runs in a child process that may be killed; imports no more than av, numpy and its siblings.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from gve.hub_datasets.vsynflow.quality.pdq import pdq, quality, to_hex, without_bars
from gve.hub_datasets.vsynflow.quality.shots import Detector, SceneRules, make_detector

SMALL = (64, 36)
HASH_SIDE, HASH_FRAMES, POOL = 128, 8, 64
MOTION_RATE = 2.0
_CELL = 4
_MOVED, _BLANK_SPREAD = 8, 4.0
_DARK_PIXEL, _DARK_SHARE = 0.1 * 255, 0.98
"""A frame is black where this share of it is darker than this: the defaults of FFmpeg's blackdetect."""


def measure(place: Mapping[str, Any], scenes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Decode a video to its end and measure it.

    Args:
        place: The `video` of a record.
        scenes: Fields of `SceneRules`; None takes its defaults.

    Returns:
        `frames` (decoded), `duration` (seconds, from time stamps), `width`, `height`, `fps`, `errors` (share of packets
        that do not decode), `damage` (the same, until a repair puts that of the damaged file here), `blank` (share of
        frames of one colour), `black` (share of black frames), `motion` (median change of grey at 2 frames a second,
        0-255), `moving` (median share of cells that change), `cuts` (seconds), `hashes` (PDQ of 8 frames),
        `mirrored` (of their mirror images), `hash_quality` (0-100), `digest` (of the file's bytes).

    Raises:
        ValueError: If no frame can be decoded.
    """
    content = read_place(place)
    detector = make_detector(SceneRules(**(scenes or {})))
    scores = _Scores(detector)
    with _opened(content) as container:
        for frame in _decoded(container, scores):
            scores.see(frame)
    if not scores.times:
        raise ValueError("undecodable: no frame")
    first = scores.times[0]
    cuts = [time - first for time in detector.cuts(scores.times)]
    return {**scores.result(), "cuts": cuts, "digest": hashlib.blake2b(content, digest_size=16).hexdigest()}


def fingerprint_hashes(place: Mapping[str, Any], most: int = POOL) -> tuple[list[str], list[str]]:
    """PDQ of evenly spread frames of a video and of their mirror images, black bars cut off.

    Args:
        place: The `video` of a record.
        most: Frames at most; as few as half of them are taken.

    Raises:
        ValueError: If no frame can be decoded.
    """
    scores = _Scores(most=most)
    try:
        with av.open(io.BytesIO(read_place(place))) as container:
            for frame in _decoded(container, scores):
                scores.keep(frame)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"undecodable: {type(error).__name__}") from error
    if not scores.pool:
        raise ValueError("undecodable: no frame")
    frames = without_bars(np.stack(scores.pool))
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    return [to_hex(pdq(frame)) for frame in frames], [to_hex(pdq(frame)) for frame in mirrored]


def sample_frames(place: Mapping[str, Any], times: list[float], side: int) -> list[np.ndarray]:
    """The frames nearest after some times, (H, W, 3) uint8 RGB, their longer side at most `side` pixels.

    Raises:
        ValueError: If no frame can be decoded.
    """
    found: list[np.ndarray] = []
    with _opened(read_place(place)) as container:
        start, last = None, None
        for frame in _decoded(container, _Scores()):
            start = frame.time or 0.0 if start is None else start
            last = frame
            while len(found) < len(times) and (frame.time or 0.0) - start >= times[len(found)] - 1e-6:
                found.append(_fit(frame, side))
            if len(found) == len(times):
                return found
        while last is not None and len(found) < len(times):
            found.append(_fit(last, side))
    if len(found) < len(times):
        raise ValueError("undecodable: no frame")
    return found


def read_place(place: Mapping[str, Any]) -> bytes:
    """The encoded bytes of a video."""
    with Path(place["path"]).open("rb") as file:
        if place["offset"] is None:
            return file.read()
        file.seek(place["offset"])
        return file.read(place["size"])


class _Scores:
    """What is remembered of the frames seen; of pictures never more than POOL."""

    def __init__(self, detector: Detector | None = None, most: int = POOL) -> None:
        self.packets = self.errors = self.blank = self.black = self.stride_left = 0
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

    def see(self, frame: av.VideoFrame) -> None:
        """Take a decoded frame into account."""
        time = frame.time if frame.time is not None else len(self.times) / 25
        self.times.append(time)
        self.size = (frame.width, frame.height)
        rgb = self._small.reformat(frame, *SMALL, format="rgb24", interpolation="AREA").to_ndarray()
        self.blank += float(rgb.reshape(-1, 3).std(axis=0).max()) < _BLANK_SPREAD
        self.black += float((rgb.max(axis=-1) < _DARK_PIXEL).mean()) >= _DARK_SHARE
        if self._detector is not None:
            self._detector.see(frame, rgb)
        if time - self.times[0] + 1e-6 >= self._next:
            self._next += 1 / MOTION_RATE
            self._change(rgb.astype(np.float32).mean(axis=-1))
        self.keep(frame)

    def keep(self, frame: av.VideoFrame) -> None:
        """Keep a small picture of the frame where its turn is; once there are too many, every other one goes."""
        if self.stride_left == 0:
            grey = self._hashed.reformat(frame, HASH_SIDE, HASH_SIDE, format="gray", interpolation="BICUBIC")
            self.pool.append(np.ascontiguousarray(grey.to_ndarray()))
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
        """The scores."""
        count = len(self.times)
        span = max(self.times) - min(self.times)
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
            **dict.fromkeys(("errors", "damage"), self.errors / max(self.packets, 1)),
            "blank": self.blank / count,
            "black": self.black / count,
            "motion": float(motion),
            "moving": float(moving),
            "hashes": [to_hex(pdq(frame)) for frame in frames],
            "mirrored": [to_hex(pdq(np.ascontiguousarray(frame[:, ::-1]))) for frame in frames],
            "hash_quality": float(np.median([quality(frame) for frame in frames])),
        }


@contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    """A container whose every damage is a ValueError; FFmpeg's errors are OSErrors or others as it likes."""
    try:
        with av.open(io.BytesIO(content)) as container:
            yield container
    except (av.FFmpegError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"undecodable: {type(error).__name__}") from error


def _decoded(container: Any, scores: _Scores) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError("undecodable: no decoder")
    stream.codec_context.thread_count = 1
    for packet in container.demux(stream):
        scores.packets += packet.size > 0
        try:
            yield from packet.decode()
        except av.FFmpegError:
            scores.errors += 1


def _fit(frame: av.VideoFrame, side: int) -> np.ndarray:
    scale = min(1.0, side / max(frame.width, frame.height))
    width, height = max(round(frame.width * scale), 2), max(round(frame.height * scale), 2)
    return frame.reformat(width, height, format="rgb24", interpolation="AREA").to_ndarray()
