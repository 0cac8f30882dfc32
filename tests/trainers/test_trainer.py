import numpy as np
import pytest
import torch
from short_runs import StopAt, arguments, assert_same, losses, weights

from gve.embedder_gve import EmbedderMixin
from gve.trainers import GVETrainer
from gve.trainers.curriculum.weights import softmax_probabilities


@pytest.mark.parametrize(
    ("dtype", "changes", "stop"),
    [
        (torch.float32, {"max_steps": 5}, 3),
        (torch.float32, {"use_muon": True, "gradient_accumulation_steps": 2}, 5),
        (torch.bfloat16, {"use_muon": True}, 8),
        (torch.bfloat16, {"master_weights": True}, 7),
        (torch.float32, {"schedule": "pyramid-plus", "probe_held_out": True}, 5),
    ],
    ids=["adamw", "muon-accumulate", "bf16-muon-border", "bf16-masters", "adaptive"],
)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path, load, tasks, dtype, changes, stop):
    def trainer(folder, *callbacks, **more):
        options = {"task_batch_sizes": {"i2v": 3}, "muon_learning_rate": 5e-3, "warmup_steps": 2} | changes | more
        return GVETrainer(load(dtype=dtype), arguments(tmp_path / folder, **options), tasks, callbacks=list(callbacks))

    whole, second = trainer("whole"), trainer("parts", dataloader_num_workers=1)  # workers change nothing
    whole.train()
    trainer("parts", StopAt(stop)).train()
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == whole.state.global_step == changes.get("max_steps", 12)
    assert_same(second, whole)
    assert second.curriculum.history == whole.curriculum.history
    assert losses(whole) == losses(second)


def test_checkpoints_are_whole_folders(tmp_path, load, tasks):
    trainer = GVETrainer(load(), arguments(tmp_path, max_steps=3, save_strategy="steps", save_steps=3), tasks)
    trainer.train()
    folder, words = tmp_path / "checkpoint-3", ["a red square", "nothing"]
    assert (load(folder).encode(words) == trainer.model.encode(words)).all()
    assert not list(folder.glob("training_args.bin")) and (folder / "modeling_gve.py").is_file()


def test_every_weight_moves_and_a_frozen_one_does_not(tmp_path, embedder, tasks):
    frozen = "0.model.visual.patch_embed.proj.weight"
    dict(embedder.named_parameters())[frozen].requires_grad_(False)
    before = weights(embedder)
    GVETrainer(embedder, arguments(tmp_path, max_steps=6, use_muon=True, schedule="uniform"), tasks).train()
    still = {name for name, value in embedder.named_parameters() if torch.equal(value, before[name])}
    assert still == {frozen}


def test_a_trained_query_leaves_what_it_shows_for_its_target(tmp_path, load, tasks):
    """The option reaches collator and loss: pictures of i2v end further from themselves than without it."""
    rows, options = tasks["i2v"], {"max_steps": 12, "learning_rate": 1e-2, "false_negative_margin": None}
    pictures, away = [{"image": row["image"]} for row in rows["query"]], []
    for chosen in ([], ["i2v"]):
        settings = arguments(tmp_path / str(len(chosen)), **options, reference_negatives=chosen)
        trainer = GVETrainer(load(), settings, {"i2v": rows})
        trainer.train()
        asked = trainer.model.encode(pictures, prompt=rows[0]["instruction"])
        away.append(float((asked * trainer.model.encode(pictures)).sum(1).mean()))
    assert away[1] < away[0] - 0.1


class Reading:
    """A prober whose verdict is known: texts agree with everything, media with nothing."""

    def encode_query(self, inputs, **kwargs):
        assert kwargs["prompt"].startswith("Find")
        return self.encode_document(inputs)

    def encode_document(self, inputs, **kwargs):
        texts = [isinstance(item, str) or "text" in item for item in inputs]
        return np.array([[1.0, 0.0] if text else [0.0, 2.0] for text in texts], np.float32)


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
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all({"score_positive", "score_mean", "score_gap"} <= entry.keys() for entry in entries)


def test_an_adaptive_schedule_asks_the_live_model_about_rows_it_never_trains_on(tmp_path, embedder, tasks):
    args = arguments(tmp_path, schedule="regret", probe_held_out=True, num_train_epochs=1)
    trainer = GVETrainer(embedder, args, tasks, prober=Reading())
    assert {task: len(rows) for task, rows in trainer.probed.items()} == dict.fromkeys(tasks, 3)
    for task, rows in trainer.train_dataset.items():
        assert not set(rows["id"]) & set(trainer.probed[task]["id"])
        assert len(rows) == 9
    trainer.train()
    first = next(entry for entry in trainer.state.log_history if "sigma" in entry)
    assert first["R/t2t"] != 1.0  # the given prober's verdict
    assert 0 < first["reciprocal/t2v"] <= 1


def test_what_does_not_make_a_run_is_refused_before_any_work(tmp_path, embedder, tasks):
    args, stream = arguments(tmp_path), {"t2v": tasks["t2v"].to_iterable_dataset()}
    for given, message in (
        ({"model": embedder, "args": args, "train_dataset": tasks, "model_init": lambda: embedder}, "model_init: got"),
        ({"args": args, "train_dataset": tasks}, "model: got NoneType; a SentenceTransformer is accepted"),
        ({"model": embedder, "train_dataset": tasks}, "args: got NoneType; GVETrainingArguments are accepted"),
        ({"model": embedder, "args": args}, "train_dataset: got NoneType; a DatasetDict"),
        ({"model": embedder, "args": args, "train_dataset": stream}, "train_dataset: got IterableDataset for t2v"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            GVETrainer(**given)


@pytest.mark.slow
def test_compiled_layers_train_alike(tmp_path, load, tasks, monkeypatch):
    compiled, layers = EmbedderMixin.compile_layers, []

    def without_a_code_generator(model):
        compiled(model, backend="aot_eager")
        layers.extend((*model.visual.blocks, *model.language_model.layers))

    monkeypatch.setattr(EmbedderMixin, "compile_layers", without_a_code_generator)
    found = []
    for compiles in (False, True):
        args = arguments(tmp_path, max_steps=2, compile_layers=compiles)
        trainer = GVETrainer(load(), args, tasks)
        trainer.train()
        found.append(losses(trainer))
    assert len(layers) == 3 and all(layer._compiled_call_impl is not None for layer in layers)
    assert len(found[0]) == 2 and found[1] == pytest.approx(found[0], abs=1e-5)
