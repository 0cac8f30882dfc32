"""The whole demo at toy size: every stage for real, killed once, interrupted once, and taken up again."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sentence_transformers import SentenceTransformer

from gve.eval.search_command import main as search
from gve.eval.store import load_embeddings
from gve.hub_datasets.world.sets import Sizes
from gve.trainers.demo import stages
from gve.trainers.demo.demo_command import run
from gve.trainers.demo.learning import EPOCHS
from gve.trainers.demo.queries import QUERY_SETS
from gve.trainers.demo.workspace import DemoSize, open_workspace, pairs_for, size_for

TOY = DemoSize(
    pairs={"t2v": 360, "t2t": 80, "t2i": 80, "ti2v": 80, "tv2v": 80, "i2v": 80, "v2v": 80},
    sizes=Sizes(base=12, groups=3, programs=6, themes=8, longs=8, composed=6),
    raw=30,
    least_training=5.0,
    seconds={"train": 5.0},
)


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_demo import TOY
from gve.trainers.demo.demo_command import run
from gve.trainers.demo.workspace import open_workspace

if __name__ == "__main__":
    run(open_workspace(Path(sys.argv[1]), minutes=0.001, seed=0, resume=False), TOY)
"""


def kill_in_training(root, script):
    """Start a demo in another process and kill it, without warning, once the first checkpoint is there."""
    script.write_text(KILLED)
    with (script.parent / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, str(script), str(root), str(Path(__file__).parent)], stdout=output, stderr=output
        )
        try:
            for _ in range(3000):
                if list(root.glob("training/checkpoints/checkpoint-*/trainer_state.json")):
                    return
                assert process.poll() is None, output.seek(0) or output.read()[-3000:]
                time.sleep(0.1)
            pytest.fail("no checkpoint in five minutes")
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo that was killed in training, interrupted before it was scored, then finished; with the lines it wrote."""
    folder, lines = tmp_path_factory.mktemp("demo"), []
    root = folder / "toy"
    kill_in_training(root, folder / "killed.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stages.STAGES, "score", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(open_workspace(root, minutes=0.001, seed=0, resume=True, write=lines.append), TOY)
    weights = (root / "model" / "model.safetensors").read_bytes()
    run(open_workspace(root, minutes=0.001, seed=0, resume=True, write=lines.append), TOY)
    assert (root / "model" / "model.safetensors").read_bytes() == weights
    return root, lines


def _interrupt(workspace, size, seconds):
    raise KeyboardInterrupt


def test_training_went_on_from_its_checkpoint(finished):
    root, lines = finished
    (line,) = (line for line in lines if "continuing from checkpoint-" in line)
    facts = json.loads((root / "demo.json").read_text())["facts"]
    assert 0 < int(line.rpartition("-")[2]) < facts["steps"] == facts["steps_per_epoch"] * EPOCHS
    assert any(line.startswith("[train] done before") for line in lines)
    assert not any(line.startswith("[score] done before") for line in lines)


def test_report_has_all_sets_with_chance_and_count(finished):
    root, _ = finished
    report = json.loads((root / "report.json").read_text())
    assert len(report["sets"]) == 16
    for entry in report["sets"].values():
        assert 0 <= entry["score"] <= 1
        assert 0 < entry["chance"] < 1
        assert entry["num_queries"] >= 3
    text = (root / "report.md").read_text()
    assert all(name in text for name in report["sets"])


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


def test_pictures_are_there(finished):
    root, _ = finished
    names = ["radar.png", "curriculum.png", *(f"queries/{name.replace('+', '-')}.png" for name in QUERY_SETS)]
    for name in names:
        with PIL.Image.open(root / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_queries_name_their_right_answers(finished):
    root, _ = finished
    results = json.loads((root / "queries" / "queries.json").read_text())
    corpus = len(list((root / "data" / "uvrb" / "videos").glob("*.mp4")))
    assert [result["query"] for result in results] == list(QUERY_SETS)
    for result in results:
        assert 1 <= result["first_right"] <= corpus
        assert any(hit["right"] for hit in result["hits"]) == (result["first_right"] <= len(result["hits"]))


def test_curriculum_is_a_distribution_over_sources(finished):
    root, _ = finished
    history = json.loads((root / "curriculum.json").read_text())
    assert len(history) == EPOCHS
    for epoch in history.values():
        assert epoch["probabilities"]["t2v-spatial-twins"] > 0
        assert sum(epoch["probabilities"].values()) == pytest.approx(1)
    first = history["0"]["probabilities"]
    assert first["t2v-spatial-twins"] == pytest.approx(first["t2t"])  # nothing has moved yet
    assert first["t2t"] > first["t2t-synflow"] > 0
    assert {"t2t", "t2i", "v2v", "t2v-spatial", "t2v-spatial-twins"} <= set(history["1"]["scores"])


def test_the_report_tells_what_became_of_the_raw_corpus(finished):
    root, _ = finished
    found = json.loads((root / "report.json").read_text())["synflow"]
    assert found["records"] == 30 == found["kept"] + sum((found["rejected"] | found["failed"]).values())
    assert found["gate"].keys() == {"id", "frames", "text", "video", "paraphrase"}
    assert all(rows >= 16 for rows in found["rows"].values())
    assert f"{found['kept']} were kept" in (root / "report.md").read_text()
    last = json.loads((root / "curriculum.json").read_text())[str(EPOCHS - 1)]["probabilities"]
    assert all(0 < last[f"{task}-synflow"] < 0.2 for task in found["rows"])
    assert not [p for p in root.rglob("*") if p.suffix in (".part", ".tmp")]


def test_size_grows_with_the_minutes():
    few, many = pairs_for(1), pairs_for(30)
    assert all(count % 4 == 0 and many[task] > count for task, count in few.items())
    assert sum(size_for(15).seconds.values()) == pytest.approx(15 * 60)
