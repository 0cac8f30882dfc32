"""Training as transformers does it: gradients, checkpointed activations, and Trainer's resume."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from gve import GVEModel


def loss_of(vectors):
    """Each row against the next."""
    return torch.nn.functional.cross_entropy(vectors @ vectors.roll(1, 0).T / 0.1, torch.arange(len(vectors)))


@pytest.fixture(scope="module")
def batch(processor, rows):
    return processor.prepare(rows[:5])


def gradients(model, batch, checkpointing):
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = loss_of(model(**batch).embeddings)
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointed_activations_change_nothing(model, batch, frozen):
    results = []
    for checkpointing in (False, True):
        trained = copy.deepcopy(model).train()
        trained.visual.requires_grad_(not frozen)
        results.append(gradients(trained, batch, checkpointing))
    (plain, expected), (saved, got) = results
    assert abs(plain.item() - saved.item()) <= 1e-6 and set(got) == set(expected)
    assert frozen == (not any(name.startswith("visual.") for name in got))
    assert max((got[name] - expected[name]).abs().max().item() for name in got) <= 1e-6


class PairTrainer(Trainer):
    """transformers' Trainer but for the loss, which the model does not compute."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return loss_of(model(**inputs).embeddings)


def train(source, output, batches, *, steps, resume=None):
    arguments = TrainingArguments(
        output, max_steps=steps, save_steps=2, per_device_train_batch_size=1, learning_rate=1e-3, use_cpu=True,
        report_to=[], logging_strategy="no", disable_tqdm=True, remove_unused_columns=False, seed=0, data_seed=0,
    )  # fmt: skip
    model = GVEModel.from_pretrained(source)
    trainer = PairTrainer(model, arguments, train_dataset=batches, data_collator=lambda rows: dict(rows[0]))
    trainer.train(resume_from_checkpoint=resume)
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_trainer_resumes_to_the_bit(model, processor, tmp_path):
    """From an old-layout checkpoint, whose names transformers would write back and then fail to read."""
    state, source = model.state_dict(), tmp_path / "source"
    old = {key.replace("language_model.", "model.", 1): value.clone() for key, value in state.items()}
    model.config.save_pretrained(source)
    save_file(old, source / "model.safetensors", {"format": "pt"})
    texts = ["a red circle", "a blue box", "a small green star", "the camera pans right"]
    batches = [processor.prepare([{"text": texts[i]}, {"text": texts[i - 1]}]) for i in range(4)]
    uninterrupted = train(source, tmp_path / "one", batches, steps=4)
    checkpoint = tmp_path / "one" / "checkpoint-2"
    halfway = load_file(checkpoint / "model.safetensors")
    name = "language_model.layers.0.mlp.up_proj.weight"
    assert set(halfway) == set(state) and not torch.equal(halfway[name], uninterrupted[name])
    resumed = train(source, tmp_path / "two", batches, steps=4, resume=str(checkpoint))
    assert max((resumed[key] - uninterrupted[key]).abs().max().item() for key in state) == 0.0
