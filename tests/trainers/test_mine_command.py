"""`gve mine` on a small rendered world: negatives that are hard and never true, whole after a kill, ready to train on."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from sentence_transformers import SentenceTransformer
from short_runs import arguments
from uvrb_folder import clip_bytes, make_tables, write_uvrb

from gve import build_tiny, save_embedder
from gve.hub_datasets.schema import media
from gve.hub_datasets.uvrb import instructions
from gve.hub_datasets.world.build import build_world
from gve.trainers import GVETrainer
from gve.trainers import mine_command as mine
from gve.trainers.encoders import OutsideEncoder
from gve.trainers.mining.mined import HEADER
from gve.trainers.mining.targets import TargetTable, load_corpus
from gve.trainers.resume.guard import changes, run_facts
from gve.trainers.rows import target_digest
from gve.trainers.train_command import load_tasks

ROWS = {"t2v": 24, "t2t": 40}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build_world(folder, pairs=ROWS, sets=False, raw=0, workers=1, progress=False)
    return folder / "uvrd"


@pytest.fixture(scope="module")
def prober(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("prober")
    small = {"vision_depth": 1, "vision_hidden": 32, "text_layers": 1, "text_hidden": 64}
    model = build_tiny(["a red circle moves left"], frame_size=32, num_frames=2, vocab_size=320, **small)
    save_embedder(folder, *model, prompts=instructions())
    return folder


@pytest.fixture(scope="module")
def command(world, prober):
    def run(out, *more, data=world):
        words = ["--model", prober, "--data", data, "--out", out, "--ceiling", "none", *more]
        return mine.main([str(word) for word in words])

    return run


@pytest.fixture(scope="module")
def mined(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("mined")
    assert command(out, "--negatives", "t2v=2", "t2t=3") == 0
    (version,) = out.glob("mined-*")
    return out, version


def contents(folder):
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tmp")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def said(capsys):
    return json.loads(capsys.readouterr().out)


def test_negatives_are_harder_than_others_and_never_true(mined, world):
    _, version = mined
    header = json.loads((version / HEADER).read_text())
    assert version.name == f"mined-{header['version']}" and header["epoch"] is None
    for task, count in (("t2v", 2), ("t2t", 3)):
        rows = {row["id"]: row for row in load_dataset(str(world), task, split="train")}
        table = pq.read_table(version / f"{task}.parquet").to_pylist()
        assert [row["id"] for row in table] == list(rows) and header["tasks"][task]["rows"] == ROWS[task]
        for row in table:
            own = rows[row["id"]]
            assert len(set(row["negatives"])) == count and row["scores"] == sorted(row["scores"], reverse=True)
            stated = set(own["query_facts"])
            for name in row["negatives"]:
                assert not (stated and stated <= set(rows[name]["target_facts"]))
                assert target_digest(rows[name]["target"]) != target_digest(own["target"])
        facts = header["tasks"][task]
        assert facts["mean_negative"] == pytest.approx(np.mean([row["scores"] for row in table]), abs=1e-5)


def test_other_settings_embed_nothing_again_and_random_ones_are_further(command, mined, tmp_path, monkeypatch):
    shutil.copytree(mined[0], tmp_path / "out")
    monkeypatch.setattr(SentenceTransformer, "encode", lambda *a, **k: pytest.fail("embedded again"))
    flags = "--negatives 2 --tasks t2v --max-rank 1 --short fill --sample random"
    assert command(tmp_path / "out", *flags.split()) == 0
    (other,) = (path for path in (tmp_path / "out").glob("mined-*") if path.name != mined[1].name)
    table = pq.read_table(other / "t2v.parquet").to_pylist()
    drawn = [score for row in table for score, rank in zip(row["scores"], row["ranks"], strict=True) if not rank]
    facts = json.loads((mined[1] / HEADER).read_text())["tasks"]["t2v"]
    assert len(drawn) == ROWS["t2v"] and facts["mean_negative"] > np.mean(drawn) + 0.01


def killed_at(event, command, out):
    """Run the command in a process that is killed, as by kill -9, at one of its writes; whether it was."""
    child = os.fork()
    if not child:
        events, rename = itertools.count(), Path.replace

        def watched(path, target):
            if next(events) == event:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(path, target)

        Path.replace = watched
        try:
            command(out, "--negatives", "t2v=2", "t2t=3")
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_and_run_again_it_ends_in_the_same_bytes(command, mined, tmp_path, capsys, monkeypatch):
    whole, _ = mined
    for event in (1, 2, 4, 1):  # a few writes more each time; the vectors of before stay
        assert killed_at(event, command, tmp_path)
        assert contents(tmp_path).items() <= contents(whole).items()
    counted = []
    encode = OutsideEncoder._encode
    monkeypatch.setattr(OutsideEncoder, "_encode", lambda self, *a: counted.append(1) or encode(self, *a))
    assert command(tmp_path, "--negatives", "t2v=2", "t2t=3") == 0
    assert contents(tmp_path) == contents(whole) and counted
    counted.clear()
    capsys.readouterr()
    assert command(tmp_path, "--negatives", "t2v=2", "t2t=3") == 0
    assert not counted and said(capsys)["tasks"]["t2v"]["rows"] == ROWS["t2v"]


def test_training_takes_them(mined, prober, world, tmp_path, command):
    tasks = load_tasks(str(world))

    def trainer(**changes):
        args = arguments(tmp_path / "run", **{"max_steps": 2, "num_negatives": 2, "schedule": "uniform"} | changes)
        return GVETrainer(SentenceTransformer(str(prober), device="cpu"), args, tasks)

    given = trainer(mined_negatives=str(mined[1]))
    given.train()
    assert not (tmp_path / "run" / "mined").exists()
    assert f"mined-{given.mining.versions[0]:016x}" == mined[1].name
    epochs = {"max_steps": -1, "num_train_epochs": 2, "steps_per_epoch": 1, "remine_every_epoch": True}
    both = trainer(mined_negatives=str(mined[1]), **epochs)
    both.train()
    assert both.mining.versions[0] == given.mining.versions[0] != both.mining.versions[1]
    with pytest.raises(ValueError, match=r"num_negatives: got 4 for t2t; .* holds 3 a row"):
        trainer(mined_negatives=str(mined[1]), num_negatives=4)
    with pytest.raises(ValueError, match=r"without a readable mined\.json"):
        trainer(mined_negatives=str(tmp_path))
    fewer = {task: rows.select(range(20)) for task, rows in tasks.items()}
    with pytest.raises(ValueError, match="of other rows of t2t"):
        GVETrainer(given.model, given.args, fewer)
    assert command(tmp_path / "short", "--tasks", "t2v", "--negatives", "2", "--max-rank", "1") == 0
    (short,) = (tmp_path / "short").glob("mined-*")
    elsewhere = shutil.copytree(mined[1], tmp_path / "elsewhere" / mined[1].name)
    facts = [
        run_facts(dataclasses.replace(given.args, mined_negatives=str(folder)), {}, given.model)
        for folder in (mined[1], elsewhere, short)
    ]
    assert changes(facts[0], facts[1]) == []
    assert changes(facts[0], facts[2]) == [f"mined_negatives: {mined[1].name[6:]} -> {short.name[6:]}"]
    with pytest.raises(ValueError, match=r"got 2 for row 't2v-\d+' of t2v, for which fewer were mined"):
        trainer(mined_negatives=str(short), num_negatives={"t2v": 2}, task_priors={"t2t": 0}).train()
    with pytest.raises(ValueError, match="without t2t; every task with num_negatives is needed"):
        trainer(mined_negatives=str(short))


def test_a_corpus_of_another_uvrd(command, world, prober, tmp_path, capsys):
    build_world(tmp_path / "more", pairs={"t2v": 12}, sets=False, raw=0, seed=5, workers=1, progress=False)
    corpus = tmp_path / "more" / "uvrd"
    assert command(tmp_path / "out", "--tasks", "t2v", "--negatives", "8", "--corpus", corpus) == 0
    version = Path(said(capsys)["out"])
    header = json.loads((version / HEADER).read_text())
    assert header["corpus"] == str(corpus) and header["tasks"]["t2v"]["targets"] > 12
    rows = pq.read_table(version / "t2v.parquet").to_pylist()
    more = {row["id"]: row for row in load_dataset(str(corpus), "t2v", split="train")}
    own = {row["id"]: row for row in load_dataset(str(world), "t2v", split="train")}
    assert any(any(row["outside"]) for row in rows)
    for row in rows:
        for negative in itertools.compress(row["negatives"], row["outside"]):
            assert not set(own[row["id"]]["query_facts"]) <= set(more[negative]["target_facts"])
    args = arguments(tmp_path / "run", mined_negatives=str(version), num_negatives=8, max_steps=1)
    GVETrainer(SentenceTransformer(str(prober), device="cpu"), args, load_tasks(str(world), ["t2v"])).train()


def test_a_corpus_of_a_benchmark(world, tmp_path):
    write_uvrb(tmp_path, {name: make_tables(name) for name in ("MSRVTT", "DiDeMo")})
    rows = load_tasks(str(world))
    found = load_corpus(str(tmp_path), "t2v", rows["t2v"])
    assert found["id"][0] == "msrvtt-corpus/unseen/c0" and found["id"][12] == "didemo-corpus/unseen/c0"
    assert found[1] == {"id": found["id"][1], "target": media(video=clip_bytes(1))}
    assert len(TargetTable("t2v", rows["t2v"], found)) == len(TargetTable("t2v", rows["t2v"])) + 12
    with pytest.raises(ValueError, match="which holds no targets of text for t2t"):
        load_corpus(str(tmp_path), "t2t", rows["t2t"])


def test_the_command_refuses(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mine, "find_spec", lambda name: None)
    for words, message in (
        ("--tasks x2v", "tasks: got x2v"),
        ("--negatives x2v=1", "--negatives: got 'x2v=1'"),
        ("--negatives i2v=1", "--negatives: got 'i2v'; t2t, t2v are mined"),
        ("--negatives t2v=0", "--negatives: got none for any task"),
        ("--batch-size 0", "--batch-size: 0"),
        ("--tasks t2v --ceiling 0.0001 --margin 2", "no row of t2v got a negative"),
        ("--index faiss", "pip install 'gve[faiss]'"),
    ):
        assert command(tmp_path / "out", *words.split()) == 2
        assert message in capsys.readouterr().err
