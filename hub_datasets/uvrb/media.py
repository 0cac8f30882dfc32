"""Files that the archives name: found under any of the names in use, told apart by content, stored as a few frames.

Shapes: F frames, H height, W width.
"""

import hashlib
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"))
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
FORMATS = {"jpeg": (".mp4", 90_000), "webp": (".webp", 1_000)}
"""Suffix of the stored file, and ticks a second of its clock, by format of the frames."""
MAX_PIXELS, SIDE = 200 * 784, 28
_SAMPLES, _SAMPLE = 16, 1 << 16


class SampledFrames(Protocol):
    """What a reader of videos gives."""

    frames: np.ndarray
    timestamps: list[float]
    duration: float


Reader = Callable[..., SampledFrames]
"""Called as reader(path, num_frames, size): size gives (height, width) from the picture's own."""


@dataclass(frozen=True)
class FrameSettings:
    """How videos are stored.

    Attributes:
        frames: F, how many frames are kept of each.
        format: "jpeg" or "webp".
        quality: Of the format, 1 to 100.
        frames_fps: Frames a second of a folder of frames, whose times nobody wrote down.
        reader: "module:function" that reads videos; the package's own by default. It is given by name so that data
            never import the model, and other processes find it.
    """

    frames: int = 8
    format: str = "jpeg"
    quality: int = 80
    frames_fps: float = 1.0
    reader: str = "gve.video_gve:read_video"

    def __post_init__(self) -> None:
        if self.frames < 1 or not 1 <= self.quality <= 100 or self.format not in FORMATS or not self.frames_fps > 0:
            raise ValueError(
                f"frames, format, quality, frames_fps: got {self.frames}, {self.format!r}, {self.quality} and "
                f"{self.frames_fps}; 1 or more, {' or '.join(FORMATS)}, 1 to 100 and a rate above 0 are accepted; "
                "change them"
            )


@dataclass(frozen=True)
class StoredVideo:
    """A video as it is stored.

    Attributes:
        content: An MP4 file of JPEG frames, or a moving WebP picture.
        timestamps: Seconds of each frame from the first frame of the video.
        duration: Seconds of the whole video.
    """

    content: bytes
    timestamps: list[float]
    duration: float


class MediaIndex:
    """Finds the files of one archive.

    Args:
        folder: The archive; what lies under `jsonl` is not looked at.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._videos: dict[str, list[Path]] = {}
        self._frames: dict[str, list[Path]] = {}
        self._images: dict[str, list[Path]] = {}
        for where, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if name != "jsonl")
            place = Path(where)
            pictures = [name for name in sorted(names) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
            if pictures and "videos_frames" in place.relative_to(folder).parts:
                self._frames.setdefault(place.name, []).append(place)
                continue
            for name in pictures:
                self._images.setdefault(Path(name).stem, []).append(place / name)
            for name in sorted(names):
                if Path(name).suffix.lower() in VIDEO_SUFFIXES:
                    self._videos.setdefault(Path(name).stem, []).append(place / name)

    def video(self, name: str) -> Path | None:
        """A video file, else a folder of frames.

        Args:
            name: As the archive writes it: with or without folders and suffix.

        Returns:
            Its path, or None when there is no such file, or several and none of them fits better.
        """
        return _pick(self._videos, name) or _pick(self._frames, name)

    def image(self, name: str) -> Path | None:
        """An image file.

        Args:
            name: As the archive writes it.

        Returns:
            Its path, or None.
        """
        return _pick(self._images, name)


def _pick(known: dict[str, list[Path]], name: str) -> Path | None:
    """The path that shares most of a name's folders; None where two are as good."""
    asked = Path(name)
    found = known.get(asked.stem, []) + (known.get(asked.name, []) if asked.name != asked.stem else [])
    parents = asked.parent.parts

    def shared(path: Path) -> int:
        own = path.parent.parts
        return next((n for n in range(len(parents), 0, -1) if own[-n:] == parents[-n:]), 0)

    best = sorted(found, key=shared, reverse=True)
    if not best or (len(best) > 1 and shared(best[0]) == shared(best[1])):
        same_suffix = [path for path in best if path.suffix == asked.suffix and shared(path) == shared(best[0])]
        return same_suffix[0] if len(same_suffix) == 1 else None
    return best[0]


