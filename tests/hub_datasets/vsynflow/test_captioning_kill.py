"""A run that is killed while calls are in flight: nothing is lost, and little is paid for twice."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from functools import partial

from stub_endpoint import StubEndpoint

from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.status import verify_run
from gve.hub_datasets.world.raw import write_raw_videos

COUNT, IN_FLIGHT = 24, 3
SCRIPT = """
    from functools import partial
    from pathlib import Path
    from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
    from gve.hub_datasets.vsynflow.engines import InlineEngine
    from gve.hub_datasets.vsynflow.enrichment import Enrichment
    from gve.hub_datasets.vsynflow.flow import Flow
    from gve.hub_datasets.vsynflow.runner import run_flow
    make = partial(EndpointCaptioner, [{url!r}], "stub", in_flight={in_flight})
    run_flow(Path({folder!r}), Flow((Enrichment("stub", num_frames=2),), captioner=make), InlineEngine())
"""


def plan(raw, folder):
    records = (
        make_record(f"v{n:05d}", str(raw / "videos" / f"v{n:05d}.mp4"), "a title", source="w", licence="x")
        for n in range(COUNT)
    )
    make_plan(folder, records, {"name": "test"}, shard_rows=8)


def finish(folder, stub):
    make = partial(EndpointCaptioner, [stub.url], "stub", in_flight=IN_FLIGHT)
    run_flow(folder, Flow((Enrichment("stub", num_frames=2),), captioner=make), InlineEngine())
    assert verify_run(folder).errors == []
    return [path.read_bytes() for path in sorted((folder / "kept").iterdir())]


def test_killed_and_run_again(tmp_path):
    raw = tmp_path / "raw"
    write_raw_videos(raw, COUNT, 0, 0, COUNT)
    plan(raw, tmp_path / "whole")
    with StubEndpoint() as stub:
        whole = finish(tmp_path / "whole", stub)
    folder = tmp_path / "killed"
    plan(raw, folder)
    with StubEndpoint(latency=0.05) as stub:
        script = SCRIPT.format(url=stub.url, in_flight=IN_FLIGHT, folder=str(folder))
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
        limit = time.monotonic() + 60
        while len(stub.calls) < 12 and process.poll() is None and time.monotonic() < limit:  # in the second shard
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed in its work"
        stub.latency = 0.0
        assert finish(folder, stub) == whole
    paid = Counter(name for name, fault, _ in stub.calls if fault == "ok")
    assert len(paid) == COUNT
    assert paid.total() - COUNT <= IN_FLIGHT
