"""The frame and the clip that a video's image and clip tasks start from (paper, section 3.2: P_f-v and P_c-v)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from gve.hub_datasets.vsynflow.prompts import generator
from gve.hub_datasets.vsynflow.records import Record, keep_media
from gve.hub_datasets.vsynflow.stages import Context, Failed, Kept, Outcome, Stage
from gve.hub_datasets.vsynflow.stills import Still, cut_clip, grey, jpeg, read_stills, read_times, sharpness
from gve.media_gve import JPEG, MP4

FRAME = pa.struct(
    {"path": pa.string(), "time": pa.float64(), "share": pa.float64(), "sharpness": pa.float32(), "luma": pa.float32()}
)
CLIP = pa.struct({"path": pa.string(), "start": pa.float64(), "end": pa.float64(), "share": pa.float64()})
END_SHARE = 0.1  # no frame comes from this share of the video at either end: titles, fades, cuts
BLACK_LUMA, FLAT_DEVIATION = 16.0, 4.0  # a frame is black below this mean luma, of one colour below this deviation
BLURRED_SHARE = 0.5  # of the median sharpness of the frames that show anything; less is blurred
CANDIDATES = 16  # frames among which one is chosen
CUT_MARGIN = 0.5  # seconds next to a cut that a clip leaves out
_MOST_FRAME_PIXELS = 1280 * 720


def usable(stills: Sequence[Still]) -> list[int]:
    """Numbers of the frames that are neither black, nor of one colour, nor blurred compared with the others."""
    lumas = [grey(still.pixels) for still in stills]
    lit = [n for n, luma in enumerate(lumas) if luma.mean() >= BLACK_LUMA and luma.std() >= FLAT_DEVIATION]
    sharp = {number: sharpness(stills[number].pixels) for number in lit}
    floor = BLURRED_SHARE * float(np.median(list(sharp.values()))) if lit else 0.0
    return [number for number in lit if sharp[number] >= floor]


def choose_clip(
    seconds: float, shots: Sequence[tuple[float, float]], rng: Generator, *, least: float, most: float
) -> tuple[float, float] | None:
    """Choose where to cut a clip: inside one shot, and at most half of the video. None if no shot has room.

    All times are seconds; no `shots` mean one shot, and longer shots are likelier.
    """
    spans = []
    for start, end in shots or [(0.0, seconds)]:
        start = start if start <= 0 else start + CUT_MARGIN
        end = end if end >= seconds else end - CUT_MARGIN
        longest = min(most, seconds / 2, end - start)
        if longest >= least:
            spans.append((start, end, longest))
    if not spans:
        return None
    rooms = np.array([end - start for start, end, _ in spans])
    start, end, longest = spans[int(rng.choice(len(spans), p=rooms / rooms.sum()))]
    length = float(rng.uniform(least, longest))
    begin = float(rng.uniform(start, end - length))
    return round(begin, 3), round(begin + length, 3)


@dataclass(frozen=True)
class References(Stage):
    """Chooses a frame and cuts a clip out of every video; equal files are stored once in the run's folder.

    A video without a usable frame or without room for a clip goes on, and gives fewer tasks.
    """

    name = "references"
    version = 2
    columns = {"frame": FRAME, "clip": CLIP, "seconds": pa.float64()}  # noqa: RUF012
    param_names = ("least_seconds", "most_seconds", "candidates", "shots", "seed")
    candidates = CANDIDATES
    least_seconds: float = 2.0  # of a clip
    most_seconds: float = 10.0
    shots: str = ""  # column of {"start", "end"} in seconds; "" if every record is one shot
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.least_seconds <= self.most_seconds:
            raise ValueError(
                "clip seconds must ascend from above zero, such as 2 and 10, got "
                f"{self.least_seconds} and {self.most_seconds}."
            )

    @property
    def reads(self) -> Sequence[str]:
        """The video, and the column of its shots."""
        return ("video", self.shots) if self.shots else ("video",)

    def one(self, record: Record, context: Context) -> Outcome:
        """Choose for a video."""
        try:
            return Kept(self._chosen(record, context))
        except (ValueError, FileNotFoundError):
            return Failed("undecodable", retryable=False)

    def _chosen(self, record: Record, context: Context) -> dict[str, Any]:
        times, rng = read_times(record), generator(self.seed, record["id"], "references")
        # a frame lasts until the next one, so the last one's end is its start and one mean step
        seconds = float(times[-1] * len(times) / max(1, len(times) - 1))
        inner = times[(times >= END_SHARE * seconds) & (times <= (1 - END_SHARE) * seconds)]
        frame = None
        if len(inner):
            places = np.unique(((np.arange(CANDIDATES) + 0.5) / CANDIDATES * len(inner)).astype(int))
            stills = read_stills(record, inner[places].tolist())
            good = usable(stills)
            if good:
                frame = _frame(stills[good[int(rng.integers(len(good)))]], seconds, context.folder)
        shots = [(shot["start"], shot["end"]) for shot in record[self.shots] or ()] if self.shots else []
        span = choose_clip(seconds, shots, rng, least=self.least_seconds, most=self.most_seconds)
        return {"frame": frame, "clip": _clip(record, span, seconds, context.folder), "seconds": seconds}


def _frame(still: Still, seconds: float, folder: Path) -> dict[str, Any]:
    path = keep_media(folder, jpeg(still.pixels, most_pixels=_MOST_FRAME_PIXELS, quality=95), JPEG)
    measures = {"sharpness": sharpness(still.pixels), "luma": float(grey(still.pixels).mean())}
    return {"path": path, "time": still.time, "share": still.time / seconds, **measures}


def _clip(record: Record, span: tuple[float, float] | None, seconds: float, folder: Path) -> dict[str, Any] | None:
    if span is None:
        return None
    try:
        content = cut_clip(record, *span)
    except ValueError:  # too few frames lie between for a clip
        return None
    path = keep_media(folder, content, MP4)
    return {"path": path, "start": span[0], "end": span[1], "share": sum(span) / 2 / seconds}
