"""The Ray engine writes the same bytes; slow, since Ray takes long to start."""

from pathlib import Path

import pytest
from synth_stages import flow, run, tables_digest

from gve.hub_datasets.vsynflow.engines import make_engine
from gve.hub_datasets.vsynflow.engines.inline import InlineEngine

pytest.importorskip("ray")


@pytest.mark.slow
def test_ray_gives_the_same_bytes(tmp_path):
    import ray

    run(tmp_path / "inline", flow(), InlineEngine())
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}  # where the stages of the flow are
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    try:
        run(tmp_path / "ray", flow(), make_engine("ray", 2))
    finally:
        ray.shutdown()
    assert tables_digest(tmp_path / "inline") == tables_digest(tmp_path / "ray")


def test_engines_by_name():
    assert make_engine("inline", 1).name == "inline"
    assert make_engine("processes", 3).workers == 3
    with pytest.raises(ValueError, match="inline, processes, ray are accepted"):
        make_engine("spark", 1)
    with pytest.raises(ValueError, match="workers: got 0"):
        make_engine("processes", 0)
