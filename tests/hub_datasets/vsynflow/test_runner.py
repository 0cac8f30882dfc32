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
from synth_stages import Length, flow, records, run, tables_digest

from gve.hub_datasets import files
from gve.hub_datasets.vsynflow.engines import InlineEngine, ProcessEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import only_runner, run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.status import read_table, run_status, verify_run


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


def test_a_second_run_computes_nothing(tmp_path):
    log = str(tmp_path / "log")
    run(tmp_path / "run", flow(log=log))
    before, calls = tables_digest(tmp_path / "run"), Path(log).read_text()
    report = run(tmp_path / "run", flow(log=log))
    assert report.skipped == 3
    assert Path(log).read_text() == calls
    assert tables_digest(tmp_path / "run") == before


def test_a_changed_limit_judges_stored_scores(tmp_path):
    log = str(tmp_path / "log")
    run(tmp_path / "run", flow(log=log))
    calls = Path(log).read_text()
    report = run(tmp_path / "run", flow(least=13, log=log))
    assert report.changes == ["stage length: least 4 is now 13; its stored scores are judged again"]
    assert Path(log).read_text() == calls
    assert {row["code"] for row in read_table(tmp_path / "run", "rejected")} == {"short"}
    assert verify_run(tmp_path / "run").errors == []


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


def test_processes_give_the_same_bytes(tmp_path):
    digests = set()
    for engine in (InlineEngine(), ProcessEngine(2)):
        run(tmp_path / engine.name, flow(), engine)
        digests.add(tables_digest(tmp_path / engine.name))
    assert len(digests) == 1


def test_a_record_that_kills_its_process_fails_alone(tmp_path):
    texts = ["kill it", "a red ball", "a blue ball"]
    run(tmp_path, flow(most=9), ProcessEngine(2), texts=texts, count=6)
    verdict = verify_run(tmp_path)
    assert (verdict.errors, verdict.failed, verdict.kept) == ([], 2, 4)
    assert {(row["id"], row["code"], row["retryable"]) for row in read_table(tmp_path, "failed")} == {
        ("v000", "crash", False),
        ("v003", "crash", False),
    }


SCRIPT = """
    import sys, types
    light = types.ModuleType("gve")  # the model's package is not needed, and slow to import
    light.__path__ = []
    sys.modules["gve"] = light
    from pathlib import Path
    from test_runner_flow import flow
    from gve.hub_datasets.vsynflow.engines import {engine}
    from gve.hub_datasets.vsynflow.runner import run_flow
    if __name__ == "__main__":
        run_flow(Path(sys.argv[1]), flow, {engine}())
"""
SLOW_FLOW = """
    import time
    from synth_stages import Length, Popular, Words
    from gve.hub_datasets.vsynflow.flow import Flow
    class Slow(Length):
        def run(self, records, context):
            time.sleep(0.03)
            return super().run(records, context)
    class SlowWords(Words):
        def _one(self, record, context):
            time.sleep(0.01)
            return super()._one(record, context)
    flow = Flow((Slow(4), Popular(1), SlowWords({log!r})))
"""


@pytest.mark.parametrize("engine", [InlineEngine, pytest.param(ProcessEngine, marks=pytest.mark.slow)])
def test_killed_at_any_instant_it_ends_in_the_same_bytes(tmp_path, engine):
    log = tmp_path / "calls"
    (tmp_path / "test_runner_flow.py").write_text(textwrap.dedent(SLOW_FLOW.format(log=str(log))))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(engine=engine.__name__)))
    run(tmp_path / "whole", flow(), count=60)
    make_plan(tmp_path / "run", records(count=60), {"name": "test"}, shard_rows=5)
    tests = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), tests)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "run")]
    draw, kills = random.Random(5), 0
    for attempt in range(6):
        process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE)
        last = attempt == 5
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


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, monkeypatch):
    commits, real = [], files.os.fsync

    def fsync(descriptor):
        commits.append(descriptor)
        if len(commits) == 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    make_plan(tmp_path / "run", records(), {"name": "test"}, shard_rows=5)
    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        run_flow(tmp_path / "run", flow(), InlineEngine())
    assert not list((tmp_path / "run").rglob("*.tmp"))
    run_flow(tmp_path / "run", flow(), InlineEngine())
    run(tmp_path / "whole", flow())
    assert tables_digest(tmp_path / "run") == tables_digest(tmp_path / "whole")


def test_an_empty_corpus(tmp_path):
    run(tmp_path, flow(), count=0)
    verdict = verify_run(tmp_path)
    assert (verdict.records, verdict.errors) == (0, [])


def test_verify_sees_damage(tmp_path):
    run(tmp_path, flow())
    path = sorted((tmp_path / "kept").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert any("another hash" in error for error in verify_run(tmp_path).errors)
    sorted((tmp_path / "done").glob("*.json"))[1].unlink()
    assert any("not finished" in error for error in verify_run(tmp_path).errors)


def test_the_plan_belongs_to_its_corpus(tmp_path):
    make_plan(tmp_path, records(), {"name": "test"}, shard_rows=5)
    with pytest.raises(ValueError, match="shard_rows: 5 is now 6"):
        make_plan(tmp_path, records(), {"name": "test"}, shard_rows=6)
    with pytest.raises(ValueError, match=r"holds no plan\.json"):
        run_flow(tmp_path / "other", flow(), InlineEngine())


def test_ids_are_unique_and_without_marks(tmp_path):
    with pytest.raises(ValueError, match="'v000' twice"):
        make_plan(tmp_path / "a", [*records(), *records()], {}, shard_rows=5)
    with pytest.raises(ValueError, match="without '#'"):
        make_plan(tmp_path / "b", [make_record("a#b", "x", "y", source="s", licence="l")], {}, shard_rows=5)


def test_a_flow_checks_its_stages():
    with pytest.raises(ValueError, match="'length' twice"):
        Flow((Length(), Length()))
