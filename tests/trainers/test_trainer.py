"""The trainer end to end on a tiny embedder: exact resume, whole checkpoints, an honest log."""

import pytest
import torch
from transformers import TrainerCallback

from gve.trainers import GVETrainer, GVETrainingArguments
from gve.trainers.curriculum.schedule import softmax_probabilities


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def arguments(folder, **changes):
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "task_batch_sizes": {"i2v": 3},
        "num_negatives": {"t2v": 1},
        "steps_per_epoch": 4,
        "learning_rate": 1e-3,
        "muon_learning_rate": 5e-3,
        "warmup_steps": 2,
        "probe_pairs": 6,
        "decode_cache_mb": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return GVETrainingArguments(output_dir=str(folder), **settings | changes)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("dtype", "changes", "stop"),
    [
        (torch.float32, {}, 6),
        (torch.float32, {"use_muon": True, "gradient_accumulation_steps": 2}, 5),
        (torch.bfloat16, {"use_muon": True}, 8),
        (torch.bfloat16, {"master_weights": True}, 7),
    ],
    ids=["adamw", "muon-accumulate", "bf16-muon-border", "bf16-masters"],
)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path, load, tasks, dtype, changes, stop):
    whole = GVETrainer(load(dtype=dtype), arguments(tmp_path / "whole", **changes), tasks)
    whole.train()
    first = GVETrainer(load(dtype=dtype), arguments(tmp_path / "parts", **changes), tasks, callbacks=[StopAt(stop)])
    first.train()
    second = GVETrainer(load(dtype=dtype), arguments(tmp_path / "parts", **changes), tasks)
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == whole.state.global_step == 12
    assert_same(weights(second.model), weights(whole.model))
    assert second.curriculum.history == whole.curriculum.history
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (whole, second)]
    assert losses[0] == losses[1]


def test_checkpoints_are_whole_folders(tmp_path, load, tasks):
    trainer = GVETrainer(load(), arguments(tmp_path, max_steps=3, save_strategy="steps", save_steps=3), tasks)
    trainer.train()
    folder = tmp_path / "checkpoint-3"
    again = load(folder)
    words = ["a red square", "nothing"]
    assert (again.encode(words) == trainer.model.encode(words)).all()
    assert not list(folder.glob("training_args.bin"))
    assert (folder / "modeling_gve.py").is_file()


def test_every_weight_moves_and_a_frozen_one_does_not(tmp_path, embedder, tasks):
    frozen = "0.model.visual.patch_embed.proj.weight"
    dict(embedder.named_parameters())[frozen].requires_grad_(False)
    before = weights(embedder)
    GVETrainer(embedder, arguments(tmp_path, max_steps=6, use_muon=True, schedule="uniform"), tasks).train()
    still = {name for name, value in embedder.named_parameters() if torch.equal(value, before[name])}
    assert still == {frozen}


class Reading:
    """A prober whose verdict is known: texts agree with everything, media with nothing."""

    def encode_query(self, inputs, **kwargs):
        assert kwargs["prompt"].startswith("Find")
        return self.encode_document(inputs)

    def encode_document(self, inputs, **kwargs):
        return torch.tensor(
            [[1.0, 0.0] if isinstance(item, str) or "text" in item else [0.0, 2.0] for item in inputs]
        ).numpy()


def test_the_first_epoch_asks_the_given_prober_and_the_log_says_so(tmp_path, embedder, tasks):
    trainer = GVETrainer(embedder, arguments(tmp_path, num_train_epochs=2), tasks, prober=Reading())
    trainer.train()
    first, second = (entry for entry in trainer.state.log_history if "sigma" in entry)
    assert (first["R/t2t"], first["R/t2v"], first["R/i2v"]) == (1.0, 0.0, 1.0)
    assert first["R_centred/t2t"] == pytest.approx(0.0)
    assert [first[f"P/{task}"] for task in tasks] == pytest.approx(softmax_probabilities([1, 0, 1], 0.1).tolist())
    assert (first["sigma"], second["sigma"]) == (0.1, 1.0)
    assert second["epoch"] == 1
    chances = softmax_probabilities([second[f"R/{task}"] for task in tasks], 1.0)
    assert [second[f"P/{task}"] for task in tasks] == pytest.approx(chances.tolist())


