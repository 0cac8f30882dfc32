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
from gve.trainers.planning.row_costs import make_planner, measure_columns

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


class Fixed:
    """A prober that ranks targets by their places: the first ones are near to every query."""

    def __init__(self, targets):
        self.places = {bytes(target["video"]["bytes"]): place for place, target in enumerate(targets)}

    def encode_query(self, inputs, **kwargs):
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(inputs), 1))

    def encode_document(self, inputs, **kwargs):
        if not all(isinstance(item, dict) and set(item) == {"video"} for item in inputs):
            return self.encode_query(inputs)
        angles = [0.05 * (1 + self.places[item["video"].getvalue()]) for item in inputs]
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_first_epoch_asks_the_given_prober(tmp_path, load, tasks):
    prober = Fixed(tasks["t2v"]["target"])
    args = arguments(tmp_path, num_train_epochs=2, **REMINE, probe_pairs=4)
    GVETrainer(load(), args, tasks, prober=prober).train()
    by_epoch = headers(tmp_path)
    assert by_epoch[0]["prober"]["name"] == "Fixed" and by_epoch[1]["prober"]["name"] == "live weights"
    first = tmp_path / "mined" / f"mined-{by_epoch[0]['version']}" / "t2v.parquet"
    last = pq.read_table(first).to_pylist()[-1]
    assert last["negatives"] == ["t2v-0", "t2v-1"] and last["ranks"] == [1, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_turn_to_the_new_version_with_the_first_batch(tmp_path, load, tasks, workers):
    """Whatever a batch of epoch t holds as negatives, the version of epoch t names it."""
    seen = []

    class Spying(PairCollator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            if rows[0]["task"] == "t2v":
                names = [[target_id(negative) for negative in row["negatives"]] for row in rows]
                batch["query_negative_places"] = torch.tensor(names)
            return batch

    places = {row["video"]["bytes"]: number for number, row in enumerate(tasks["t2v"]["target"])}

    def target_id(negative):
        return places[negative["video"]["bytes"]]

    class Reading(GVETrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if "query_negative_places" in inputs:
                found = inputs.pop("query_negative_places").tolist()
                seen.append((self.state.global_step // 4, dict(zip(inputs["ids"], found, strict=True))))
            return super().compute_loss(model, inputs, *args, **kwargs)

    model = load()
    changes = {"dataloader_num_workers": workers, "dataloader_persistent_workers": bool(workers)}
    args = arguments(tmp_path, num_train_epochs=3, schedule="uniform", learning_rate=0.02, **REMINE, **changes)
    collator = Spying(model.processor, num_negatives=args.num_negatives)
    trainer = Reading(model, args, tasks, data_collator=collator)
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
    whole = GVETrainer(load(), arguments(tmp_path / "whole", num_train_epochs=2, **REMINE), tasks)
    whole.train()
    args = arguments(tmp_path / "parts", num_train_epochs=2, **REMINE)
    GVETrainer(load(), args, tasks, callbacks=[StopAt(6)]).train()
    made = contents(tmp_path / "parts" / "mined")
    second = GVETrainer(load(), args, tasks)
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


def test_two_processes_mine_what_one_does(tmp_path_factory, embedder_folder, tasks):
    base = tmp_path_factory.mktemp("runs")
    tasks.save_to_disk(base / "tasks")
    settings = {**REMINE, "num_train_epochs": 1, "task_batch_sizes": dict.fromkeys(tasks, 2), "steps_per_epoch": 2}
    make = (str(embedder_folder), str(base / "tasks"))
    launch(Run(*make, str(base / "one"), settings=settings))
    two = launch(Run(*make, str(base / "two"), settings=settings), world_size=2)
    assert two[0]["losses"] and len(versions(base / "two")) == 1
    one, other = (
        pq.read_table(base / name / "mined" / versions(base / name)[0] / "t2v.parquet").to_pylist()
        for name in ("one", "two")
    )
    assert [row["negatives"] for row in one] == [row["negatives"] for row in other]
    assert np.concatenate([row["scores"] for row in one]) == pytest.approx(
        np.concatenate([row["scores"] for row in other]), abs=1e-5
    )


def test_a_dry_run_counts_negatives_that_are_yet_to_be_mined(tasks):
    bare = tasks["t2t"]
    with pytest.raises(ValueError, match="num_negatives: got 2 for t2t, whose sampled rows have 0"):
        measure_columns(bare, 2, make_planner(None))
    query, target, *negatives = measure_columns(bare, 2, make_planner(None), mined=True)
    assert negatives == [target, target] and query is not target
