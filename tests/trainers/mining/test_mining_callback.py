"""Mined negatives in training: each epoch its own version, in every worker and process, and the same after a kill."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from short_runs import StopAt, assert_same, losses
from short_runs import arguments as settings
from training_runs import Run, launch

from gve.trainers import GVETrainer
from gve.trainers.collator import PairCollator
from gve.trainers.mining.mined import HEADER

REMINE = {"remine_every_epoch": True, "mine_ceiling": None, "num_negatives": {"t2v": 2}}


def arguments(folder, **changes):
    return settings(folder, task_batch_sizes={"i2v": 3}, **changes)


def versions(folder):
    return sorted(path.name for path in (Path(folder) / "mined").iterdir())


def headers(folder):
    """By epoch."""
    found = [json.loads((folder / "mined" / name / HEADER).read_text()) for name in versions(folder)]
    return {header["epoch"]: header for header in found}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*.*"))}


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_turn_to_the_new_version_with_the_first_batch(tmp_path, load, tasks, workers):
    """Whatever a batch of epoch t holds as negatives, the version of epoch t names it."""
    seen, places = [], {row["video"]["bytes"]: number for number, row in enumerate(tasks["t2v"]["target"])}

    class Spying(PairCollator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            if rows[0]["task"] == "t2v":
                names = [[places[negative["video"]["bytes"]] for negative in row["negatives"]] for row in rows]
                batch["query_negative_places"] = torch.tensor(names)
            return batch

    class Reading(GVETrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if "query_negative_places" in inputs:
                found = inputs.pop("query_negative_places").tolist()
                seen.append((self.state.global_step // 4, dict(zip(inputs["ids"], found, strict=True))))
            return super().compute_loss(model, inputs, *args, **kwargs)

    model = load()
    changes = {"dataloader_num_workers": workers, "dataloader_persistent_workers": bool(workers)}
    if workers:  # started otherwise, they cannot import a class of a test
        changes["dataloader_multiprocessing_context"] = "fork"
    args = arguments(tmp_path, num_train_epochs=3, schedule="uniform", learning_rate=0.02, **REMINE, **changes)
    trainer = Reading(model, args, tasks, data_collator=Spying(model.processor, num_negatives=args.num_negatives))
    trainer.train()
    made, tables = headers(tmp_path), {}
    for epoch, header in made.items():
        rows = pq.read_table(tmp_path / "mined" / f"mined-{header['version']}" / "t2v.parquet").to_pylist()
        tables[epoch] = {row["id"]: [int(name.partition("-")[2]) for name in row["negatives"]] for row in rows}
    assert {epoch for epoch, _ in seen} == set(tables) == {0, 1, 2}
    assert {header["prober"]["name"] for header in made.values()} == {"live weights"}
    assert len({header["prober"]["fingerprint"] for header in made.values()}) == 3
    assert all(header["settings"]["short"] == "fill" and set(header["tasks"]) == {"t2v"} for header in made.values())
    logged = [entry for entry in trainer.state.log_history if "mined_mean_negative/t2v" in entry]
    assert [entry["epoch"] for entry in logged] == [0, 1, 2]
    assert all(entry["mined_short/t2v"] == 0 and entry["mined_mean_positive/t2v"] <= 1 for entry in logged)
    for epoch, found in seen:
        assert found == {name: tables[epoch][name] for name in found}
    assert tables[0] != tables[1] or tables[1] != tables[2]


def test_a_run_stopped_in_mid_epoch_goes_on_with_its_version(tmp_path, load, tasks):
    def trainer(name, *callbacks):
        args = arguments(tmp_path / name, num_train_epochs=2, **REMINE)
        return GVETrainer(load(), args, tasks, prober=load(), callbacks=list(callbacks))

    whole, second = trainer("whole"), trainer("parts")
    whole.train()
    names = {epoch: header["prober"]["name"] for epoch, header in headers(tmp_path / "whole").items()}
    assert names == {0: "SentenceTransformer", 1: "live weights"}  # the given one first
    trainer("parts", StopAt(6)).train()
    made = contents(tmp_path / "parts" / "mined")
    second.train(resume_from_checkpoint=True)
    assert_same(second, whole)
    assert contents(tmp_path / "parts" / "mined") == contents(tmp_path / "whole" / "mined")
    assert made.items() <= contents(tmp_path / "parts" / "mined").items()
    assert losses(whole) == losses(second)
    assert second.mining.versions == whole.mining.versions and set(whole.mining.versions) == {0, 1}
    for name in versions(tmp_path / "parts"):
        (tmp_path / "parts" / "mined" / name / HEADER).unlink()
    with pytest.raises(ValueError, match=r"the checkpoint went on with the mined negatives .*mined.*, which are gone"):
        second.train(resume_from_checkpoint=True)


def test_two_processes_mine_what_one_does(tmp_path, embedder_folder, tasks):
    tasks.save_to_disk(tmp_path / "tasks")
    settings = {**REMINE, "num_train_epochs": 1, "task_batch_sizes": dict.fromkeys(tasks, 2), "steps_per_epoch": 2}
    mined = []
    for world_size in (1, 2):
        folder = tmp_path / f"run-{world_size}"
        run = Run(str(embedder_folder), str(tmp_path / "tasks"), str(folder), settings=settings)
        assert launch(run, world_size=world_size)[0]["losses"]
        (version,) = versions(folder)
        mined.append(pq.read_table(folder / "mined" / version / "t2v.parquet").to_pylist())
    one, other = mined
    assert [row["negatives"] for row in one] == [row["negatives"] for row in other]
    scores = [np.concatenate([row["scores"] for row in rows]) for rows in mined]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
