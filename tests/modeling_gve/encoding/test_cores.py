"""CoreShare: torch's threads follow the cores that other programs leave."""

import subprocess
import sys
import time

import pytest
import torch

from gve.encoding import cores
from gve.encoding.cores import CoreShare, Usage, half_speed, read_usage

CPU = torch.device("cpu")


@pytest.fixture
def four_threads(monkeypatch):
    """A machine of four cores, whose use a test writes; torch's own threads stay as they are."""
    set_to = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: set_to[-1])
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(cores, "usable_cpus", lambda: 4)
    monkeypatch.setattr(CoreShare, "seen", None)
    return set_to


@pytest.mark.parametrize(
    ("busy", "own", "threads"),
    [
        (4.0, 4.0, 4),  # nobody else
        (4.0, 3.7, 4),  # a little of this and that
        (4.0, 3.0, 3),  # a busy loop
        (4.0, 1.6, 2),  # two of them that share cores with ours
        (4.0, 0.0, 1),  # others have it all, and one thread is always left
        (0.5, 0.6, 4),  # ticks of the two clocks differ
    ],
)
def test_threads_follow_the_cores_that_others_leave(four_threads, busy, own, threads):
    start = time.monotonic() - 10
    readings = iter([Usage(start, 100.0, 50.0), Usage(start + 10, 100.0 + 10 * busy, 50.0 + 10 * own)])
    share = CoreShare(CPU, read=lambda: next(readings), interval=0.0)
    assert [share.adjust(), share.adjust()] == [4, threads]
    assert four_threads[-1] == threads


def test_threads_come_back_when_the_others_go(four_threads):
    start = time.monotonic() - 20
    readings = iter([Usage(start, 0, 0), Usage(start + 5, 20, 5), Usage(start + 10, 40, 25)])
    share = CoreShare(CPU, read=lambda: next(readings), interval=0.0)
    assert [share.adjust() for _ in range(3)] == [4, 1, 4]
    assert four_threads == [4, 1, 4]


def test_short_work_goes_on_with_what_was_seen(four_threads):
    start = time.monotonic() - 5
    readings = iter([Usage(start, 0, 0), Usage(start + 4, 16, 4), Usage(start + 9, 36, 24)])
    with CoreShare(CPU, read=lambda: next(readings), interval=0.0) as share:
        assert [share.adjust(), share.adjust()] == [4, 1]
    assert torch.get_num_threads() == 4
    with CoreShare(CPU, read=lambda: next(readings), interval=0.0) as share:
        assert torch.get_num_threads() == 1
        assert share.adjust() == 4  # the others have gone
    CoreShare.seen = Usage(time.monotonic() - 60, 0, 0), 1
    with CoreShare(CPU, read=lambda: pytest.fail("read")):
        assert torch.get_num_threads() == 4  # too long ago


def test_nothing_is_read_before_it_is_time(four_threads):
    share = CoreShare(CPU, read=lambda: pytest.fail("read"), interval=60.0)
    assert [share.adjust() for _ in range(3)] == [4, 4, 4]


def test_the_threads_come_back_at_the_end(four_threads):
    start = time.monotonic() - 10
    readings = iter([Usage(start, 0, 0), Usage(start + 5, 20, 5)])
    with CoreShare(CPU, read=lambda: next(readings), interval=0.0) as share:
        assert [share.adjust(), share.adjust()] == [4, 1]
    assert four_threads == [4, 1, 4]


def test_work_of_this_process_and_its_children_is_its_own():
    before = read_usage()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    end = time.monotonic() + 60
    while (now := read_usage()).own - before.own < 0.5 and time.monotonic() < end:
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert now.own - before.own >= 0.5  # this process sleeps, so it is the child's
    assert now.busy - before.busy > 0.8 * (now.own - before.own)
    assert read_usage().own > now.own - 1e-6  # an ended process stays counted


def test_beside_a_model_on_another_device_torch_has_one_thread(four_threads):
    with CoreShare(torch.device("meta"), read=lambda: pytest.fail("read"), interval=0.0) as share:
        assert [share.adjust() for _ in range(3)] == [1, 1, 1]
    assert torch.get_num_threads() == 4


def test_the_speed_of_a_precision_is_measured_once():
    found = half_speed(torch.bfloat16)
    assert found > 0 and half_speed(torch.bfloat16) == found
