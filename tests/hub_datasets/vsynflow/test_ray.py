"""The Ray engine writes the same bytes; slow, since Ray takes long to start."""

from pathlib import Path

import pytest
from synth_stages import flow, run, tables_digest

from gve.hub_datasets.vsynflow.engines import InlineEngine, make_engine
from gve.hub_datasets.vsynflow.status import read_table, verify_run

pytest.importorskip("ray")


TEXTS = ["kill it", "a red ball", "a blue ball"]


@pytest.fixture(scope="module")
def cluster():
    """A local one, whose workers find the stages of the flow; starting it takes 10 to 30 seconds."""
    import ray

    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_ray_gives_the_same_bytes(cluster, tmp_path):
    run(tmp_path / "inline", flow(), InlineEngine())
    run(tmp_path / "ray", flow(), make_engine("ray", 2))
    assert tables_digest(tmp_path / "inline") == tables_digest(tmp_path / "ray")


@pytest.mark.slow
def test_a_record_that_kills_its_worker_fails_alone(cluster, tmp_path):
    for engine in ("ray", "processes"):
        run(tmp_path / engine, flow(most=9), make_engine(engine, 2), texts=TEXTS, count=12)
        verdict = verify_run(tmp_path / engine)
        assert (verdict.errors, verdict.failed, verdict.kept) == ([], 4, 8)
    found = {(row["id"], row["code"], row["retryable"]) for row in read_table(tmp_path / "ray", "failed")}
    assert found == {(f"v{number:03d}", "crash", False) for number in (0, 3, 6, 9)}
    assert tables_digest(tmp_path / "ray") == tables_digest(tmp_path / "processes")


def test_engines_by_name():
    assert make_engine("inline", 1).name == "inline"
    assert make_engine("processes", 3).workers == 3
    with pytest.raises(ValueError, match="inline, processes, ray, got 'spark'"):
        make_engine("spark", 1)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        make_engine("processes", 0)
