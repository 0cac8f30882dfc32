"""A child process that decodes, so that a video which hangs or crashes the decoder costs a row, not the run."""

import os
import pickle
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Failed

_BATCH = 32  # records whose frames are in memory together
_BOOT = "from gve.hub_datasets.vsynflow.quality.child import serve; serve()"


class VideoError(Exception):
    """The video cannot be decoded; the message says how."""


class WorkerError(Exception):
    """The child was lost; `code` is "deadline" or "crash"."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class VideoWorker:
    """Calls functions of child.py in its own process, and replaces a lost process."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def call(self, function: str, *arguments: Any, deadline: float) -> Any:
        """Call a function of child.FUNCTIONS; `deadline` is in seconds, without the child's start.

        Raises:
            VideoError: If it raises ValueError.
            WorkerError: If it takes longer, or the process dies.
            OSError: If the child met trouble of the machine, such as a full disk.
        """
        child = self._started()
        assert child.stdin is not None
        try:
            _send(child.stdin, (function, arguments))
            kind, value = self._receive(child, time.monotonic() + deadline)
        except (BrokenPipeError, EOFError):
            self.close()
            raise WorkerError("crash") from None
        except TimeoutError:
            self.close()
            raise WorkerError("deadline") from None
        if kind == "video":
            raise VideoError(value)
        if kind == "machine":
            raise OSError(*value)
        return value

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
            self._child = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._receive(self._child, time.monotonic() + 120) == ("ready", None)
        return self._child

    def _receive(self, child: subprocess.Popen[bytes], until: float) -> Any:
        assert child.stdout is not None
        (length,) = struct.unpack("<Q", _read(child.stdout.fileno(), 8, until))
        return pickle.loads(_read(child.stdout.fileno(), length, until))


def _send(pipe: Any, value: Any) -> None:
    content = pickle.dumps(value)
    pipe.write(struct.pack("<Q", len(content)) + content)
    pipe.flush()


def _read(descriptor: int, count: int, until: float) -> bytes:
    parts = []
    while count:
        if not select.select([descriptor], [], [], max(until - time.monotonic(), 0))[0]:
            raise TimeoutError
        part = os.read(descriptor, min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


_WORKERS: dict[int, VideoWorker] = {}


def video_worker() -> VideoWorker:
    """The child of this process, started by the first call; it ends with its parent."""
    return _WORKERS.setdefault(os.getpid(), VideoWorker())


def in_batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records of a shard in order, a few at a time, so that memory does not grow with the shard."""
    for start in range(0, len(records), _BATCH):
        yield records[start : start + _BATCH]


def spread_frames(
    records: Sequence[Record], count: int, side: int, deadline: float
) -> list[list[Image.Image] | Failed]:
    """Frames at the middles of equal parts of each video, longer sides of `side` pixels, or why there are none."""
    return [_one(record, count, side, deadline) for record in records]


def _one(record: Record, count: int, side: int, deadline: float) -> list[Image.Image] | Failed:
    times = [(index + 0.5) * record["duration"] / count for index in range(count)]
    try:
        arrays = video_worker().call("sample_frames", record["video"], times, side, deadline=deadline)
    except (VideoError, WorkerError) as error:
        return Failed(str(error).partition(":")[0], retryable=str(error) == "deadline")
    return [Image.fromarray(array) for array in arrays]
