"""What a machine does to a run: the captioner's server goes away, the disk is full, the run is killed."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial

import pytest
from stub_endpoint import StubEndpoint
from synth_stages import flow, records, run, tables_digest

from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.status import run_status, verify_run
from gve.hub_datasets.vsynflow.synth_command import main
from gve.hub_datasets.world.raw import write_raw_videos

COUNT, BEFORE = 10, 4


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw_videos(folder, COUNT, 0, 0, COUNT)
    return folder


def plan(raw, folder):
    places = [(f"v{n:05d}", str(raw / "videos" / f"v{n:05d}.mp4")) for n in range(COUNT)]
    made = [make_record(name, path, "a title", source="w", licence="x") for name, path in places]
    make_plan(folder, made, {"name": "test"}, shard_rows=5)


def caption(folder, port, **options):
    """Caption all of it by the server at a port."""
    given = {"in_flight": 2, "call_seconds": 5.0} | options
    make = partial(EndpointCaptioner, [f"http://127.0.0.1:{port}/v1"], "stub", **given)
    engine, retry = InlineEngine(), (folder / "done").exists()
    run_flow(folder, Flow((Enrichment("stub", num_frames=2),), captioner=make), engine, retry=retry)


@contextmanager
def goes_down(seconds):
    """A server that goes down after some calls and is back after a while; gives its port and the calls of both lives."""
    first, calls = StubEndpoint(latency=0.02), []
    first.__enter__()
    port = first.server.server_address[1]
    second = StubEndpoint(port=port)

    def life():
        while len(first.calls) < BEFORE:
            time.sleep(0.005)
        first.__exit__()
        time.sleep(seconds)
        second.__enter__()

    thread = threading.Thread(target=life)
    thread.start()
    yield port, calls
    thread.join()
    second.__exit__()
    calls += [*first.calls, *second.calls]


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    """The digest of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    plan(raw, folder)
    with StubEndpoint() as stub:
        caption(folder, stub.server.server_address[1])
    return tables_digest(folder)


@pytest.mark.parametrize("seconds", [1.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_server_that_is_down_for_a_while_costs_no_row(raw, whole, tmp_path, seconds):
    plan(raw, tmp_path)
    start = time.monotonic()
    with goes_down(seconds) as (port, calls):
        caption(tmp_path, port)
    assert time.monotonic() - start > seconds
    assert verify_run(tmp_path).errors == []
    assert tables_digest(tmp_path) == whole
    paid = [name for name, fault, _ in calls if fault == "ok"]
    assert COUNT <= len(paid) <= COUNT + 2, "only calls in flight are repeated"


def test_a_server_that_stays_down_fails_rows_that_a_retry_brings(raw, whole, tmp_path):
    plan(raw, tmp_path)
    with StubEndpoint() as gone:
        port = gone.server.server_address[1]
    caption(tmp_path, port, retries=1)
    assert run_status(tmp_path)["reasons"] == {"enrichment: connection": COUNT}
    assert run_status(tmp_path)["ended"]["retryable"] == COUNT
    with StubEndpoint(port=port):
        caption(tmp_path, port)
    assert tables_digest(tmp_path) == whole


def test_what_a_server_refuses_is_told_in_its_words_and_asked_again_by_a_retry(raw, whole, tmp_path):
    plan(raw, tmp_path)
    with StubEndpoint(["400"] * 9) as refuses:
        caption(tmp_path, refuses.server.server_address[1])
    status = run_status(tmp_path)
    assert status["reasons"] == {"enrichment: http-400": COUNT}
    assert status["words"] == {"enrichment: http-400": "injected"}
    with StubEndpoint() as stub:
        caption(tmp_path, stub.server.server_address[1])
    assert tables_digest(tmp_path) == whole


@contextmanager
def largest_file(size):
    """No file of this process may grow larger; writing on is an OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_that_may_not_grow_stop_the_run_and_lose_nothing(tmp_path):
    folder, log = tmp_path / "run", str(tmp_path / "calls")
    make_plan(folder, records(count=20), {"name": "test"}, shard_rows=5)
    with largest_file(1500), pytest.raises(OSError, match=r"File too large: .*parquet") as caught:
        run_flow(folder, flow(log=log), InlineEngine())
    assert caught.value.errno == errno.EFBIG
    assert not list(folder.rglob("*.tmp"))
    run_flow(folder, flow(log=log), InlineEngine())
    run(tmp_path / "whole", flow(), count=20)
    assert tables_digest(folder) == tables_digest(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 128 kB, and a function that gives it more; where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs rights that this user has not")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_run_and_loses_nothing(small_disk, tmp_path):
    disk, grow = small_disk
    folder, log = disk / "run", tmp_path / "calls"
    make_plan(folder, records(count=60), {"name": "test"}, shard_rows=5)
    with pytest.raises(OSError, match=r"No space left on device: .*disk/run"):
        run_flow(folder, flow(log=str(log)), InlineEngine())
    assert not list(folder.rglob("*.tmp"))
    grow()
    run_flow(folder, flow(log=str(log)), InlineEngine())
    run(tmp_path / "whole", flow(), count=60)
    assert tables_digest(folder) == tables_digest(tmp_path / "whole")
    calls = [line for line in log.read_text().split("\n") if line.startswith("call")]
    assert len(calls) - len(set(calls)) <= 1, "no more than the call that the full disk could not note"


def test_the_command_says_what_to_do_about_a_full_disk(small_disk, tmp_path, capsys):
    disk, grow = small_disk
    table = tmp_path / "titles.csv"
    table.write_text("video,text\n" + "".join(f"{number}.mp4,title {number:0200d}\n" for number in range(3000)))
    arguments = ["plan", str(disk / "run"), str(table), "--kind", "manifest", "--licence", "x", "--shard-rows", "20"]
    assert main(arguments) == 1
    assert "No space left on device" in (told := capsys.readouterr().err)
    assert "Make room and run the same command again" in told
    grow()
    assert main(arguments) == 0


KILLED = """
    from functools import partial
    from pathlib import Path
    from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
    from gve.hub_datasets.vsynflow.engines import InlineEngine
    from gve.hub_datasets.vsynflow.enrichment import Enrichment
    from gve.hub_datasets.vsynflow.flow import Flow
    from gve.hub_datasets.vsynflow.runner import run_flow
    make = partial(EndpointCaptioner, [{url!r}], "stub", in_flight=2)
    run_flow(Path({folder!r}), Flow((Enrichment("stub", num_frames=2),), captioner=make), InlineEngine())
"""


def test_killed_while_calls_are_in_flight(raw, whole, tmp_path):
    plan(raw, tmp_path)
    with StubEndpoint(latency=0.05) as stub:
        script = KILLED.format(url=stub.url, folder=str(tmp_path))
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
        limit = time.monotonic() + 60
        while len(stub.calls) < 7 and process.poll() is None and time.monotonic() < limit:  # in the second shard
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed in its work"
        stub.latency = 0.0
        caption(tmp_path, stub.server.server_address[1])
    assert verify_run(tmp_path).errors == [] and tables_digest(tmp_path) == whole
    paid = Counter(name for name, fault, _ in stub.calls if fault == "ok")
    assert len(paid) == COUNT and paid.total() - COUNT <= 2
