"""A video played backwards, mirrored, or with its parts in another order, as real files.

Shapes: F frames, (F, H, W, 3) uint8.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gve.hub_datasets.vsynflow.stills import MOST_CLIP_PIXELS, fit, read_stills, read_times
from gve.video_writer import encode_mp4

MOST_FRAMES, MOST_SECONDS = 240, 240.0  # a longer video is shown at a lower rate, or not edited
MOST_RATE, _CHUNK, _CRF = 30, 32, 18
LEAST_CHANGE = 2.0  # mean difference, of 255, between the frames of a video and its edit; less looks the same
_SIDE = re.compile(r"\b(left|right)(wards?|most)?\b", re.IGNORECASE)
# left of "leave", right of "at once" and "correct"
_NO_SIDE = re.compile(
    r"\bleft (?:the|a|an|his|her|their|its|alone|behind|over|open|in|at|when)\b|"
    r"\bright (?:now|away|after|before|then|there|here|in|at|on|next|above|below|beside|behind|under|over|through|out)\b|"
    r"\b(?:is|are|was|were|has|have|had|been|it|they|he|she|who|people|all|just|quite) (?:left|right)\b"
    r"(?!wards?| (?:of|side|hand|edge|corner|half|part|arm|leg|foot|one))",
    re.IGNORECASE,
)


def mirrored_text(text: str) -> str | None:
    """What a text says of the mirrored video; None if it names no side, or a word may mean something else."""
    if not _SIDE.search(text) or _NO_SIDE.search(text):
        return None

    def other(found: re.Match[str]) -> str:
        side, rest = found.group(1), found.group(2) or ""
        swapped = "right" if side.lower() == "left" else "left"
        return (swapped.capitalize() if side[0].isupper() else swapped) + rest

    return _SIDE.sub(other, text)


def _backwards(frames: np.ndarray, cut: int) -> np.ndarray:
    return frames[::-1]


def _mirrored(frames: np.ndarray, cut: int) -> np.ndarray:
    return frames[:, :, ::-1]


def _reordered(frames: np.ndarray, cut: int) -> np.ndarray:
    return np.concatenate([frames[cut:], frames[:cut]])


UNCHANGED = "unchanged"
"""The video encoded as its edits are, so that encoding tells no edit from an original."""
EDITS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "reversed": _backwards,
    "mirrored": _mirrored,
    "reordered": _reordered,
}


def edit_video(
    record: Mapping[str, Any], names: Sequence[str], shots: Sequence[Mapping[str, float]]
) -> dict[str, bytes]:
    """The named EDITS of a record's video as MP4 files, and it UNCHANGED; one that looks like the video is left out.

    Args:
        shots: {"start", "end"} in seconds. "reordered" exchanges what lies before and after the cut nearest to the
            middle, or the halves of a single shot.

    Raises:
        FileNotFoundError: If the file is gone.
        ValueError: If it cannot be decoded.
    """
    times = read_times(record)
    seconds = float(times[-1] * len(times) / max(1, len(times) - 1))
    if not names or len(times) < 2 or seconds > MOST_SECONDS:
        return {}
    rate = max(1, round(min(MOST_RATE, len(times) / seconds, MOST_FRAMES / seconds)))
    wanted = (np.arange(max(2, round(seconds * rate))) + 0.5) / rate
    found: list[np.ndarray] = []
    for start in range(0, len(wanted), _CHUNK):  # whole frames are in memory a few at a time
        stills = read_stills(record, np.minimum(wanted[start : start + _CHUNK], times[-1]))
        found += [np.asarray(fit(still.pixels, MOST_CLIP_PIXELS)) for still in stills]
    frames = np.stack(found)
    cuts = [shot["start"] for shot in shots if 0 < shot["start"] < seconds] or [seconds / 2]
    cut = round(min(cuts, key=lambda time: abs(time - seconds / 2)) * rate)
    edits = {name: EDITS[name](frames, min(max(cut, 1), len(frames) - 1)) for name in names}
    edits = {name: edit for name, edit in edits.items() if _difference(frames, edit) >= LEAST_CHANGE}
    if edits:
        edits[UNCHANGED] = frames
    return {
        name: encode_mp4([np.ascontiguousarray(frame) for frame in edit], rate, crf=_CRF, max_pixels=MOST_CLIP_PIXELS)
        for name, edit in edits.items()
    }


def _difference(frames: np.ndarray, edit: np.ndarray) -> float:
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(frames, edit, strict=True)]))
