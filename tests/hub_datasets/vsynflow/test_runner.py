import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from synth_stages import Length, Pooled, flow, record_of, records, run, tables_digest

from gve.hub_datasets.vsynflow.engines import InlineEngine, ProcessEngine, make_engine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.runner import only_runner, run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.status import read_table, run_status, verify_run

TESTS = Path(__file__).parents[2]


def test_every_record_ends_once(tmp_path):
    report = run(tmp_path, flow())
    assert (report.shards, report.skipped, report.changes) == (3, 0, [])
    verdict = verify_run(tmp_path)
    assert verdict.errors == []
    assert verdict.records == 12 == verdict.kept + verdict.rejected + verdict.failed
    reasons = run_status(tmp_path)["reasons"]
    assert reasons == {"popular: shared": 4, "words: error:KeyError": 2}
    assert run_status(tmp_path)["ended"]["retryable"] == 2, "an error may be mended by a new release"
    kept = list(read_table(tmp_path, "kept"))
    assert verdict.rows == len(kept)
    row = next(row for row in kept if row["origin"] == "v003")
    assert (row["id"], row["parent"], row["word"], row["letters"]) == ("v003#w0", "v003", "a", 17)
    assert row["video"] == {"path": "/nowhere/3.mp4", "offset": None, "size": None}


