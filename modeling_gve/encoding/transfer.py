"""To a CUDA device and back without waiting for it: a ring of pinned buffers, and one batch in flight.

Shape legend: B rows of a batch, D width, N rows of a joined tensor.
"""

from collections import deque
from collections.abc import Sequence

import torch

from gve.encoding.prefetching import EncodeStatistics

BUFFERS, BUFFER_BYTES = 4, 16 << 20
"""Pinned buffers of a ring, and bytes of each: pinning memory is slow and stops other threads, so it is reused."""


class PinnedRing:
    """Copies tensors to a CUDA device through a few reused pinned buffers, on a stream of its own.

    The copies of a batch so run beside the computing of the batch before. Use it from one thread.
    """

    def __init__(self, device: torch.device, *, buffers: int = BUFFERS, size: int = BUFFER_BYTES) -> None:
        self.device, self.size = device, size
        self.stream = torch.cuda.Stream(device)
        self.buffers = [pinned_bytes(size) for _ in range(buffers)]
        self.copied = [torch.cuda.Event() for _ in range(buffers)]
        self.turn = 0

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Tensors of one width as a single one (N, ...) on the device; work queued there from now on sees it."""
        if any(part.device.type != "cpu" for part in parts) or len({part.dtype for part in parts}) > 1:
            return torch.cat([part.to(self.device) for part in parts])  # features of a model, given in place of pixels
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        running = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.stream):
            # allocated here: memory of the running stream may still be read by what is queued there
            joined = torch.empty(shape, dtype=parts[0].dtype, device=self.device)
            target, start = joined.view(-1).view(torch.uint8), 0
            for part in parts:
                source = part.contiguous().view(-1).view(torch.uint8)
                self._copy(source, target[start : start + len(source)])
                start += len(source)
        running.wait_stream(self.stream)
        joined.record_stream(running)
        return joined

    def _copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy bytes to the device a buffer at a time; a buffer is filled once its last copy has arrived."""
        for start in range(0, len(source), self.size):
            piece = source[start : start + self.size]
            self.copied[self.turn].synchronize()  # an event that was never recorded does not wait
            buffer = self.buffers[self.turn][: len(piece)]
            buffer.copy_(piece)
            target[start : start + len(piece)].copy_(buffer, non_blocking=True)
            self.copied[self.turn].record(self.stream)
            self.turn = (self.turn + 1) % len(self.buffers)


def pinned_bytes(size: int) -> torch.Tensor:
    """(size,) uint8 in pinned memory."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


class Flight:
    """The vectors of a call; on a CUDA device the last batch may still be running while the next one is made ready.

    Its wait for the device counts as time in the model.
    """

    def __init__(self, device: torch.device, spent: EncodeStatistics, *, to_cpu: bool) -> None:
        self.device, self.spent, self.to_cpu = device, spent, to_cpu
        self.vectors: list[torch.Tensor] = []
        self.running: deque[torch.cuda.Event] = deque()

    def launch(self, vectors: torch.Tensor) -> None:
        """Take the (B, D) vectors of a batch whose work is queued; read `vectors` after `land`."""
        if self.device.type != "cuda":
            self.vectors.append(vectors.cpu() if self.to_cpu else vectors)
            return
        self.vectors.append(vectors.to("cpu", non_blocking=True) if self.to_cpu else vectors)
        self.running.append(torch.cuda.Event())
        self.running[-1].record(torch.cuda.current_stream(self.device))

    def land(self, leave: int = 0) -> None:
        """Wait until the device has at most `leave` batches to finish."""
        if len(self.running) > leave:
            with self.spent.time("model"):
                while len(self.running) > leave:
                    self.running.popleft().synchronize()
