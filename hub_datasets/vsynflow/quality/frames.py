"""The frames of a record for a model, decoded in the child process."""

from collections.abc import Iterator, Sequence

from PIL import Image

from gve.hub_datasets.vsynflow.quality.worker import VideoError, WorkerError, video_worker
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Failed

_BATCH = 32
"""Records whose frames are in memory together."""


def in_batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records of a shard in order, a few at a time, so that memory does not grow with the shard."""
    for start in range(0, len(records), _BATCH):
        yield records[start : start + _BATCH]


def spread_frames(
    records: Sequence[Record], count: int, side: int, deadline: float
) -> list[list[Image.Image] | Failed]:
    """Frames at the middles of equal parts of each video, or why there are none.

    Args:
        records: With `video`, and `duration` in seconds.
        count: Frames of a video.
        side: Pixels of their longer side.
        deadline: Seconds for a video.
    """
    return [_one(record, count, side, deadline) for record in records]


def _one(record: Record, count: int, side: int, deadline: float) -> list[Image.Image] | Failed:
    times = [(index + 0.5) * record["duration"] / count for index in range(count)]
    try:
        arrays = video_worker().call("sample_frames", record["video"], times, side, deadline=deadline)
    except (VideoError, WorkerError) as error:
        return Failed(str(error).partition(":")[0], retryable=str(error) == "deadline")
    return [Image.fromarray(array) for array in arrays]
