"""Bad rows, losses that are no numbers, and weights that are not: named, and never on disk."""

import pytest
import torch
from datasets import Dataset, DatasetDict
from short_runs import arguments as settings
from torch import nn
from transformers import TrainerCallback

from gve.hub_datasets.schema import media, pair_features
from gve.trainers import GVETrainer
from gve.trainers.collator import PairCollator
from gve.trainers.resume.finite import LossGuard, check_weights
from gve.trainers.resume.missing import complete_rows, find_gaps
from gve.trainers.rows import NamedBatches


def arguments(folder, **changed):
    options = {"max_steps": 4, "num_negatives": 0, "save_strategy": "steps", "save_steps": 1, "schedule": "uniform"}
    return settings(folder, **options | changed)


@pytest.fixture
def broken(tasks, tmp_path):
    """Rows 0 to 3 of t2v lack something; row 4 reads its video from a file."""
    made = tasks["t2v"].to_list()
    (tmp_path / "there.mp4").write_bytes(made[4]["target"]["video"]["bytes"])
    made[0]["query"]["text"] = None
    made[1]["target"] = media()
    made[2]["target"]["video"] = {"bytes": None, "path": str(tmp_path / "gone.mp4")}
    made[3]["negatives"][0]["video"]["bytes"] = b""
    made[4]["target"]["video"] = {"bytes": None, "path": str(tmp_path / "there.mp4")}
    return DatasetDict({"t2v": Dataset.from_list(made, features=pair_features())})


def test_gaps_are_found_without_reading_the_media(broken, monkeypatch):
    monkeypatch.setattr("gve.trainers.resume.guard.CHUNK", 3)
    gaps = {0: "its query text", 1: "its target video", 2: "its target video"}
    assert find_gaps(broken["t2v"], "t2v") == gaps
    assert find_gaps(broken["t2v"], "t2v", negatives=1) == gaps | {3: "the video of a hard negative"}
    assert 5 in find_gaps(broken["t2v"], "ti2v-spatial")  # which needs an image too
    made = broken["t2v"].to_list()[5:]
    made[2]["negatives"].append(media())
    rows = Dataset.from_list(made, features=pair_features())
    assert find_gaps(rows, "t2v", negatives=1) == {}  # only negatives that are asked for count
    assert find_gaps(rows, "t2v", negatives=2) == {2: "the video of a hard negative"}


def test_missing_media_are_named_or_skipped_counted_and_logged(tmp_path, embedder, broken, caplog):
    with pytest.raises(ValueError, match="3 of 12 rows of t2v lack media: 't2v-0' without its query text, 't2v-1'"):
        GVETrainer(embedder, arguments(tmp_path), broken)
    args = arguments(tmp_path, on_missing="skip", num_negatives=1, save_strategy="no")
    trainer = GVETrainer(embedder, args, broken)
    assert len(trainer.train_dataset["t2v"]) == 8
    assert "on_missing: 4 of 12 rows of t2v lack media" in caplog.text
    trainer.train()
    assert next(entry for entry in trainer.state.log_history if "sigma" in entry)["skipped/t2v"] == 4
    with pytest.raises(ValueError, match="2 of 2 rows of t2v lack media"):
        complete_rows({"t2v": broken["t2v"].select([0, 1])}, on_missing="skip", negatives_of=lambda task: 0)


def test_an_unreadable_file_is_told_with_its_batch(embedder, tasks):
    rows = tasks["i2v"].to_list()[:2]
    rows[1]["query"]["image"]["bytes"] = b"no image"
    with pytest.raises(Exception, match="in a batch of i2v with rows i2v-0, i2v-1"):
        NamedBatches(PairCollator(embedder.processor))(rows)


class Poison(TrainerCallback):
    """Makes one weight NaN after a step, so that the loss of the next one is."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            next(model.parameters()).data.fill_(torch.nan)


def test_a_loss_that_is_nan_stops_with_the_rows_and_saves_nothing(tmp_path, load, tasks):
    args = arguments(tmp_path, save_steps=2)
    trainer = GVETrainer(load(), args, {"t2v": tasks["t2v"]}, callbacks=[Poison(3)])
    with pytest.raises(ValueError, match=r"loss: got nan in step 4, task t2v, rows t2v-\d+, .*last checkpoint"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    again = GVETrainer(load(), args, {"t2v": tasks["t2v"]})
    again.train(resume_from_checkpoint=True)
    assert all(value.isfinite().all() for value in again.model.parameters())


def test_weights_that_are_nan_are_not_saved(tmp_path, load, tasks):
    trainer = GVETrainer(load(), arguments(tmp_path), {"t2v": tasks["t2v"]}, callbacks=[Poison(2)])
    with pytest.raises(ValueError, match="weights: got NaN or infinity in 1 of 44 trained parameters after step 2"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("*")] == ["checkpoint-1"]


def test_the_guard_lets_numbers_pass_and_names_few_rows():
    guard = LossGuard()
    guard.check(torch.tensor(1.0), task="t2v", ids=["a"], step=1)
    with pytest.raises(ValueError, match="got inf in step 2, task t2v, rows 0, 1, 2, 3, 4, 5, 6, 7 and 3 more;"):
        guard.check(torch.tensor(torch.inf), task="t2v", ids=[str(i) for i in range(11)], step=2)
    guard.settle()


def test_frozen_weights_are_not_looked_at():
    model = nn.Linear(2, 2)
    model.bias.data.fill_(torch.nan)
    model.bias.requires_grad_(False)
    check_weights(model, step=1, device=torch.device("cpu"))
    model.bias.requires_grad_(True)
    with pytest.raises(ValueError, match="first in bias"):
        check_weights(model, step=1, device=torch.device("cpu"))
