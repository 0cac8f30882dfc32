"""A run killed at any moment and started again is the run that was never killed: same batches, same loss, same bits."""

from pathlib import Path

import pytest
import torch
from training_runs import Run, launch

from gve.trainers.resume.checkpoints import STAGE


@pytest.fixture(scope="module")
def run(tmp_path_factory, embedder_folder, tasks):
    base = tmp_path_factory.mktemp("runs")
    tasks.save_to_disk(base / "tasks")

    def make(name, **changes):
        return Run(str(embedder_folder), str(base / "tasks"), str(base / name), **changes)

    return make


def assert_same_run(got, expected):
    assert (got["losses"], got["history"]) == (expected["losses"], expected["history"])
    assert got["batches"] == expected["batches"][-len(got["batches"]) :]
    assert got["weights"].keys() == expected["weights"].keys()
    assert not [name for name, value in expected["weights"].items() if not torch.equal(got["weights"][name], value)]


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("*") if path.is_dir())


def test_full_tuning_killed_three_times(run):
    settings = {"gradient_accumulation_steps": 2, "save_total_limit": 1}
    (whole,) = launch(run("whole", settings=settings))
    assert len(whole["losses"]) == 8
    killed = run("killed", settings=settings, kill=("save", 6))
    folder = Path(killed.folder)
    assert launch(killed) is None
    assert checkpoints(folder) == ["checkpoint-3", STAGE]  # the half one is nowhere a resume looks
    assert (folder / STAGE / "checkpoint-6" / "model.safetensors").is_file()
    assert launch(run("killed", settings=settings, kill=("substep", 8), resume=True)) is None
    assert checkpoints(folder) == ["checkpoint-6"]  # and the limit of one holds
    assert launch(run("killed", settings=settings, kill=("step", 7), resume=True)) is None
    (resumed,) = launch(run("killed", settings=settings, resume=True))
    assert len(resumed["batches"]) == 4
    assert_same_run(resumed, whole)


def test_adapters_with_cached_gradients_killed_in_a_save(run):
    changes = {"adapter": True, "settings": {"cache_tokens": 64}}
    (whole,) = launch(run("adapter-whole", **changes))
    assert launch(run("adapter", **changes, kill=("save", 6))) is None
    (resumed,) = launch(run("adapter", **changes, resume=True))
    assert len(resumed["batches"]) == 5
    assert_same_run(resumed, whole)


def test_two_processes_killed_in_a_save(run):
    settings = {"gather_across_devices": True}
    whole = launch(run("two-whole", settings=settings), world_size=2)
    assert launch(run("two", settings=settings, kill=("save", 6)), world_size=2) is None
    resumed = launch(run("two", settings=settings, resume=True), world_size=2)
    for rank in range(2):
        assert len(resumed[rank]["batches"]) == 5
        assert_same_run(resumed[rank], whole[rank])
    tasks = [[task for _, task, _ in one["batches"]] for one in whole]
    assert tasks[0] == tasks[1]
    assert not any(set(a[2]) & set(b[2]) for a, b in zip(*(one["batches"] for one in whole), strict=True))
