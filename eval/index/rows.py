"""What an index holds, and what a search finds: files and stretches of them."""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LEVELS = ("file", "window", "shot")


class Segment(NamedTuple):
    """A stretch of a video, in seconds from its first frame; of a whole image both times are None."""

    level: str  # one of LEVELS
    start: float | None = None
    end: float | None = None

    def key(self, path: str | os.PathLike[str]) -> str:
        """The row's id: the same file and stretch are the same row in every run."""
        times = f"{self.level}|{'' if self.start is None else f'{self.start:.3f}|{self.end:.3f}'}|".encode()
        return hashlib.blake2b(times + os.fsencode(path), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Levels:
    """Which segments of a video become rows.

    Args:
        files: The whole file.
        window: Seconds of a window; None for no windows.
        stride: Seconds from one window's start to the next; None for `window`.
        shots: The stretches between scene cuts.
    """

    files: bool = True
    window: float | None = None
    stride: float | None = None
    shots: bool = False

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"--{name}: must be seconds above 0, got {value}. Correct it.")
        if self.stride is not None and self.window is None:
            raise ValueError("--stride: given without --window. Give both, or leave it out.")
        if self.stride is not None and self.window is not None and self.stride > self.window:
            raise ValueError(
                f"--stride: {self.stride} is longer than the window of {self.window}, so parts of each video would be "
                "left out. Lower it."
            )
        if not (self.files or self.window or self.shots):
            raise ValueError("--no-files: leaves nothing to index. Add --window or --shots.")

    @property
    def cuts(self) -> bool:
        """Whether a video has more rows than one."""
        return self.window is not None or self.shots


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A row that a query found.

    Attributes:
        score: Cosine; after merging, the best of its rows.
        missing: Whether the file is gone from where it was.
        columns: The user's own columns.
    """

    path: str
    kind: str
    level: str
    start: float | None
    end: float | None
    score: float
    missing: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)
