"""A run on two nodes of a Ray cluster, one of which is killed in the middle."""

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from synth_stages import Length, Popular, Words, flow, records, run, tables_digest

from gve.hub_datasets.vsynflow.engines import make_engine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.status import verify_run

pytest.importorskip("ray", reason="Ray is not installed")
TESTS, COUNT, ON_NODE = Path(__file__).parents[2], 120, 2


@pytest.fixture
def node():
    """The second of two nodes, as a function that kills it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=ON_NODE)
    here = {"env_vars": {"PYTHONPATH": str(TESTS)}}
    ray.init(address=cluster.address, log_to_driver=False, runtime_env=here)
    yield lambda: cluster.remove_node(second, allow_graceful=False)
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_is_killed_loses_nothing(node, tmp_path, caplog):
    log, whole = tmp_path / "calls", tmp_path / "whole"
    run(whole, flow(most=9), count=COUNT)

    def calls():
        lines = log.read_text().split("\n") if log.exists() else []
        return [line for line in lines if line.startswith("call")]

    def kill():
        limit = time.monotonic() + 120
        while len(calls()) < COUNT // 4 and time.monotonic() < limit:
            time.sleep(0.01)
        node()

    make_plan(tmp_path / "run", records(count=COUNT), {"name": "test"}, shard_rows=5)
    killer = threading.Thread(target=kill)
    killer.start()
    slow = Flow((Length(4), Popular(9), Words(str(log), pause=0.1)))
    report = run_flow(tmp_path / "run", slow, make_engine("ray", 1 + ON_NODE))
    killer.join()
    assert "a task was lost" in caplog.text, "the node died in its work"
    assert (report.shards, verify_run(tmp_path / "run").errors) == (COUNT // 5, [])
    assert tables_digest(tmp_path / "run") == tables_digest(whole)
    assert not (tmp_path / "run" / "suspects").exists(), "its shards ran again as the others do"
    paid = Counter(calls())
    assert paid.total() - len(paid) <= ON_NODE, "only calls in flight are repeated"