def test_a_second_run_computes_nothing_and_a_changed_limit_judges_stored_scores(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    run(folder, flow(log=str(log)))
    before, calls = tables_digest(folder), log.read_text()
    report = run(folder, flow(log=str(log)))
    assert report.skipped == 3 and tables_digest(folder) == before
    report = run(folder, flow(least=13, log=str(log)))
    assert report.changes == ["stage length: least 4 is now 13; its stored scores are judged again"]
    assert log.read_text() == calls
    assert {row["code"] for row in read_table(folder, "rejected")} == {"short"}
    assert verify_run(folder).errors == []


def test_failures_are_tried_again_only_when_asked(tmp_path):
    log, texts = str(tmp_path / "log"), ["later on", "here and now"]
    the_flow = flow(most=9, log=log)
    run(tmp_path / "run", the_flow, texts=texts, count=6)
    assert verify_run(tmp_path / "run").failed == 3
    assert run_status(tmp_path / "run")["ended"]["retryable"] == 3
    Path(log + ".up").touch()
    run(tmp_path / "run", the_flow, texts=texts, count=6)
    assert verify_run(tmp_path / "run").failed == 3
    calls = Path(log).read_text()
    run(tmp_path / "run", the_flow, texts=texts, count=6, retry=True)
    assert verify_run(tmp_path / "run").failed == 0
    assert Path(log).read_text() == calls


@pytest.fixture(scope="module")
def cluster():
    """A local Ray, whose workers find the stages of the flow; starting it takes 10 to 30 seconds."""
    ray = pytest.importorskip("ray")
    here = {"env_vars": {"PYTHONPATH": str(TESTS)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    yield
    ray.shutdown()


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return make_engine(request.param, 2)


def test_every_engine_gives_the_same_bytes(tmp_path, engine):
    pooled = Flow((*flow().stages, Pooled()))
    run(tmp_path / "inline", pooled, InlineEngine())
    run(tmp_path / "other", pooled, engine)
    assert tables_digest(tmp_path / "inline") == tables_digest(tmp_path / "other")


def test_a_record_that_kills_its_worker_fails_alone(tmp_path, engine):
    run(tmp_path, flow(most=9), engine, texts=["kill it", "a red ball", "a blue ball"], count=6)
    verdict = verify_run(tmp_path)
    assert (verdict.errors, verdict.failed, verdict.kept) == ([], 2, 4)
    found = {(row["id"], row["code"], row["retryable"]) for row in read_table(tmp_path, "failed")}
    assert found == {("v000", "crash", False), ("v003", "crash", False)}


def test_a_process_that_dies_takes_only_the_shards_at_work_with_it(tmp_path, monkeypatch):
    alone = []
    isolate = ProcessEngine._isolate
    monkeypatch.setattr(ProcessEngine, "_isolate", lambda self, task: alone.append(task) or isolate(self, task))
    run(tmp_path, flow(most=99), ProcessEngine(2), texts=["kill it", *["a red ball"] * 99], count=60)
    verdict = verify_run(tmp_path)
    assert (verdict.errors, verdict.failed, verdict.kept) == ([], 1, 59)
    assert 1 <= len(alone) <= 2


def test_engines_by_name():
    assert make_engine("inline", 1).name == "inline" and make_engine("processes", 3).workers == 3
    with pytest.raises(ValueError, match="inline, processes, ray, got 'spark'"):
        make_engine("spark", 1)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        make_engine("processes", 0)


SCRIPT = """
    import sys, types
    light = types.ModuleType("gve")  # the model's package is not needed, and slow to import
    light.__path__ = []
    sys.modules["gve"] = light
    from pathlib import Path
    from synth_stages import Length, Popular, Words
    from gve.hub_datasets.vsynflow.engines import {engine}
    from gve.hub_datasets.vsynflow.flow import Flow
    from gve.hub_datasets.vsynflow.runner import run_flow
    slow = Flow((Length(4, pause=0.03), Popular(1), Words({log!r}, pause=0.01)))
    run_flow(Path({folder!r}), slow, {engine}())
"""


@pytest.mark.parametrize("engine", [InlineEngine, pytest.param(ProcessEngine, marks=pytest.mark.slow)])
def test_killed_at_any_instant_it_ends_in_the_same_bytes(tmp_path, engine):
    log = tmp_path / "calls"
    script = SCRIPT.format(engine=engine.__name__, log=str(log), folder=str(tmp_path / "run"))
    run(tmp_path / "whole", flow(), count=40)
    make_plan(tmp_path / "run", records(count=40), {"name": "test"}, shard_rows=5)
    environment, command = {**os.environ, "PYTHONPATH": str(TESTS)}, [sys.executable, "-c", textwrap.dedent(script)]
    draw, kills = random.Random(5), 0
    for attempt in range(5):
        process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE)
        last = attempt == 4
        while not last and process.poll() is None and not _started(tmp_path / "run", attempt):
            time.sleep(0.01)
        try:
            errors = process.communicate(timeout=None if last else draw.uniform(0, 0.25))[1]
            assert process.returncode == 0, errors.decode()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
    assert kills >= 2
    assert verify_run(tmp_path / "run").errors == []
    assert tables_digest(tmp_path / "run") == tables_digest(tmp_path / "whole")
    calls = Counter(log.read_text().split("\n"))
    assert sum(count - 1 for line, count in calls.items() if line) <= 2 * kills, "only calls in flight are repeated"


def _started(folder, attempt):
    """Whether the run has got further than the earlier attempts could."""
    return len(list((folder / "stages").rglob("*.parquet"))) > 3 * attempt


def test_two_runners_do_not_share_a_folder(tmp_path):
    make_plan(tmp_path, records(), {"name": "test"}, shard_rows=5)
    with only_runner(tmp_path), pytest.raises(ValueError, match="held by another runner"):
        run_flow(tmp_path, flow(), InlineEngine())
    run_flow(tmp_path, flow(), InlineEngine())


def test_an_empty_corpus(tmp_path):
    run(tmp_path, flow(), count=0)
    assert (verify_run(tmp_path).records, verify_run(tmp_path).errors) == (0, [])


def test_verify_sees_damage(tmp_path):
    run(tmp_path, flow())
    path = sorted((tmp_path / "kept").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert any("another hash" in error for error in verify_run(tmp_path).errors)
    sorted((tmp_path / "done").glob("*.json"))[1].unlink()
    assert any("not finished" in error for error in verify_run(tmp_path).errors)


def test_the_plan_belongs_to_its_corpus_and_ids_have_no_marks(tmp_path):
    make_plan(tmp_path, records(), {"name": "test"}, shard_rows=5)
    with pytest.raises(ValueError, match="shard_rows: 5 is now 6"):
        make_plan(tmp_path, records(), {"name": "test"}, shard_rows=6)
    with pytest.raises(ValueError, match=r"holds no plan\.json"):
        run_flow(tmp_path / "other", flow(), InlineEngine())
    with pytest.raises(ValueError, match="without '#'"):
        make_plan(tmp_path / "other", [record_of("x", "a#b")], {})


def test_a_flow_checks_its_stages():
    with pytest.raises(ValueError, match="'length' twice"):
        Flow((Length(), Length()))
