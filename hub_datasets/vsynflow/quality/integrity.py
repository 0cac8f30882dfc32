"""Integrity and temporal dynamics [A.5, 3.2]: a video is decoded once, to its end, and judged by what came out."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.quality.repair import METHODS
from gve.hub_datasets.vsynflow.quality.shots import SceneRules
from gve.hub_datasets.vsynflow.quality.worker import VideoError, WorkerError, video_worker
from gve.hub_datasets.vsynflow.records import BASE_COLUMNS, Record, digest
from gve.hub_datasets.vsynflow.stages import Context, Failed, Kept, Outcome, Rejected, Stage
from gve.media_gve import MP4

REPAIR_ABOVE = 0.05  # a repair is tried from this share of packets on that do not decode
_SCORES = ("duration", "fps", "errors", "damage", "blank", "black", "motion", "moving", "hash_quality")


@dataclass(frozen=True)
class VideoLimits:
    """Limits of a video."""

    least_frames: int = 16  # decoded
    seconds: tuple[float, float] = (1.0, 1800.0)  # by time stamps
    least_side: int = 144  # pixels of the shorter side
    most_aspect: float = 4.0  # longer side over shorter
    fps: tuple[float, float] = (5.0, 120.0)
    most_errors: float = 0.05  # share of packets that do not decode, after a repair
    most_damage: float = 0.5  # the same before the repair; unknown if nothing decoded
    most_blank: float = 0.5  # share of frames of one colour
    most_black: float = 0.5  # share of frames, apart from noise and a small logo
    least_motion: float = 1.0  # median grey change at 2 frames a second; below 1 for stills, noise and slides
    least_moving: float = 0.0  # median share of the picture that changes; below 0.05 for a ticker under a still

    def verdict(self, row: Mapping[str, Any]) -> Rejected | None:
        """The first limit that a measured video breaks."""
        sides = sorted((row["width"], row["height"]))
        aspect = sides[1] / max(sides[0], 1)
        checks = (
            ("errors", row["errors"], row["errors"] >= self.most_errors),
            ("damage", row["damage"], row["damage"] is not None and row["damage"] >= self.most_damage),
            ("few frames", row["frames"], row["frames"] < self.least_frames),
            ("duration", row["duration"], not self.seconds[0] <= row["duration"] <= self.seconds[1]),
            ("resolution", sides[0], sides[0] < self.least_side),
            ("aspect", aspect, aspect > self.most_aspect),
            ("fps", row["fps"], not self.fps[0] <= row["fps"] <= self.fps[1]),
            ("blank", row["blank"], row["blank"] >= self.most_blank),
            ("black", row["black"], row["black"] >= self.most_black),
            ("static", row["motion"], row["motion"] < self.least_motion or row["moving"] < self.least_moving),
        )
        return next((Rejected(code, float(score)) for code, score, broken in checks if broken), None)


@dataclass(frozen=True)
class Integrity(Stage):
    """Measures a video in a child process that may be killed; tries one repair of a video that does not decode."""

    name = "integrity"
    version = 3
    reads = ("video",)
    columns = {  # noqa: RUF012
        "video": BASE_COLUMNS["video"],
        **dict.fromkeys(("frames", "width", "height"), pa.int64()),
        **dict.fromkeys(_SCORES, pa.float64()),
        "shots": pa.list_(pa.struct({"start": pa.float64(), "end": pa.float64()})),
        **dict.fromkeys(("hashes", "mirrored"), pa.list_(pa.string())),
        "digest": pa.string(),
        "repaired": pa.string(),
    }
    accepted: VideoLimits = field(default_factory=VideoLimits)
    scenes: SceneRules = field(default_factory=SceneRules)

    @property
    def params(self) -> Mapping[str, Any]:
        """What decides on a repair and on the cuts."""
        return {"repair_above": REPAIR_ABOVE, "scenes": asdict(self.scenes)}

    @property
    def limits(self) -> Mapping[str, Any]:
        """Limits of a video."""
        return asdict(self.accepted)

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Apply the limits."""
        return self.accepted.verdict(record)

    def one(self, record: Record, context: Context) -> Outcome:
        """Measure a video."""
        try:
            measured, place, repaired = self._measured(record, context)
        except VideoError as error:
            return Rejected(str(error).partition(":")[0], math.nan)
        except WorkerError as error:
            return Failed(error.code, retryable=error.code == "deadline")
        edges = [0.0, *measured["cuts"], measured["duration"]]
        shots = [{"start": start, "end": end} for start, end in pairwise(edges)]
        return Kept({**measured, "video": place, "shots": shots, "repaired": repaired})

    def _measured(self, record: Record, context: Context) -> tuple[dict[str, Any], dict[str, Any], str]:
        worker, place, deadline, scenes = video_worker(), record["video"], context.deadline, asdict(self.scenes)
        problem: VideoError | None = None
        try:
            measured = worker.call("measure", place, scenes, deadline=deadline)
            damage = measured["errors"]
            if damage < REPAIR_ABOVE:
                return measured, place, ""
        except VideoError as error:
            measured, problem, damage = None, error, None
        for method in METHODS:
            target = context.folder.resolve() / "media" / "repaired" / f"{digest(record['id'], method)}{MP4}"
            fixed = {"path": str(target), "offset": None, "size": None}
            try:
                worker.call("repair", place, method, str(target), deadline=deadline)
                again = worker.call("measure", fixed, scenes, deadline=deadline)
            except VideoError:
                target.unlink(missing_ok=True)
                continue
            # a remux that sheds damaged packets may shed good frames with them, which a re-encoding still shows
            whole = measured is None or again["frames"] >= measured["frames"]
            if again["errors"] < REPAIR_ABOVE and whole:
                return {**again, "damage": damage}, fixed, method
            target.unlink(missing_ok=True)
        if measured is None:
            assert problem is not None
            raise problem
        return measured, place, ""
