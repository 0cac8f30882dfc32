"""What a machine does to a run: the captioner's server goes away, the disk is full, the run is killed."""

import errno
import multiprocessing
import resource
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from stub_endpoint import StubEndpoint, caption
from synth_stages import TEXTS, flow, record_of, records, tables_digest

from gve.hub_datasets.vsynflow.engines import InlineEngine
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
    made = [record_of(path, path.stem) for path in sorted((raw / "videos").iterdir())]
    make_plan(folder, made, {"name": "test"}, shard_rows=5)


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


@pytest.mark.parametrize("seconds", [0.4, pytest.param(30.0, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("code", ["connection", "http-400"])
def test_rows_that_a_server_that_is_gone_or_refuses_them_fails_are_brought_by_a_retry(raw, whole, tmp_path, code):
    plan(raw, tmp_path)
    with StubEndpoint(["400"] * 9) as stub:
        port = stub.server.server_address[1]
        if code == "http-400":
            caption(tmp_path, port)
    if code == "connection":
        caption(tmp_path, port, retries=0, in_flight=8)
    status, name = run_status(tmp_path), f"enrichment: {code}"
    assert (status["reasons"], status["ended"]["retryable"]) == ({name: COUNT}, COUNT)
    assert status["words"] == ({} if code == "connection" else {name: "injected"})
    with StubEndpoint(port=port):
        caption(tmp_path, port)
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


@pytest.mark.parametrize(
    ("texts", "limit", "match"),
    [(TEXTS, 1500, r"File too large: .*stages/.*\.parquet"), (["word " * 100], 10_000, "File too large$")],
    ids=["results", "journal"],
)
def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, texts, limit, match):
    """Where the results of a stage do not fit, and where the journal takes a part of a line."""
    folder, whole, log = tmp_path / "run", tmp_path / "whole", tmp_path / "calls"
    for place in (folder, whole):
        make_plan(place, records(texts, 60), {"name": "test"}, shard_rows=20)
    with largest_file(limit), pytest.raises(OSError, match=match) as caught:
        run_flow(folder, flow(most=9, log=str(log)), InlineEngine())
    assert caught.value.errno == errno.EFBIG and not list(folder.rglob("*.tmp"))
    run_flow(folder, flow(most=9, log=str(log)), InlineEngine())
    run_flow(whole, flow(most=9), InlineEngine())
    assert tables_digest(folder) == tables_digest(whole)
    calls = [line for line in log.read_text().split("\n") if line.startswith("call")]
    assert len(calls) - len(set(calls)) <= 1, "no more than the call that the full disk could not note"


def test_the_command_says_what_to_do_about_a_full_disk(tmp_path, capsys):
    table = tmp_path / "titles.csv"
    table.write_text("video,text\n" + "".join(f"{number}.mp4,title {number:0200d}\n" for number in range(300)))
    arguments = ["plan", str(tmp_path / "run"), str(table), "--kind", "manifest", "--licence", "x"]
    with largest_file(1500):
        assert main(arguments) == 1
    assert "Make room and run the same command again" in capsys.readouterr().err
    assert main(arguments) == 0


def test_killed_while_calls_are_in_flight(raw, whole, tmp_path):
    plan(raw, tmp_path)
    with StubEndpoint(latency=0.05) as stub:
        port = stub.server.server_address[1]
        process = multiprocessing.get_context("forkserver").Process(target=caption, args=(tmp_path, port))
        process.start()
        limit = time.monotonic() + 60
        while len(stub.calls) < 7 and process.is_alive() and time.monotonic() < limit:  # in the second shard
            time.sleep(0.01)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was killed in its work"
        stub.latency = 0.0
        caption(tmp_path, port)
    assert verify_run(tmp_path).errors == [] and tables_digest(tmp_path) == whole
    paid = Counter(name for name, fault, _ in stub.calls if fault == "ok")
    assert len(paid) == COUNT and paid.total() - COUNT <= 2
