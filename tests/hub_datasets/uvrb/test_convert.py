import json
import multiprocessing
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
from datasets import load_dataset
from uvrb_archive import read_jsonl, write_archives, write_jsonl

from gve.hub_datasets.uvrb import SETS, load_set
from gve.hub_datasets.uvrb.convert import Leniency, convert
from gve.hub_datasets.uvrb.media import FrameSettings
from gve.hub_datasets.uvrb.uvrb_command import main
from gve.video_gve import read_video

ANY = Leniency(any_counts=True)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return write_archives(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def converted(archives, tmp_path_factory):
    target = tmp_path_factory.mktemp("converted")
    return target, convert(archives, target, leniency=ANY, workers=1, progress=False)


@pytest.fixture
def broken(archives, tmp_path):
    for name in ("MSRVTT", "MS-TI"):
        shutil.copytree(archives / name, tmp_path / "src" / name)
    return tmp_path / "src"


def run(source, **options):
    options = {"leniency": ANY, "workers": 1, "progress": False, "sets": ["msrvtt", "ms-ti"]} | options
    return convert(source, source.parent / "out", **options)


def jsonl_of(source, name):
    return source / name / "UVRB" / name


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_set_is_read_by_our_loader(archives, converted):
    target, report = converted
    assert report["complete"]
    for name, task in SETS.items():
        folder = jsonl_of(archives, name)
        data = load_set(target, name, "test")
        assert sorted(data.query_ids) == sorted(row["id"] for row in read_jsonl(folder, "queries"))
        assert sorted(data.corpus_ids) == sorted(row["id"] for row in read_jsonl(folder, "corpus"))
        wanted = {}
        for row in read_jsonl(folder, "instances"):
            wanted.setdefault(row["qid"], set()).update(row["pos"])
        for query, rows in zip(data.query_ids, data.positives, strict=True):
            assert {data.corpus_ids[row] for row in rows} == wanted[query], name
        assert (data.pools is not None) == (task.pool_size is not None)
        if data.pools is not None:
            assert {len(pool) for pool in data.pools} == {10}
        for key in ("queries", "corpus"):
            assert report["sets"][name][key]["stored"] == report["sets"][name][key]["found"]


def test_videos_are_the_sources_frames_and_are_stored_once(archives, converted):
    target, report = converted
    data = load_set(target, "VDC-O", "test")
    row = data.corpus[0]
    (source,) = jsonl_of(archives, "VDC-O").rglob(f"*-{row['id']}.mp4")
    stored, frames = read_video(row["video"]["bytes"], 8), read_video(source, 8)
    assert stored.timestamps == pytest.approx(frames.timestamps)
    assert np.abs(stored.frames.astype(int) - frames.frames).mean() < 10  # snow
    times = load_dataset(str(target), "vdc-o-times", split="test")
    assert times[0]["timestamps"] == pytest.approx(frames.timestamps)
    assert times[0]["duration"] == pytest.approx(frames.duration)
    distinct = {path.read_bytes() for path in archives.rglob("*.mp4") if not path.name.startswith("query-")}
    assert report["corpus_videos"] == len(distinct)


def test_load_dataset_and_mteb_read_every_configuration(converted):
    target, _ = converted
    everything = load_dataset(str(target), split="test")
    assert set(everything["set"]) == set(SETS)
    assert len(everything) == sum(entry["queries"]["stored"] for entry in converted[1]["sets"].values())
    one = load_dataset(str(target), "ms-ti", split="test")[0]
    assert one["instruction"] == SETS["MS-TI"].instruction and set(one["positives"]) < set(one["candidates"])
    assert one["image"].size == (48, 48)
    queries = load_dataset(str(target), "msrvtt-queries", split="test")
    assert queries.column_names == ["id", "text"]
    loaders = pytest.importorskip("mteb.abstasks.retrieval_dataset_loaders")
    for slug in ("msrvtt", "ms-tv"):
        split = loaders.RetrievalDatasetLoader(str(target), "main", split="test", config=slug).load()
        assert len(split["queries"]) == len(split["relevant_docs"])
        assert (split["top_ranked"] is not None) == (slug == "ms-tv")


def test_a_second_run_changes_nothing(archives, converted, monkeypatch):
    target, report = converted
    before = contents(target)
    monkeypatch.setattr("gve.hub_datasets.uvrb.shards.store_video", None)  # would fail if anything was read again
    assert convert(archives, target, leniency=ANY, workers=1, progress=False) == report
    assert contents(target) == before


def test_killed_at_any_moment_it_goes_on_in_two_processes_to_the_same_bytes(archives, converted, tmp_path):
    target, options = tmp_path / "killed", {"leniency": ANY, "progress": False}
    context = multiprocessing.get_context("fork")
    for files in (2, 6, 10):
        process = context.Process(target=convert, args=(archives, target), kwargs=options | {"workers": 1})
        process.start()
        for _ in range(3000):
            if not process.is_alive() or len(list(target.rglob("*.parquet"))) >= files:
                break
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    (target / "msrvtt-queries").mkdir(exist_ok=True)
    (target / "msrvtt-queries" / "00000-0.parquet.7.tmp").write_bytes(b"half")
    convert(archives, target, workers=2, **options)
    assert contents(target) == contents(converted[0])


def edit(source, name, table, change):
    folder = jsonl_of(source, name)
    rows = read_jsonl(folder, table)
    change(rows)
    write_jsonl(folder, table, rows)


DAMAGES = {
    "MSRVTT: corpus.jsonl, line 5: id 'c000' appears more than once": lambda rows: rows.append(rows[0]),
    "MSRVTT: queries.jsonl, line 5: id 'q000' appears more than once": lambda rows: rows.append(rows[0]),
    "MSRVTT: instances.jsonl, line 2: unknown corpus id 'nothing'": lambda rows: rows[1].update(pos=["nothing"]),
    "MSRVTT: instances.jsonl, line 2: unknown query 'nobody'": lambda rows: rows[1].update(qid="nobody"),
    "MSRVTT: instances.jsonl: query 'q000' has no positive": lambda rows: rows.pop(0),
    "MSRVTT: queries.jsonl, line 3: text '  ' of query 'q002'": lambda rows: rows[2].update(text="  "),
    "MSRVTT: queries.jsonl, line 3: not JSON (NaN is not JSON)": lambda rows: rows[2].update(text=float("nan")),
    "MSRVTT: corpus.jsonl, line 1: video None": lambda rows: rows[0].update(video=None),
    "MS-TI: instances.jsonl: 3 of 3 queries have no candidates": lambda rows: [row.pop("neg") for row in rows],
}


@pytest.mark.parametrize("message", DAMAGES)
def test_what_is_wrong_in_the_jsonl_stops_it(broken, message):
    name, table = message.partition(".jsonl")[0].split(": ")
    edit(broken, name, table, DAMAGES[message])
    with pytest.raises(ValueError, match=re.escape(message)):
        run(broken)
    report = json.loads((broken.parent / "out" / "report.json").read_text())
    assert not report["complete"] and name in {problem["set"] for problem in report["problems"]}
    assert not list((broken.parent / "out").rglob("*.parquet"))


def test_broken_lines_are_named_and_all_are_reported(broken, capsys):
    path = jsonl_of(broken, "MSRVTT") / "jsonl" / "queries.jsonl"
    path.write_text(path.read_text() + '{"id": "q9", "text": \n[1]\n\n')
    edit(broken, "MS-TI", "corpus", lambda rows: rows.append(rows[0]))
    arguments = ["convert", str(broken), str(broken.parent / "out"), "--sets", "msrvtt", "ms-ti", "--quiet"]
    assert main([*arguments, "--any-counts"]) == 2
    assert "queries.jsonl, line 5: not JSON" in capsys.readouterr().err
    text = (broken.parent / "out" / "report.txt").read_text()
    assert "MSRVTT: queries.jsonl, line 6: got list; one object a line is needed" in text
    assert "MS-TI: corpus.jsonl, line 31: id" in text


def test_counts_and_absent_sets(broken, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"MSRVTT: queries.jsonl: 4 rows; the paper has 1000"):
        run(broken, leniency=Leniency())
    edit(broken, "MS-TI", "instances", lambda rows: rows[0]["neg"].pop())
    text = run(broken)["problems"]
    assert any("1 pools of another size than 10" in problem["what"] for problem in text)
    with pytest.raises(ValueError, match=r"DiDeMo: .*no folder DiDeMo/UVRB/DiDeMo/jsonl"):
        run(broken, sets=["didemo"])
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "SRC must be the folder" in capsys.readouterr().err


def test_pools_may_be_written_in_other_ways_or_left_out(broken):
    whole = run(broken, sets=["ms-ti"])
    assert whole["sets"]["MS-TI"]["pools"]

    def as_candidates(rows):
        for row in rows:
            row["candidates"] = [{"id": one} for one in sorted([*row.pop("neg"), *row["pos"]])]

    edit(broken, "MS-TI", "instances", as_candidates)
    pools = broken.parent / "out" / "ms-ti-top_ranked" / "test.parquet"
    before = pools.read_bytes()
    run(broken, sets=["ms-ti"])
    assert pools.read_bytes() == before

    edit(broken, "MS-TI", "instances", lambda rows: [row.pop("candidates") for row in rows])
    report = run(broken, sets=["ms-ti"], leniency=Leniency(any_counts=True, without_pools=True))
    assert report["sets"]["MS-TI"]["pools"] is False
    with pytest.raises(ValueError, match="ms-ti-top_ranked"):
        load_set(broken.parent / "out", "ms-ti", "test")


def test_a_missing_video_stops_it_or_is_left_out(broken):
    next(iter(sorted((jsonl_of(broken, "MSRVTT") / "videos").iterdir()))).unlink()
    with pytest.raises(ValueError, match=r"MSRVTT: corpus.jsonl, line 1: video .*c000.mp4' of 'c000' is missing"):
        run(broken)
    report = run(broken, leniency=Leniency(any_counts=True, allow_missing=True))
    entry = report["sets"]["MSRVTT"]
    assert (entry["corpus"]["found"], entry["corpus"]["stored"], entry["queries"]["stored"]) == (4, 3, 3)
    data = load_set(broken.parent / "out", "msrvtt", "test")
    assert "c000" not in data.corpus_ids and len(data.query_ids) == 3


def test_a_corrupt_video_costs_its_set_until_it_is_repaired(broken):
    path = jsonl_of(broken, "MSRVTT") / "videos" / "msrvtt-c001.mp4"
    whole = path.read_bytes()
    path.write_bytes(b"corrupt" * 40)
    report = run(broken)
    assert not report["complete"]
    assert (report["sets"]["MSRVTT"]["published"], report["sets"]["MS-TI"]["published"]) == (False, True)
    (problem,) = [problem for problem in report["problems"] if problem["kind"] == "media"]
    assert problem["where"] == "corpus 'c001'" and "msrvtt-c001.mp4" in problem["what"]
    with pytest.raises(ValueError, match="msrvtt-corpus"):
        load_set(broken.parent / "out", "msrvtt", "test")
    assert run(broken, leniency=Leniency(any_counts=True, allow_missing=True))["complete"]
    assert len(load_set(broken.parent / "out", "msrvtt", "test").corpus) == 3
    path.write_bytes(whole)
    assert run(broken)["complete"] and len(load_set(broken.parent / "out", "msrvtt", "test").corpus) == 4
    assert not list((broken.parent / "out").rglob("*.broken.json"))


def test_other_settings_replace_what_was_there(broken):
    run(broken, sets=["msrvtt"])
    report = run(broken, sets=["msrvtt"], settings=FrameSettings(frames=4, format="webp"))
    assert report["settings"]["frames"] == 4
    (file,) = (broken.parent / "out" / "msrvtt-corpus").iterdir()
    assert file.suffix == ".parquet"
    row = load_set(broken.parent / "out", "msrvtt", "test").corpus[0]
    assert row["video"]["path"].endswith(".webp")
    with pytest.raises(ValueError, match="got 0"):
        run(broken, workers=0)
