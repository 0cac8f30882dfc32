"""What a resumed run must have in common with the one it continues, and checkpoints that are whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from sentence_transformers import SentenceTransformer
from short_runs import arguments as settings
from transformers import TrainerCallback

from gve.trainers import GVETrainer
from gve.trainers.resume.checkpoints import STAGE, find_checkpoint
from gve.trainers.resume.guard import RUN_FILE, changes, rows_digest, run_facts


def arguments(folder, **changed):
    options = {"max_steps": 4, "num_negatives": 0, "save_strategy": "steps", "save_steps": 2, "schedule": "uniform"}
    return settings(folder, **{"logging_steps": 500} | options | changed)


@pytest.fixture(scope="module")
def texts(tasks):
    return DatasetDict({"t2t": tasks["t2t"]})


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, embedder_folder, texts):
    folder = tmp_path_factory.mktemp("begun")
    GVETrainer(SentenceTransformer(str(embedder_folder), device="cpu"), arguments(folder), texts).train()
    return folder


@pytest.fixture
def begun(first_run, tmp_path):
    """A run of four steps with two checkpoints."""
    return Path(shutil.copytree(first_run, tmp_path / "run"))


def resume(load, sets, folder, **changed):
    trainer = GVETrainer(load(), arguments(folder, **changed), sets)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    return trainer


def test_other_settings_are_named_and_refused_unless_forced_or_without_effect(begun, load, texts, caplog):
    trainer = resume(load, texts, begun, logging_steps=1, dataloader_num_workers=1, save_total_limit=3)
    assert trainer.state.global_step == 4
    message = "checkpoint-2 of a run with other facts: learning_rate: 0.001 -> 0.002; temperature: 0.03 -> 0.1; only"
    with pytest.raises(ValueError, match=message):
        resume(load, texts, begun, learning_rate=2e-3, temperature=0.1)
    trainer = resume(load, texts, begun, learning_rate=2e-3, temperature=0.1, resume_force=True)
    assert trainer.state.global_step == 4
    assert "resume_force: got checkpoint-2" in caplog.text
    (begun / "checkpoint-2" / RUN_FILE).unlink()
    with pytest.raises(ValueError, match=r"which has no run\.json"):
        resume(load, texts, begun)


def test_other_data_and_weights_are_named_and_refused(begun, load, texts):
    for places, message in (
        (range(11), "task t2t: 12 rows -> 11 rows"),
        ([1, 0, *range(2, 12)], "task t2t: 12 rows with other contents or in another order"),
    ):
        with pytest.raises(ValueError, match=message):
            resume(load, DatasetDict({"t2t": texts["t2t"].select(places)}), begun)
    model = load()
    model[0].model.visual.requires_grad_(False)
    with pytest.raises(ValueError, match=r"weights, trained: \d+ -> \d+"):
        resume(lambda: model, texts, begun)


def test_every_tensor_is_restored_and_wrong_shards_are_refused(begun, load, texts):
    """The stock trainer restores 1 of 69 tensors of a Qwen2.5-VL whose names it converts on the way."""
    folder = begun / "sharded"
    model = load(begun / "checkpoint-4")
    model[0].model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    for source in (begun / "checkpoint-4", folder):
        trainer = GVETrainer(load(), arguments(begun), texts)
        with torch.no_grad():
            for value in trainer.model.state_dict().values():
                value.add_(1)
        trainer._load_from_checkpoint(str(source))
        got, expected = trainer.model.state_dict(), model.state_dict()
        assert len(got) == len(expected) == 44
        assert all(torch.equal(got[name], value) for name, value in expected.items())
    index = folder / "model.safetensors.index.json"
    held = json.loads(index.read_text())
    first = next(iter(held["weight_map"].values()))
    held["weight_map"] = {name: file for name, file in held["weight_map"].items() if file != first}
    index.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"without \d+ of the model's tensors"):
        trainer._load_from_checkpoint(str(folder))


class SaveBest(TrainerCallback):
    """Calls the second step the best one, as an evaluation would."""

    def on_step_end(self, args, state, control, **kwargs):
        state.best_global_step = 2 if state.global_step >= 2 else None


def test_a_limit_keeps_the_last_and_the_best(tmp_path, load, texts):
    args = arguments(tmp_path, save_steps=1, save_total_limit=2)
    trainer = GVETrainer(load(), args, texts, callbacks=[SaveBest()])
    trainer.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    written = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert written["best_model_checkpoint"] == str(tmp_path / "checkpoint-2")
    assert not (tmp_path / STAGE).exists()


def test_finding_checkpoints(tmp_path):
    assert find_checkpoint(None, str(tmp_path)) is find_checkpoint(False, str(tmp_path)) is None
    for name in ("checkpoint-9", "checkpoint-10", f"{STAGE}/checkpoint-11"):
        (tmp_path / name).mkdir(parents=True)
    assert find_checkpoint(True, str(tmp_path)).name == "checkpoint-10"
    assert find_checkpoint(str(tmp_path / "checkpoint-9"), "x").name == "checkpoint-9"
    with pytest.raises(ValueError, match=r"got True, and .* has no checkpoint-N"):
        find_checkpoint(True, str(tmp_path / "none"))
    with pytest.raises(ValueError, match="which is not a folder"):
        find_checkpoint(str(tmp_path / "none"), "x")


def test_changes_are_lines(texts, load):
    facts = run_facts(arguments("/tmp/none"), texts, load())
    assert changes(facts, facts) == []
    assert json.loads(json.dumps(facts)) == facts
    other = facts | {"processes": 2, "tasks": {"t2v": facts["tasks"]["t2t"], "t2t": facts["tasks"]["t2t"]}}
    assert changes(facts, other) == ["processes: 1 -> 2", "task t2v: added"]
    assert changes(other, facts | {"processes": 2}) == ["task t2v: removed"]
    turned = other | {"tasks": dict(reversed(other["tasks"].items()))}
    assert changes(other, turned) == ["order of the tasks: t2v, t2t -> t2t, t2v"]


def test_digests_see_texts_names_and_sizes_but_not_folders(tasks, monkeypatch):
    rows = tasks["t2v"]
    whole = rows_digest(rows)
    monkeypatch.setattr("gve.trainers.resume.guard.CHUNK", 5)
    assert rows_digest(rows) == whole  # whatever the chunks

    def changed(change):
        return rows_digest(rows.map(lambda row: change(row) or row, features=rows.features))

    assert changed(lambda row: None) == whole
    assert changed(lambda row: row["query"].update(text=row["query"]["text"] + ".")) != whole
    assert changed(lambda row: row["target"]["video"].update(bytes=row["target"]["video"]["bytes"] + b"0")) != whole
    assert changed(lambda row: row["target_facts"].append(7)) != whole
    here = changed(lambda row: row["target"].update(video={"bytes": None, "path": "/a/x.mp4"}))
    there = changed(lambda row: row["target"].update(video={"bytes": None, "path": "/b/x.mp4"}))
    assert here == there != changed(lambda row: row["target"].update(video={"bytes": None, "path": "/b/y.mp4"}))
