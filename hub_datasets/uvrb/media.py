"""Media of the archives: found under any name in use, recognised by content, stored as a few frames.

Shapes: F frames, H height, W width.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from gve.hub_datasets.files import samples_of
from gve.hub_datasets.walking import walk_files
from gve.image_gve import open_image
from gve.media_gve import MP4, WEBP, media_kind, shown
from gve.video_gve import Frames, read_video
from gve.video_writer import JPEG_CLOCK, WEBP_CLOCK, encode_jpegs, encode_webp

FORMATS: dict[str, tuple[str, int, Callable[..., bytes]]] = {
    "jpeg": (MP4, JPEG_CLOCK, encode_jpegs),
    "webp": (WEBP, WEBP_CLOCK, encode_webp),
}
"""By format of the frames: suffix of the stored file, ticks a second of its clock, and its writer."""
MAX_PIXELS, SIDE = 200 * 784, 28
_JSON, _FOLDERS = "jsonl", "videos_frames"
"""Folders of an archive: its tables, which hold no media, and its videos stored as folders of frames."""


@dataclass(frozen=True)
class FrameSettings:
    """How videos are stored."""

    frames: int = 8  # F of each video
    format: str = "jpeg"  # or "webp"
    quality: int = 80  # 1 to 100
    frames_fps: float = 1.0  # for folders of frames, whose times are not recorded

    def __post_init__(self) -> None:
        if self.frames < 1 or not 1 <= self.quality <= 100 or self.format not in FORMATS or not self.frames_fps > 0:
            raise ValueError(
                f"frames, format, quality and frames_fps must be 1 or more, {' or '.join(FORMATS)}, 1 to 100 and above 0, "
                f"got {self.frames}, {shown(self.format)}, {self.quality} and {self.frames_fps}. Change them."
            )


@dataclass(frozen=True)
class StoredVideo:
    """A video as it is stored."""

    content: bytes  # MP4 of JPEG frames, or animated WebP
    suffix: str
    timestamps: list[float]  # seconds from the first frame
    duration: float  # seconds of the whole video


class MediaIndex:
    """Finds an archive's files by the names in its tables, with or without folders and suffix."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._videos: dict[str, list[Path]] = {}
        self._frames: dict[str, list[Path]] = {}
        self._images: dict[str, list[Path]] = {}
        frames: set[Path] = set()
        for path in walk_files([folder]):
            place = path.parent
            inside = place.relative_to(folder).parts
            if _JSON in inside or place in frames:
                continue
            kind = media_kind(path)
            if kind == "image" and _FOLDERS in inside:
                frames.add(place)
                self._frames.setdefault(place.name, []).append(place)
            elif kind is not None:
                known = self._images if kind == "image" else self._videos
                known.setdefault(path.stem, []).append(path)

    def video(self, name: str) -> Path | None:
        """A video file, else a folder of frames; None if none or several fit."""
        return _pick(self._videos, name) or _pick(self._frames, name)

    def image(self, name: str) -> Path | None:
        """An image file; None if none or several fit."""
        return _pick(self._images, name)


def _pick(known: dict[str, list[Path]], name: str) -> Path | None:
    """The path that shares most of a name's folders; None for a tie."""
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
    """Hexadecimal digest of a file or folder of frames, from sizes and samples; small files are read whole."""
    digest = hashlib.blake2b(digest_size=12)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        digest.update(f"{file.name if path.is_dir() else ''}|{file.stat().st_size}|".encode())
        for piece in samples_of(file, 16):
            digest.update(piece)
    return digest.hexdigest()


def store_video(path: Path, settings: FrameSettings) -> StoredVideo:
    """Sample a video file, or a folder of frames in name order, and encode its frames.

    Each frame has at most 200 tokens of 28 x 28 pixels; smaller ones keep their size. A video that stands still is
    stored as JPEG frames in either format.
    """
    if path.is_dir():
        sampled = _read_frames(path, settings.frames, settings.frames_fps)
    else:
        sampled = read_video(path, settings.frames, fit_size)
    suffix, clock, encode = FORMATS[settings.format]
    ticks = [round(time * clock) for time in sampled.timestamps]
    kept = [n for n in range(len(ticks)) if n == 0 or ticks[n] > ticks[n - 1]]  # a short video repeats its frames
    frames = [sampled.frames[n] for n in kept]
    times = [sampled.timestamps[n] for n in kept]
    spacing = times[-1] / (len(times) - 1) if len(times) > 1 else 1 / settings.frames_fps
    duration = sampled.duration if sampled.duration > times[-1] else times[-1] + spacing
    marks = [ticks[n] for n in kept] + [max(round(duration * clock), ticks[kept[-1]] + 1)]
    content = encode(frames, marks, quality=settings.quality)
    if suffix == WEBP and b"ANIM" not in content[:64]:
        # WebP keeps equal frames once, and what is left of them is a picture
        return store_video(path, replace(settings, format="jpeg"))
    return StoredVideo(content, suffix, times, duration)


def fit_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of a stored frame, shrunk to 200 tokens as Qwen2.5-VL does."""
    if height * width <= MAX_PIXELS:
        return height, width
    scale = math.sqrt(height * width / MAX_PIXELS)
    return tuple(max(SIDE, math.floor(side / scale / SIDE) * SIDE) for side in (height, width))  # type: ignore[return-value]


def _read_frames(folder: Path, count: int, rate: float) -> Frames:
    paths = sorted((path for path in folder.iterdir() if media_kind(path) == "image"), key=_natural)
    if not paths:
        raise ValueError(f"{folder} must hold the frames of a video, got no picture in it. Unpack it again.")
    places = np.linspace(0, len(paths) - 1, count).round().astype(int).tolist()
    frames = []
    for place in places:
        picture = open_image(paths[place])
        height, width = fit_size(picture.height, picture.width)
        frames.append(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)))
    return Frames(np.stack(frames), [place / rate for place in places], len(paths) / rate)


def _natural(path: Path) -> tuple[int, str]:
    """Sort key of numbered names, padded or not."""
    digits = "".join(character for character in path.stem if character.isdigit())
    return (int(digits) if digits else 0, path.name)
