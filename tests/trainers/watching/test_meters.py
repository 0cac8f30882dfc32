import time

import pytest
import torch
from short_runs import arguments as settings

from gve.trainers import GVETrainer
from gve.trainers.watching.curves_command import CURVES
from gve.trainers.watching.meters import TaskMeters, WatchCallback


def arguments(folder, **changes):
    return settings(folder, **{"num_train_epochs": 2, "num_negatives": 0, "task_batch_sizes": {"i2v": 3}} | changes)


def test_means_by_task_and_over_all():
    meters = TaskMeters()
    for task, value in (("t2v", 1.0), ("t2v", 3.0), ("i2v", 8.0)):
        meters.task = task
        meters.add({"loss": torch.tensor(value), "score_mean": torch.tensor(value / 10)})
    expected = {"score_mean": 0.4, "loss/t2v": 2.0, "score_mean/t2v": 0.2, "loss/i2v": 8.0, "score_mean/i2v": 0.8}
    assert meters.pop() == pytest.approx(expected | {"batches/t2v": 2, "batches/i2v": 1})
    assert meters.pop() == {}


def test_waiting_is_measured_and_forgotten():
    watch = WatchCallback()
    with watch.waiting():
        time.sleep(0.02)
    got = watch.pop()
    assert got["data_wait_seconds"] >= 0.02
    assert 0 < got["data_wait_share"] <= 1
    assert watch.pop()["data_wait_seconds"] == 0


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_curves_are_of_the_tasks_that_were_drawn(tmp_path, embedder, tasks, accumulation, monkeypatch):
    trainer = GVETrainer(embedder, arguments(tmp_path, gradient_accumulation_steps=accumulation), tasks)
    collate, drawn = trainer.data_collator.__class__.__call__, []

    def recorded(collator, rows):
        drawn.append(rows[0]["task"])
        return collate(collator, rows)

    monkeypatch.setattr(trainer.data_collator.__class__, "__call__", recorded)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "score_mean" in entry]
    assert len(entries) == 8
    for number, entry in enumerate(entries):
        expected = drawn[number * accumulation : (number + 1) * accumulation]
        got = {name.removeprefix("batches/"): count for name, count in entry.items() if name.startswith("batches/")}
        assert got == {task: expected.count(task) for task in expected}
        assert {f"{curve}/{task}" for curve in CURVES for task in expected} <= entry.keys()
        whole = sum(entry[f"loss/{task}"] * count for task, count in got.items()) / accumulation
        assert entry["loss"] == pytest.approx(whole, abs=2e-3)
        assert entry["data_wait_seconds"] >= 0
