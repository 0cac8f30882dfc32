"""Copies to a device and back: the right bytes, no buffer overwritten, and time that counts as the model's."""

import time
from contextlib import nullcontext

import pytest
import torch

from gve.encoding import transfer
from gve.encoding.prefetching import EncodeStatistics
from gve.encoding.transfer import Flight, PinnedRing

CUDA = torch.device("cuda")


class FakeEvent:
    """An event whose work takes a while; notes its calls."""

    seconds = 0.0

    def __init__(self):
        self.calls = []

    def record(self, stream):
        self.calls.append("record")

    def synchronize(self):
        time.sleep(self.seconds if "record" in self.calls else 0)
        self.calls.append("wait")


class FakeStream:
    def __init__(self, device=None):
        self.waits = []

    def wait_stream(self, other):
        self.waits.append(other)


@pytest.fixture
def running(monkeypatch):
    """Events and streams where there is no CUDA; gives the stream that computes."""
    stream = FakeStream()
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(transfer, "pinned_bytes", lambda size: torch.empty(size, dtype=torch.uint8))
    return stream


PARTS = [
    [torch.arange(60, dtype=torch.uint8).view(4, 15), torch.arange(15, dtype=torch.uint8).view(1, 15)],
    [torch.arange(12).view(3, 4).T],  # not contiguous
    [torch.rand(5, 3), torch.zeros(0, 3), torch.rand(2, 3)],
    [torch.tensor([0.5]), torch.tensor([1], dtype=torch.int64)],  # of two types
]


@pytest.mark.parametrize("parts", PARTS, ids=["bytes", "one", "empty", "types"])
@pytest.mark.parametrize("size", [7, 64, 1024])
def test_what_arrives_is_what_was_joined(running, parts, size):
    ring = PinnedRing(torch.device("cpu"), buffers=2, size=size)
    for _ in range(3):
        found = ring.join(parts)
        assert torch.equal(found, torch.cat(parts)) and found.dtype == torch.cat(parts).dtype


def test_a_buffer_is_filled_again_once_its_copy_is_done(running):
    ring = PinnedRing(torch.device("cpu"), buffers=2, size=10)
    ring.join([torch.zeros(35, dtype=torch.uint8)])
    ring.join([torch.zeros(5, dtype=torch.uint8)])
    assert [event.calls for event in ring.copied] == [["wait", "record"] * 3, ["wait", "record"] * 2]
    assert running.waits == [ring.stream] * 2  # what computes sees the whole tensor


def test_one_batch_stays_in_flight(running, monkeypatch):
    monkeypatch.setattr(FakeEvent, "seconds", 0.02)
    spent = EncodeStatistics()
    flight = Flight(CUDA, spent, to_cpu=True)
    for number in range(3):
        flight.launch(torch.full((2, 4), float(number)))
        flight.land(leave=1)
        assert len(flight.running) == 1 and spent.model >= number * 0.02
    flight.land()
    assert not flight.running and spent.model >= 0.06
    assert torch.cat(flight.vectors)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_cpu_has_nothing_in_flight():
    flight = Flight(torch.device("cpu"), EncodeStatistics(), to_cpu=True)
    flight.launch(torch.ones(1, 4))
    assert not flight.running and len(flight.vectors) == 1


@pytest.mark.gpu
def test_a_ring_on_a_device():
    ring = PinnedRing(CUDA, buffers=2, size=1 << 12)
    for number in range(20):
        parts = [torch.randint(0, 255, (50 + number, 300), dtype=torch.uint8) for _ in range(3)]
        busy = torch.rand(2048, 2048, device=CUDA)
        busy = busy @ busy
        assert torch.equal((ring.join(parts) + 0).cpu(), torch.cat(parts))


@pytest.mark.gpu
def test_vectors_land_on_the_host():
    flight = Flight(CUDA, EncodeStatistics(), to_cpu=True)
    wanted = []
    for _ in range(5):
        made = torch.rand(64, 64, device=CUDA) @ torch.rand(64, 64, device=CUDA)
        flight.launch(made)
        flight.land(leave=1)
        wanted.append(made)
    flight.land()
    assert torch.equal(torch.cat(flight.vectors), torch.cat(wanted).cpu())