def test_without_a_prober_the_first_epoch_is_uniform(tmp_path, embedder, tasks):
    trainer = GVETrainer(embedder, arguments(tmp_path, max_steps=1), tasks)
    trainer.train()
    assert set(trainer.curriculum.history.epochs[0].probabilities.values()) == {1 / 3}


def test_the_log_carries_the_scores_of_the_loss(tmp_path, embedder, tasks):
    trainer = GVETrainer(embedder, arguments(tmp_path, max_steps=2), tasks)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all({"score_positive", "score_mean", "score_gap"} <= entry.keys() for entry in entries)


def test_workers_change_nothing(tmp_path, load, tasks):
    runs = []
    for workers in (0, 1):
        model = load()
        args = arguments(tmp_path, max_steps=3, dataloader_num_workers=workers)
        GVETrainer(model, args, tasks).train()
        runs.append(weights(model))
    assert_same(*runs)


def test_adapters_resume_too(tmp_path, load, tasks):
    from gve import lora_config

    def adapted():
        torch.manual_seed(0)
        model = load()
        model.add_adapter(lora_config(r=2, lora_alpha=4))
        return model

    whole = GVETrainer(adapted(), arguments(tmp_path / "whole", max_steps=5), tasks)
    whole.train()
    GVETrainer(adapted(), arguments(tmp_path / "parts", max_steps=5), tasks, callbacks=[StopAt(3)]).train()
    second = GVETrainer(adapted(), arguments(tmp_path / "parts", max_steps=5), tasks)
    second.train(resume_from_checkpoint=True)
    assert_same(weights(second.model), weights(whole.model))
    trained = {name for name, value in second.model.named_parameters() if value.requires_grad}
    assert trained
    assert all("language_model" in name and "lora" in name for name in trained)


def test_a_checkpoint_of_other_tasks_is_refused(tmp_path, load, tasks):
    GVETrainer(load(), arguments(tmp_path), tasks, callbacks=[StopAt(2)]).train()
    fewer = {task: rows for task, rows in tasks.items() if task != "i2v"}
    with pytest.raises(ValueError, match="checkpoint-2 of a run with other facts: task i2v: removed"):
        GVETrainer(load(), arguments(tmp_path), fewer).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (lambda tasks: tasks["t2v"], "got Dataset"),
        (lambda tasks: {"x2v": tasks["t2v"]}, "got task 'x2v'"),
        (lambda tasks: {"t2v": tasks["t2v"].remove_columns("group")}, "without group for t2v"),
    ],
)
def test_wrong_training_sets_are_refused(tmp_path, embedder, tasks, sets, message):
    with pytest.raises(ValueError, match=message):
        GVETrainer(embedder, arguments(tmp_path), sets(tasks))


def test_what_does_not_make_a_run_is_refused_before_any_work(tmp_path, embedder, tasks):
    args, stream = arguments(tmp_path), {"t2v": tasks["t2v"].to_iterable_dataset()}
    for given, message in (
        (
            {"args": args, "train_dataset": tasks, "model_init": lambda: embedder},
            "model_init: got .*; accepted is a model",
        ),
        ({"model": embedder, "args": args, "train_dataset": tasks, "model_init": lambda: embedder}, "model_init: got"),
        ({"args": args, "train_dataset": tasks}, "model: got NoneType; a SentenceTransformer is accepted"),
        ({"model": embedder, "train_dataset": tasks}, "args: got NoneType; GVETrainingArguments are accepted"),
        ({"model": embedder, "args": args}, "train_dataset: got NoneType; a DatasetDict"),
        ({"model": embedder, "args": args, "train_dataset": stream}, "train_dataset: got IterableDataset for t2v"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            GVETrainer(**given)
