"""The whole demo at toy size: every stage for real, interrupted twice, and taken up again."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from sentence_transformers import SentenceTransformer

from gve.eval.search_command import main as search
from gve.eval.store import load_embeddings
from gve.hub_datasets.world.sets import Sizes, build_sets
from gve.trainers.demo import demo_command, learning, stages, workspace
from gve.trainers.demo.demo_command import peak_memory, run
from gve.trainers.demo.pace import Deadline
from gve.trainers.demo.queries import QUERY_SETS, choose_queries, corpus_clips
from gve.trainers.demo.workspace import DemoSize, open_workspace, pairs_for, size_for

TOY = DemoSize(
    pairs={"t2v": 200, "t2t": 48, "t2i": 48, "ti2v": 24, "tv2v": 24, "i2v": 24, "v2v": 24},
    sizes=Sizes(base=8, groups=3, programs=6, themes=8, longs=4, composed=4),
    raw=30,
    least_training=1.0,
    seconds={"train": 1.0},
)
EPOCHS = 3
RESOURCE = {"RUSAGE_SELF": 0, "RUSAGE_CHILDREN": -1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo that was interrupted in training and before it was scored, then finished; with the lines it wrote."""
    root, lines = tmp_path_factory.mktemp("demo") / "toy", []

    def interrupt(*args, **kwargs):
        if list(root.glob("training/checkpoints/checkpoint-*/trainer_state.json")):
            raise KeyboardInterrupt

    def go_on(**options):
        run(open_workspace(root, minutes=0.001, seed=0, write=lines.append, **options), TOY)

    with pytest.MonkeyPatch.context() as small:
        for name, value in {"BATCH": 16, "EPOCHS": EPOCHS, "EPOCH_STEPS": 5, "LEAST_STEPS": 15}.items():
            small.setattr(learning, name, value)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Deadline, "on_step_end", interrupt)
            go_on(resume=False)
        assert "train" not in json.loads((root / "demo.json").read_text())["stages"]
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setitem(stages.STAGES, "score", interrupt)
            go_on(resume=True)
        weights = (root / "model" / "model.safetensors").read_bytes()
        go_on(resume=True)
    assert (root / "model" / "model.safetensors").read_bytes() == weights
    return root, lines


def test_training_went_on_from_its_checkpoint(finished):
    root, lines = finished
    (line,) = (line for line in lines if "continuing from checkpoint-" in line)
    facts = json.loads((root / "demo.json").read_text())["facts"]
    assert 0 < int(line.rpartition("-")[2]) < facts["steps"] == facts["steps_per_epoch"] * EPOCHS
    assert any(line.startswith("[train] done before") for line in lines)
    assert not any(line.startswith("[score] done before") for line in lines)