def fingerprint(path: Path) -> str:
    """Tell media apart by size and samples of their content; small files are read whole.

    Args:
        path: A file, or a folder of frames.

    Returns:
        A hexadecimal digest.
    """
    digest = hashlib.blake2b(digest_size=12)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_dir() else ''}|{size}|".encode())
        with file.open("rb") as opened:
            for place in range(0, size, max(size // _SAMPLES, _SAMPLE)):
                opened.seek(place)
                digest.update(opened.read(_SAMPLE))
    return digest.hexdigest()


def store_video(path: Path, settings: FrameSettings) -> StoredVideo:
    """Sample a video and encode its frames.

    Args:
        path: A video file, or a folder of frames in the order of their names.
        settings: How.

    Returns:
        The stored video; each frame at most 200 tokens of 28 x 28 pixels, and unchanged in size below that.

    Raises:
        ValueError: When it cannot be read.
        OSError: When a frame cannot be read.
    """
    read = _read_frames if path.is_dir() else _load_reader(settings.reader)
    rate = {"rate": settings.frames_fps} if path.is_dir() else {}
    sampled = read(path, settings.frames, fit_size, **rate)
    suffix, clock = FORMATS[settings.format]
    ticks = [round(time * clock) for time in sampled.timestamps]
    kept = [n for n in range(len(ticks)) if n == 0 or ticks[n] > ticks[n - 1]]  # a short video repeats its frames
    frames = [sampled.frames[n] for n in kept]
    times = [sampled.timestamps[n] for n in kept]
    spacing = times[-1] / (len(times) - 1) if len(times) > 1 else 1 / settings.frames_fps
    duration = sampled.duration if sampled.duration > times[-1] else times[-1] + spacing
    marks = [ticks[n] for n in kept] + [max(round(duration * clock), ticks[kept[-1]] + 1)]
    encode = _encode_mp4 if suffix == ".mp4" else _encode_webp
    return StoredVideo(encode(frames, marks, settings.quality), times, duration)


def fit_size(height: int, width: int) -> tuple[int, int]:
    """Size of a stored frame: the picture's own, or as Qwen2.5-VL shrinks it to 200 tokens.

    Args:
        height: In pixels.
        width: In pixels.

    Returns:
        (height, width).
    """
    if height * width <= MAX_PIXELS:
        return height, width
    scale = math.sqrt(height * width / MAX_PIXELS)
    return tuple(max(SIDE, math.floor(side / scale / SIDE) * SIDE) for side in (height, width))  # type: ignore[return-value]


@dataclass(frozen=True)
class _Pictures:
    """Frames of a folder, as a reader gives those of a file."""

    frames: np.ndarray
    timestamps: list[float]
    duration: float


def _read_frames(folder: Path, count: int, size: Callable[[int, int], tuple[int, int]], *, rate: float) -> _Pictures:
    """Evenly spread pictures of a folder, by the rule for videos."""
    paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES), key=_natural)
    places = np.linspace(0, len(paths) - 1, count).round().astype(int).tolist()
    frames = []
    for place in places:
        with Image.open(paths[place]) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        height, width = size(picture.height, picture.width)
        frames.append(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)))
    return _Pictures(np.stack(frames), [place / rate for place in places], len(paths) / rate)


def _natural(path: Path) -> tuple[int, str]:
    """Order of numbered names, whether padded or not."""
    digits = "".join(character for character in path.stem if character.isdigit())
    return (int(digits) if digits else 0, path.name)


def _load_reader(name: str) -> Reader:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def _encode_mp4(frames: Sequence[np.ndarray], marks: Sequence[int], quality: int) -> bytes:
    """JPEG files as the packets of a video; every player and reader of videos takes it."""
    import av

    height, width = frames[0].shape[:2]
    base = Fraction(1, FORMATS["jpeg"][1])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, "yuvj444p", base
        for frame, start, end in zip(frames, marks, marks[1:], strict=False):
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, "JPEG", quality=quality, subsampling=0)
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, True
            packet.pts = packet.dts = start
            packet.duration = end - start
            container.mux(packet)
    return buffer.getvalue()


def _encode_webp(frames: Sequence[np.ndarray], marks: Sequence[int], quality: int) -> bytes:
    """A moving picture of whole frames."""
    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=np.diff(marks).tolist(),
        quality=quality,
        method=4,
        kmin=1,
        kmax=1,
    )
    return buffer.getvalue()