def test_report_has_all_sets_with_chance_and_count_and_what_became_of_the_raw_corpus(finished):
    root, _ = finished
    report, text = json.loads((root / "report.json").read_text()), (root / "report.md").read_text()
    assert len(report["sets"]) == 16
    for name, entry in report["sets"].items():
        assert 0 <= entry["score"] <= 1 and 0 < entry["chance"] < 1 and entry["num_queries"] >= 3
        assert name in text
    moments = report["moments"]
    assert (moments["window"], moments["stride"], moments["videos"]) == (6.0, 3.0, TOY.sizes.longs // 2)
    assert all(0 < one["metrics"]["R1@0.3"]["chance"] < 1 for one in moments["sets"].values())
    assert "| text-image | R1@0.5 |" in text and len(moments["sets"]) == 2
    found = report["synflow"]
    assert found["records"] == TOY.raw == found["kept"] + sum((found["rejected"] | found["failed"]).values())
    assert found["gate"].keys() == {"id", "frames", "text", "video", "paraphrase"}
    assert all(rows >= 16 for rows in found["rows"].values())
    assert f"{found['kept']} were kept" in text
    assert not [p for p in root.rglob("*") if p.suffix in (".part", ".tmp")]


def test_curriculum_is_a_distribution_over_sources(finished):
    root, _ = finished
    history = json.loads((root / "curriculum.json").read_text())
    assert len(history) == EPOCHS
    for epoch in history.values():
        assert epoch["probabilities"]["t2v-spatial-twins"] > 0
        assert sum(epoch["probabilities"].values()) == pytest.approx(1)
    first, last = (history[str(epoch)]["probabilities"] for epoch in (0, EPOCHS - 1))
    assert first["t2v-spatial-twins"] == pytest.approx(first["t2t"])  # nothing has moved yet
    assert first["t2t"] > first["t2t-synflow"] > 0
    assert {"t2t", "t2i", "v2v", "t2v-spatial", "t2v-spatial-twins"} <= set(history["1"]["scores"])
    rows = json.loads((root / "report.json").read_text())["synflow"]["rows"]
    assert all(0 < last[f"{task}-synflow"] < 0.2 for task in rows)


def test_saved_model_embeds_a_file_of_the_demo_and_searches(finished, capsys):
    root, _ = finished
    files = sorted((root / "data" / "uvrb" / "videos").glob("*.mp4"))
    vectors = SentenceTransformer(str(root / "model")).encode([str(files[0]), {"text": "a red ring"}])
    known = load_embeddings(root / "corpus.safetensors")
    assert len(known.paths) == len(files)
    assert np.abs(vectors[0] - known.vectors[known.paths.index(str(files[0]))]).max() < 1e-5
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    capsys.readouterr()  # the command that the summary suggests
    flags = ["--top", "3", "--json"]
    assert search(["--model", str(root / "model"), str(root / "corpus.safetensors"), "a red ring", *flags]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 3


def test_pictures_are_there_and_queries_name_their_right_answers(finished):
    root, _ = finished
    for name in ["radar", "curriculum", *(f"queries/{name.replace('+', '-')}" for name in QUERY_SETS)]:
        with PIL.Image.open(root / f"{name}.png") as picture:
            assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 24)) > 20
    results = json.loads((root / "queries" / "queries.json").read_text())
    assert [result["query"] for result in results] == list(QUERY_SETS)
    for result in results:
        assert 1 <= result["first_right"] <= len(list((root / "data" / "uvrb" / "videos").glob("*.mp4")))
        assert any(hit["right"] for hit in result["hits"]) == (result["first_right"] <= len(result["hits"]))


def test_queries_are_answered_by_files_of_the_corpus(finished):
    root, _ = finished
    space = open_workspace(root, minutes=15, seed=0, resume=True, write=str)
    clips = corpus_clips(build_sets("unseen", 0, TOY.sizes))
    assert set(clips) == {path.stem for path in (root / "data" / "uvrb" / "videos").glob("*.mp4")}
    queries = {query.name: query for query in choose_queries(space, TOY.sizes)}
    assert all(query.right <= set(clips) for query in queries.values())
    assert all(len(queries[name].right) == 1 for name in ("image", "video"))


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_peak_memory_is_in_bytes_on_every_system(monkeypatch, system):
    """Each tells it in its own unit, and Windows by another call."""
    most = {"linux": 3 << 20, "darwin": 3 << 30, "win32": None}[system]
    monkeypatch.setitem(sys.modules, "resource", most and SimpleNamespace(**RESOURCE, getrusage=lambda who: usage))
    usage = SimpleNamespace(ru_maxrss=most)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=3 << 30))
    monkeypatch.setattr(demo_command, "psutil", SimpleNamespace(Process=lambda: process))
    monkeypatch.setattr(sys, "platform", system)
    assert peak_memory() == 3 << 30


def test_size_grows_with_the_minutes(monkeypatch):
    monkeypatch.setattr(workspace, "_clip_seconds", lambda: 0.01)  # a busy machine may have no time left to train
    few, many = pairs_for(1), pairs_for(30)
    assert all(count % 4 == 0 and many[task] > count for task, count in few.items())
    assert sum(size_for(15).seconds.values()) == pytest.approx(15 * 60)


def test_a_slow_machine_is_told_how_long_the_lessons_of_the_model_that_ships_take():
    four_times_more = 4 * 500 / stages.PRETRAINING_SHARE / 60
    assert stages.minutes_missing(340, 500.0) == pytest.approx(four_times_more), "a fifth of the lessons"
    assert stages.minutes_missing(2000, 500.0) == 0


def test_a_short_demo_trains_most_of_its_time_and_has_fewer_epochs_since_each_begins_with_a_probe(monkeypatch):
    assert [learning.epochs_for(steps) for steps in (30, 120, 160, 700)] == [2, 2, 3, 5]
    monkeypatch.setattr(workspace, "_clip_seconds", lambda: 0.0043)
    assert size_for(5).seconds["train"] > 0.7 * 5 * 60
